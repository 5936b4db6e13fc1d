"""A feed that is open on this node: the order of its events, its state, its recent history.

    offer(event)  the only way in, for own commits, the bus and the log alike: the next event is
                  applied, an older one dropped, a later one waits in the reorder buffer while the
                  reader fetches what is missing
    apply         seq, state, history, and the frame for the subscribers

All of it is synchronous and without I/O: between two awaits of whoever drives it (`broadcast`,
`resume`, `catch_up`) everything is consistent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from coordinator.domain.events import Event, FeedKey
from coordinator.domain.roster import Departure
from coordinator.live.frames import event_frame
from coordinator.live.subscribers import Subscribers

HISTORY = 300
"""Events that a resuming client is sent; more = a snapshot."""

REORDER_BUFFER = 2000


class FeedState(Protocol):
    """What applying events makes of a feed: a room's roster, an interview's record."""

    def apply(self, event: Event) -> Departure | None:
        """Takes the next event in; whose connections it ends."""

    def snapshot(self) -> dict[str, Any]:
        """The members of a `welcome` that tell this state."""


class FeedSource(Protocol):
    """Where feeds of one kind are read: rooms, interviews. Raises `Unavailable`."""

    kind: str

    async def load(self, feed_id: str, /) -> tuple[int, FeedState] | None:
        """State and seq of one moment, by one statement; None = no such feed."""

    async def events_after(self, feed_id: str, seq: int, limit: int, /) -> list[Event]:
        """The log after `seq`, oldest first."""

    async def head(self, feed_id: str, /) -> int | None:
        """The log's last seq."""

    async def heads(self, known: Sequence[tuple[str, int]], /) -> list[tuple[str, int]]:
        """Of feeds given with the seq known here, those whose last seq is another."""


class Feed:
    """One open feed.

    Attributes:
        seq: of the last event applied; None until the state is loaded.
        target: the highest seq that the log is known to have.
        history: recent frames with their seq, for those who resume.
        departures: events that end connections, not yet carried out.
        holds: attachings under way: a feed that is held or listened to stays open.
        is_missing: there is no such feed; found when it was to be read.
    """

    def __init__(self, key: FeedKey) -> None:
        self.key = key
        self.seq: int | None = None
        self.state: FeedState | None = None
        self.target = 0
        self.reorder_buffer: dict[int, Event] = {}
        self.history: deque[tuple[int, bytes]] = deque(maxlen=HISTORY)
        self.departures: list[tuple[int, Departure]] = []
        self.subscribers = Subscribers()
        self.holds = 0
        self.is_missing = False
        self._snapshot: dict[str, msgspec.Raw] | None = None

    @property
    def is_used(self) -> bool:
        return bool(self.subscribers or self.subscribers.pending or self.holds)

    @property
    def is_behind(self) -> bool:
        """True where the log is known to have more than this feed."""
        return self.seq is None or self.seq < self.target

    def start(self, seq: int, state: FeedState) -> None:
        """Takes up a loaded state; events that came while it was read follow it."""
        self.seq, self.state = seq, state
        self.history.clear()
        self.subscribers.start_at(seq)
        self._snapshot = None
        self._drain_reorder_buffer()

    def replace_state(self, seq: int, state: FeedState) -> bool:
        """A state that was just read replaces this one; False where it is of another seq."""
        if seq != self.seq:
            return False
        self.state, self._snapshot = state, None
        return True

    def offer(self, event: Event) -> bool:
        """Takes an event from anywhere, in any order; True where it was the next one."""
        if self.seq is not None and event.seq <= self.seq:
            return False
        self.target = max(self.target, event.seq)
        if self.seq is None or event.seq > self.seq + 1:
            if len(self.reorder_buffer) < REORDER_BUFFER:  # the rest is found in the log
                self.reorder_buffer[event.seq] = event
            return False
        self._apply(event)
        self._drain_reorder_buffer()
        return True

    def _drain_reorder_buffer(self) -> None:
        assert self.seq is not None
        while (event := self.reorder_buffer.pop(self.seq + 1, None)) is not None:
            self._apply(event)
        if self.reorder_buffer:
            for seq in [seq for seq in self.reorder_buffer if seq <= self.seq]:
                del self.reorder_buffer[seq]

    def _apply(self, event: Event) -> None:
        assert self.state is not None
        self.seq = event.seq
        self._snapshot = None
        frame = event_frame(event)
        self.history.append((event.seq, frame))
        self.subscribers.append(event.seq, frame)
        if (departure := self.state.apply(event)) is not None:
            self.departures.append((event.seq, departure))

    def snapshot(self) -> dict[str, msgspec.Raw]:
        """The members of a `welcome` that tell the state, as JSON; cached until the next event."""
        if self._snapshot is None:
            assert self.state is not None
            self._snapshot = encoded(self.state)
        return self._snapshot

    def remembers(self, since: int) -> bool:
        """True where the history alone lets a client resume after `since`."""
        if self.seq is None:
            return False
        return since >= self.seq or bool(self.history and self.history[0][0] <= since + 1)


def encoded(state: FeedState) -> dict[str, msgspec.Raw]:
    """The members of a `welcome` that tell a state, each as JSON."""
    return {
        name: msgspec.Raw(msgspec.json.encode(value)) for name, value in state.snapshot().items()
    }

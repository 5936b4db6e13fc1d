"""A feed that is open on this node: the order of its events, its state, its recent history.

    offer(event)  the only way in, for own commits, the bus and the log alike: the next event is
                  applied, an older one dropped, a later one waits in the reorder buffer while the
                  reader fetches what is missing
    apply         seq, state, history, and the frame for the subscribers

All of it is synchronous and without I/O: between two awaits of whoever drives it (`broadcast`,
`resume`, `catch_up`) everything is consistent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set
from typing import Any, Protocol

import structlog

from coordinator.domain.events import Event, FeedKey, Head
from coordinator.domain.roster import Counts, Departure, NotUnderstood
from coordinator.live.frames import EventFrame
from coordinator.live.history import History
from coordinator.live.snapshot import Snapshot
from coordinator.live.subscribers import Subscribers
from coordinator.store.logs import Moved

log = structlog.get_logger()

REORDER_BUFFER = 2000


class FeedState(Protocol):
    """What applying events makes of a feed: a room's roster, an interview's record.

    Attributes:
        erasures: how many times somebody had been erased from it when it was read.
    """

    erasures: int

    def apply(self, event: Event) -> Departure | None:
        """Applies the next event; tells whose connections the event ends.

        Raises:
            NotUnderstood: this state is to be read anew.
        """

    def admits(self, user_id: str | None) -> bool:
        """True where somebody may listen; None: somebody who only watches."""

    def counts(self) -> Counts | None:
        """How many people there are; None where nobody is in such a feed."""

    def snapshot(self) -> dict[str, Any]:
        """The members of a `welcome` that tell this state."""


class FeedSource(Protocol):
    """Where feeds of one kind are read: rooms, interviews. Raises `Unavailable`."""

    kind: str

    async def load(self, feed_id: str, /) -> tuple[Head, FeedState] | None:
        """State and last event of one moment, by one statement; None = no such feed."""

    async def events_after(self, feed_id: str, seq: int, limit: int, /) -> list[Event]:
        """The log after `seq`, oldest first."""

    async def connections_at(self, feed_id: str, seq: int, /) -> Mapping[str, str]:
        """Who was there as of `seq`, and with which `connection`."""

    async def head(self, feed_id: str, /) -> int | None:
        """The log's last seq."""

    async def epoch_at(self, feed_id: str, seq: int, /) -> str | None:
        """The epoch of an event of the log; None where there is none."""

    async def moved(
        self, known: Sequence[tuple[str, Head]], erasures: Sequence[int], /
    ) -> Sequence[Moved]:
        """Of feeds given with the last event told here, and with the erasures that are known, those
        whose log ends elsewhere or which had another erasure.
        """

    async def vanished(self, known: Sequence[tuple[str, Head]], /) -> Set[str]:
        """Of feeds given with the last event told here, those whose log does not have it."""


class Feed:
    """One open feed.

    Attributes:
        head, seq: the last event applied, and its number; None until the state is loaded.
        epoch: the history that this feed was last found in.
        target: the highest seq that the log is known to have.
        history: recent events, for those who resume.
        departures: events that end connections, not yet carried out.
        holds: attachings under way: a feed that is held or listened to stays open.
        is_missing: the database has no such room or interview; known once the feed was read.
        is_stale: the state is to be read anew, and nobody is greeted before: an event was not
            understood, or somebody was erased. Everybody who listens is told the events all the
            same.
        needs_review: the state was read anew: somebody who listens may have no place in it.
        is_frozen: the database has become another history: events only gather, and nobody is
            greeted, until it is known that the last event told is in it.
        recalling: held while what came before `history` is read into it.
    """

    __slots__ = (
        "_counts",
        "_doubted_from",
        "_doubtful",
        "_snapshot",
        "departures",
        "epoch",
        "head",
        "history",
        "holds",
        "is_frozen",
        "is_missing",
        "is_stale",
        "key",
        "needs_review",
        "recalling",
        "reorder_buffer",
        "seq",
        "state",
        "subscribers",
        "target",
    )

    def __init__(self, key: FeedKey, history: History) -> None:
        self.key = key
        self.head: Head | None = None
        self.seq: int | None = None
        self.epoch = ""
        self.state: FeedState | None = None
        self.target = 0
        self.reorder_buffer: dict[int, Event] = {}
        self.history = history
        self.departures: list[tuple[int, Departure]] = []
        self.subscribers = Subscribers()
        self.holds = 0
        self.is_missing = False
        self.is_frozen = False
        self.is_stale = False
        self.needs_review = False
        self.recalling = asyncio.Lock()
        self._doubtful: list[Event] = []
        """While the feed is stale: the event that was not understood, and those after it."""
        self._doubted_from = 0
        """While the feed is stale: the least seq of a state that ends that."""
        self._counts: Counts | None = None
        self._snapshot: Snapshot | None = None

    @property
    def is_used(self) -> bool:
        return bool(self.subscribers or self.subscribers.pending or self.holds)

    @property
    def is_behind(self) -> bool:
        """True where the database is known to have more than this feed."""
        return self.seq is None or self.seq < self.target or self.is_stale

    def start(self, head: Head, state: FeedState, *, epoch: str) -> None:
        """Takes up a loaded state; events that came while it was read follow it."""
        self.head, self.seq, self.state, self.epoch = head, head.seq, state, epoch
        self._counts = state.counts()
        self.history.start_at(head.seq)
        self.subscribers.start_at(head.seq)
        self._snapshot, self.is_frozen = None, False
        self._forget_other_histories()
        self._drain_reorder_buffer()

    def freeze(self) -> None:
        """The database has become another history."""
        self.is_frozen = self.head is not None

    def thaw(self, epoch: str) -> None:
        """The last event told is in the new history: the stream goes on in it."""
        self.epoch, self.is_frozen = epoch, False
        self._forget_other_histories()
        self._drain_reorder_buffer()

    def _forget_other_histories(self) -> None:
        """Drops announced events of other histories: the log may not have them any more.

        Those that it still has, the reader finds there.
        """
        self.reorder_buffer = {
            seq: event
            for seq, event in self.reorder_buffer.items()
            if event.epoch in ("", self.epoch)
        }

    def replace_state(self, seq: int, state: FeedState) -> bool:
        """A state that was just read replaces this one; False where it is of another seq."""
        if seq != self.seq:
            return False
        self._put(state)
        return True

    def renew(self, seq: int, state: FeedState) -> bool:
        """Takes the state of `seq`, which was read anew because this feed `is_stale`.

        False where that state is too old to end that, or newer than this feed.
        """
        assert self.seq is not None
        if seq > self.seq:
            self.target = max(self.target, seq)
            return False
        if seq < self._doubted_from:
            return False
        for event in self._doubtful:
            if event.seq > seq:
                state.apply(event)
        self._put(state)
        self._doubtful, self.is_stale, self.needs_review = [], False, True
        return True

    def _put(self, state: FeedState) -> None:
        """Takes up another state; after an erasure the history goes, since it names the erased."""
        assert self.seq is not None
        if self.state is not None and self.state.erasures != state.erasures:
            self.history.start_at(self.seq)
        self.state, self._counts, self._snapshot = state, state.counts(), None

    def doubt_state(self) -> None:
        """Somebody was erased from the log: the state of this feed has to be read anew."""
        if not self.is_stale and self.seq is not None:
            self.is_stale, self._doubtful, self._doubted_from = True, [], self.seq

    def offer(self, event: Event) -> bool:
        """Takes an event from anywhere, in any order; True where it was the next one."""
        seq = self.seq
        if seq is not None and event.seq <= seq:
            return False
        self.target = max(self.target, event.seq)
        if seq is None or event.seq > seq + 1 or self.is_frozen:
            if len(self.reorder_buffer) < REORDER_BUFFER:  # the rest is found in the log
                self.reorder_buffer[event.seq] = event
            return False
        self._apply(event)
        if self.reorder_buffer:
            self._drain_reorder_buffer()
        return True

    def _drain_reorder_buffer(self) -> None:
        assert self.head is not None
        while (event := self.reorder_buffer.pop(self.head.seq + 1, None)) is not None:
            self._apply(event)
        if self.reorder_buffer:
            last = self.head.seq
            for seq in [seq for seq in self.reorder_buffer if seq <= last]:
                del self.reorder_buffer[seq]

    def _apply(self, event: Event) -> None:
        state = self.state
        assert state is not None
        self.head, self.seq = event.head, event.seq
        self._snapshot = None
        if self.is_stale:
            self._doubtful.append(event)
        try:
            if (departure := state.apply(event)) is not None:
                self.departures.append((event.seq, departure))
        except NotUnderstood as doubt:
            self._doubt(event, doubt)
        before, self._counts = self._counts, state.counts()
        frame = EventFrame(event, before, self._counts)
        self.history.append(frame)
        self.subscribers.append(frame)

    def _doubt(self, event: Event, doubt: NotUnderstood) -> None:
        if not self.is_stale:
            log.warning("event_not_understood", feed=event.feed.id, what=str(doubt))
            self.is_stale, self._doubtful, self._doubted_from = True, [event], event.seq

    def snapshot(self, *, counts_only: bool = False) -> Snapshot:
        """The state as `welcome` frames tell it; cached until the next event.

        Args:
            counts_only: without those who are there.
        """
        if counts_only:
            return Snapshot.of(self.state, counts_only=True)
        if self._snapshot is None:
            self._snapshot = Snapshot.of(self.state)
        return self._snapshot

    def counts_at(self, since: int) -> Counts | None:
        """How many people there were as of `since`, which the history `remembers`."""
        missed = self.history.after(since)
        return missed[0].counts_before if missed else self._counts

    def epoch_of(self, seq: int) -> str | None:
        """The epoch of a recent event; None where it is not remembered."""
        if self.head is not None and seq == self.head.seq:
            return self.head.epoch
        return self.history.epoch_of(seq)

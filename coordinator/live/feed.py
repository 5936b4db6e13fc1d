"""A feed that is open on this node: its state, its seq, and who listens to it.

    offer(event)  the only way in, for own commits, the bus and the log alike: the next one is
    applied, an older one dropped, a later one waits while the reader fetches what is missing
    apply         seq, state, the ring of recent frames, the frames to be sent
    send          a round over the subscribers, some at a time: each is sent all that it lacks
    settle        lets in who waits, lets out who must go

Each subscriber has its own place in the stream (`Cursor.seq`). A round over a large room takes
several turns of the loop, so that nothing else waits for it; what happens meanwhile goes out in the
same write to those whom the round has not reached, and in the next round to the others.

All of it is synchronous: between two awaits of the reader everything is consistent. Every direct
write to a connection flushes its outlet first; without that, a client is told a seq whose events it
has not been sent, or is sent an event twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import msgspec

from coordinator.domain.events import Event, FeedKey
from coordinator.domain.roster import Departure
from coordinator.live.frames import event_frame

HISTORY = 300
"""Events that a resuming client is sent; more = a snapshot."""

REORDER_BUFFER = 2000

_GONE = 1 << 62
"""The place of an outlet that nothing is sent to any more."""

_NOTHING = (0, 0, b"")


class FeedState(Protocol):
    """What applying events makes of a feed: a room's roster, an interview's record."""

    def apply(self, event: Event) -> Departure | None:
        """Takes the next event in; whom it puts out."""

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


class Subscriber(Protocol):
    """A connection that listens. Nothing here may await or raise."""

    user_id: str | None
    connect_seq: int

    @property
    def writer(self) -> Callable[[bytes], None]:
        """Sends frames as they are; the shortest way, as long as it listens."""

    def write(self, frames: bytes) -> None:
        """Sends frames as they are; nothing once it is closing."""

    def welcome(self, feed: Feed, *, resumed: bool, since: int) -> None:
        """Sends the greeting: a snapshot, or that the missed events follow."""

    def close(self, code: int) -> None:
        """Says bye and closes."""


class PendingSubscriber:
    """A subscriber that is not yet let in.

    Attributes:
        since: resume after this seq; None = a snapshot.
        need: it is let in when the feed has reached this seq.
        history: frames of (since, …] that were read from the log, by seq.
        greets: False where the reply is to a `sync`: then only a snapshot has a `welcome`.
    """

    __slots__ = ("greets", "history", "need", "since", "subscriber")

    def __init__(
        self, subscriber: Subscriber, *, since: int | None, need: int, greets: bool
    ) -> None:
        self.subscriber = subscriber
        self.since = since
        self.need = need
        self.history: dict[int, bytes] = {}
        self.greets = greets


class Cursor:
    """A subscriber's end of the stream: it has been sent everything up to `seq`."""

    __slots__ = ("seq", "subscriber", "write")

    def __init__(self, subscriber: Subscriber, seq: int) -> None:
        self.subscriber = subscriber
        self.write = subscriber.writer
        self.seq = seq


class Feed:
    """One open feed. `seq` is None until it is loaded."""

    def __init__(self, key: FeedKey) -> None:
        self.key = key
        self.seq: int | None = None
        self.state: FeedState | None = None
        self.target = 0
        self.reorder_buffer: dict[int, Event] = {}
        self.history: deque[tuple[int, bytes]] = deque(maxlen=HISTORY)
        self.pending: deque[bytes] = deque()
        """The frames up to `seq` that somebody may lack."""
        self.departures: list[tuple[int, Departure]] = []
        self.subscribers: dict[Subscriber, Cursor] = {}
        self.by_user: dict[str, set[Subscriber]] = {}
        self.waiting: list[PendingSubscriber] = []
        self.holds = 0
        """Attachings under way: a feed that is held or listened to stays open."""
        self.is_missing = False
        """There is no such feed; found when it was to be read."""
        self._snapshot: bytes | None = None
        self._round: Iterator[Cursor] | None = None
        self._round_began_at = 0
        self._joined = _NOTHING

    @property
    def is_used(self) -> bool:
        return bool(self.subscribers or self.waiting or self.holds)

    @property
    def is_behind(self) -> bool:
        """True where the log is known to have more than this feed."""
        return self.seq is None or self.seq < self.target

    def start(self, seq: int, state: FeedState) -> None:
        """Takes up a loaded state; events that came while it was read follow it."""
        self.seq, self.state = seq, state
        self.history.clear()
        self.pending.clear()
        self._snapshot = self._round = None
        self._joined = _NOTHING
        self._drain_reorder_buffer()

    def take_over(self, seq: int, state: FeedState) -> bool:
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
        self.pending.append(frame)
        if (departure := self.state.apply(event)) is not None:
            self.departures.append((event.seq, departure))

    def snapshot(self) -> bytes:
        """The members of a `welcome` that tell the state, as JSON without its braces; cached."""
        if self._snapshot is None:
            assert self.state is not None
            self._snapshot = msgspec.json.encode(self.state.snapshot())[1:-1]
        return self._snapshot

    def begin_round(self) -> None:
        """From here on `send` goes over everybody who listens now."""
        self._round = iter(list(self.subscribers.values()))
        self._round_began_at = self.seq or 0

    def send(self, most: int) -> tuple[int, int]:
        """Goes on with the round: writes what they lack to the next `most` who lack something.

        Returns:
            how many it wrote to (fewer than `most`: the round is over), and the events written to
            each of them, in sum.
        """
        writes = deliveries = 0
        head = self.seq
        if self._round is None or head is None:
            return 0, 0
        for outlet in self._round:
            if outlet.seq < head:
                deliveries += head - outlet.seq
                self._write(outlet, head)
                writes += 1
                if writes == most:
                    return writes, deliveries
        self._round, self._joined = None, _NOTHING
        for _ in range(len(self.pending) - (head - self._round_began_at)):
            self.pending.popleft()  # everybody has been sent it
        return writes, deliveries

    def flush(self, subscriber: Subscriber) -> int:
        """Sends one connection what it lacks; how many events. Due before each direct write."""
        outlet = self.subscribers.get(subscriber)
        if outlet is None or self.seq is None or outlet.seq >= self.seq:
            return 0
        missed = self.seq - outlet.seq
        self._write(outlet, self.seq)
        return missed

    def _write(self, outlet: Cursor, head: int) -> None:
        start, end, frames = self._joined
        if start != outlet.seq or end != head:
            start = outlet.seq
            lacking = islice(self.pending, len(self.pending) - (head - start), None)
            frames = b"".join(lacking)
            self._joined = (start, head, frames)
        outlet.seq = head
        try:
            outlet.write(frames)  # who proves too slow goes meanwhile
        except RuntimeError:  # uvloop's word for a closed socket
            self.unsubscribe(outlet.subscriber)

    def settle(self) -> int:
        """Lets in who waits for what the feed has by now, lets out who must go.

        Returns:
            how many events were sent to those who go, in sum.
        """
        if self.waiting:
            self._let_in()
        return self._let_out() if self.departures else 0

    def _let_in(self) -> None:
        if self.seq is None:
            return
        ready = [entry for entry in self.waiting if entry.need <= self.seq]
        if not ready:
            return
        self.waiting = [entry for entry in self.waiting if entry.need > self.seq]
        for entry in ready:
            self._greet(entry, self.seq)
            self.subscribe(entry.subscriber)

    def _greet(self, entry: PendingSubscriber, seq: int) -> None:
        missed = self._frames_after(entry, seq)
        if missed is None:
            entry.subscriber.welcome(self, resumed=False, since=seq)
            return
        if entry.greets:
            entry.subscriber.welcome(self, resumed=True, since=entry.since or 0)
        if missed:
            entry.subscriber.write(b"".join(missed))

    def _frames_after(self, entry: PendingSubscriber, seq: int) -> list[bytes] | None:
        """The frames that it missed; None where a snapshot is due."""
        since = entry.since
        if since is None or since > seq or seq - since > HISTORY:
            return None
        if since == seq:
            return []
        known = entry.history | dict(self.history)
        try:
            return [known[number] for number in range(since + 1, seq + 1)]
        except KeyError:
            return None

    def remembers(self, since: int) -> bool:
        """True where the ring alone lets a client resume after `since`."""
        if self.seq is None:
            return False
        return since >= self.seq or bool(self.history and self.history[0][0] <= since + 1)

    def subscribe(self, subscriber: Subscriber) -> None:
        self.subscribers[subscriber] = Cursor(subscriber, self.seq or 0)
        if subscriber.user_id is not None:
            self.by_user.setdefault(subscriber.user_id, set()).add(subscriber)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Harmless for one who does not listen."""
        outlet = self.subscribers.pop(subscriber, None)
        if outlet is not None:
            outlet.seq = _GONE  # a round may still come by
        self.waiting = [entry for entry in self.waiting if entry.subscriber is not subscriber]
        if subscriber.user_id is not None:
            mine = self.by_user.get(subscriber.user_id)
            if mine is not None:
                mine.discard(subscriber)
                if not mine:
                    del self.by_user[subscriber.user_id]

    def _let_out(self) -> int:
        """Closes connections that opened before the event that puts them out."""
        departures, self.departures = self.departures, []
        deliveries = 0
        for seq, departure in departures:
            if departure.user_id is None:
                concerned = list(self.subscribers)
            else:
                concerned = list(self.by_user.get(departure.user_id, ()))
            for subscriber in concerned:
                if subscriber.connect_seq < seq:
                    deliveries += self.flush(subscriber)
                    subscriber.close(departure.code)
        return deliveries

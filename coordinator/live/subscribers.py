"""Who listens to a feed, and how far in its stream each of them is.

Each subscriber has a `Cursor`: it has been sent everything up to `cursor.seq`. A broadcast over a
large room takes several turns of the loop, so that nothing else waits for it; events that happen
meanwhile go out in the same write to those whom the broadcast has not reached, and in the next one
to the others.

Every direct write to a connection is preceded by `flush`; without that, a client is told a seq
whose events it has not been sent, or is sent an event twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.roster import Counts
from coordinator.live.frames import EventFrame

if TYPE_CHECKING:
    from coordinator.live.feed import Feed

_GONE = 1 << 62
"""The place of a cursor that nothing is sent to any more."""

_NOTHING = (0, 0, False, b"")


class Subscriber(Protocol):
    """A connection that listens. Nothing here may await or raise.

    Attributes:
        user_id: whose departure ends it; None where only the feed's end does.
        connect_seq: the log's last seq when it was admitted; earlier events cannot end it.
        counts_only: it is told how many there are, not who.
    """

    user_id: str | None
    connect_seq: int
    counts_only: bool

    @property
    def writer(self) -> Callable[[bytes], None]:
        """Sends frames as they are, by the shortest way; good as long as the connection listens."""

    def write(self, frames: bytes) -> None:
        """Sends frames as they are; nothing once it is closing."""

    def welcome(self, feed: Feed, *, since: int, counts: Counts | None, resumed: bool) -> None:
        """Sends the greeting: a snapshot, or that the missed events follow.

        Args:
            counts: of the people in the room as of `since`.
        """

    def on_not_admitted(self) -> None:
        """The state, read anew, has no place for it: it finds out why, and ends."""

    def close(self, code: CloseCode) -> None:
        """Says bye and closes."""


class PendingSubscriber:
    """A subscriber that is not yet admitted.

    Attributes:
        since: resume after this seq; None = a snapshot.
        epoch: the history that `since` belongs to; None where the client does not say.
        need: it is admitted when the feed has reached this seq.
        greets: False where the reply is to a `sync`: then only a snapshot has a `welcome`.
    """

    __slots__ = ("epoch", "greets", "need", "since", "subscriber")

    def __init__(
        self,
        subscriber: Subscriber,
        *,
        since: int | None,
        epoch: str | None,
        need: int,
        greets: bool,
    ) -> None:
        self.subscriber = subscriber
        self.since = since
        self.epoch = epoch
        self.need = need
        self.greets = greets


class Cursor:
    """A subscriber's place in the stream: it has been sent everything up to `seq`."""

    __slots__ = ("counts_only", "seq", "subscriber", "write")

    def __init__(self, subscriber: Subscriber, seq: int) -> None:
        self.subscriber = subscriber
        self.counts_only = subscriber.counts_only
        self.write = subscriber.writer
        self.seq = seq


class Subscribers:
    """The subscribers of one feed, and the frames that some of them lack.

    Attributes:
        head: the feed's last seq, which every cursor is brought to.
        pending: those who wait to be admitted.
        by_user: the connections of each participant, the oldest first.
    """

    __slots__ = (
        "_broadcast",
        "_broadcast_began_at",
        "_cursors",
        "_joined",
        "_unsent",
        "by_user",
        "head",
        "pending",
    )

    def __init__(self) -> None:
        self.head = 0
        self.pending: list[PendingSubscriber] = []
        self.by_user: dict[str, dict[Subscriber, None]] = {}
        self._cursors: dict[Subscriber, Cursor] = {}
        self._unsent: deque[EventFrame] = deque()
        """The frames up to `head` that some subscriber may lack."""
        self._broadcast: Iterator[Cursor] | None = None
        self._broadcast_began_at = 0
        self._joined = _NOTHING

    def __bool__(self) -> bool:
        return bool(self._cursors)

    def __len__(self) -> int:
        return len(self._cursors)

    def __iter__(self) -> Iterator[Subscriber]:
        return iter(self._cursors)

    def __contains__(self, subscriber: Subscriber) -> bool:
        return subscriber in self._cursors

    @property
    def has_unsent(self) -> bool:
        """True where frames are kept for somebody."""
        return bool(self._unsent)

    def start_at(self, seq: int) -> None:
        """The feed was loaded as of `seq`: nobody listens yet."""
        self.head = seq
        self._unsent.clear()
        self._broadcast, self._joined = None, _NOTHING

    def append(self, frame: EventFrame) -> None:
        """The feed's next event, to be sent to everybody."""
        self.head = frame.seq
        self._unsent.append(frame)

    def add(self, subscriber: Subscriber) -> None:
        """Subscribes a connection that has been sent everything up to `head`."""
        self._cursors[subscriber] = Cursor(subscriber, self.head)
        if subscriber.user_id is not None:
            self.by_user.setdefault(subscriber.user_id, {})[subscriber] = None

    def remove(self, subscriber: Subscriber) -> None:
        """Takes a connection off, also from `pending`; harmless where it is in neither."""
        cursor = self._cursors.pop(subscriber, None)
        if cursor is not None:
            cursor.seq = _GONE  # a broadcast may still come by
        self.pending = [entry for entry in self.pending if entry.subscriber is not subscriber]
        mine = self.by_user.get(subscriber.user_id) if subscriber.user_id is not None else None
        if mine is not None:
            mine.pop(subscriber, None)
            if not mine:
                del self.by_user[subscriber.user_id or ""]

    def of_user(self, user_id: str | None) -> list[Subscriber]:
        """The connections of one participant; None = everybody's."""
        return list(self._cursors if user_id is None else self.by_user.get(user_id, ()))

    def pending_of(self, user_id: str | None) -> list[Subscriber]:
        """Of those who wait to be admitted, the same."""
        waiting = [entry.subscriber for entry in self.pending]
        return [each for each in waiting if user_id is None or each.user_id == user_id]

    def begin_broadcast(self) -> None:
        """Begins a broadcast to everybody who listens now; `send` carries it out."""
        self._broadcast = iter(list(self._cursors.values()))
        self._broadcast_began_at = self.head

    def send(self, most: int) -> tuple[int, int]:
        """Goes on with the broadcast: writes to the next `most` subscribers that lack frames.

        Returns:
            how many it wrote to (fewer than `most`: the broadcast is over), and the events written
            to each of them, in sum.
        """
        writes = deliveries = 0
        head = self.head
        if self._broadcast is None:
            return 0, 0
        for cursor in self._broadcast:
            if cursor.seq < head:
                deliveries += head - cursor.seq
                self._write(cursor, head)
                writes += 1
                if writes == most:
                    return writes, deliveries
        self._broadcast, self._joined = None, _NOTHING
        for _ in range(len(self._unsent) - (head - self._broadcast_began_at)):
            self._unsent.popleft()  # everybody has been sent it
        return writes, deliveries

    def flush(self, subscriber: Subscriber) -> int:
        """Sends one connection what it lacks; how many events. Due before each direct write."""
        if not self._unsent:
            return 0
        cursor = self._cursors.get(subscriber)
        if cursor is None or cursor.seq >= self.head:
            return 0
        lacking = self.head - cursor.seq
        self._write(cursor, self.head)
        return lacking

    def _write(self, cursor: Cursor, head: int) -> None:
        start, end, counts_only, frames = self._joined
        if start != cursor.seq or end != head or counts_only is not cursor.counts_only:
            start, counts_only = cursor.seq, cursor.counts_only
            lacking = islice(self._unsent, len(self._unsent) - (head - start), None)
            frames = joined(lacking, counts_only=counts_only)
            self._joined = (start, head, counts_only, frames)
        cursor.seq = head
        try:
            cursor.write(frames)  # may end connections that prove too slow
        except RuntimeError:  # uvloop's word for a closed socket
            self.remove(cursor.subscriber)


def joined(frames: Iterable[EventFrame], *, counts_only: bool) -> bytes:
    """The bytes of several events, as one kind of subscriber is sent them."""
    if counts_only:
        return b"".join([frame.counted() for frame in frames])
    return b"".join([frame.plain for frame in frames])

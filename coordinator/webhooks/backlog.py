"""What one endpoint lacks, and whose turn it is: plain state, without I/O and without a clock.

Each log goes its own way: one event of it is under way at a time, the next one follows when that
was taken. A log whose event was refused waits for its next try, and no other log waits with it:

    behind ──► read ──► ready ──► sending ──► taken: read on, or idle
                          ▲           └─────► refused: waiting, then ready again; or parked

At most `IN_FLIGHT` events are under way together, of them at most half for logs that failed last
time, and a few places are kept for logs whose last event was taken: however many others hang, these
go on.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import count

from coordinator.domain.events import FeedKey
from coordinator.store.webhook_feeds import Behind, Note, TellableEvent

IN_FLIGHT = 100
FAILING_IN_FLIGHT = IN_FLIGHT // 2
UNPROVEN_IN_FLIGHT = IN_FLIGHT - 10
REMEMBERED = 20_000
"""Logs in memory. Those that lack nothing are forgotten first; what does not fit is found again."""
UNNOTED = 1_000
"""Deliveries that would be repeated if this process died now; beyond it nothing more is sent."""


class TrackedFeed:
    """One log as its sender keeps it.

    Attributes:
        position: the last seq that was taken, or is not wanted.
        head: the log's last seq, as far as anybody has said; `stored_head`: as Postgres has said.
        events: the next ones that are wanted, in order.
        read_to: up to there the log has been read.
        behind_since: when the oldest event that is lacking was committed, or noticed.
    """

    __slots__ = (
        "attempts", "behind_since", "events", "failing_since", "head", "is_busy", "is_dirty",
        "is_proven", "key", "last_answer", "parked_at", "position", "read_to", "retry_at",
        "stored_head",
    )  # fmt: skip

    def __init__(self, behind: Behind, now: datetime) -> None:
        self.key = behind.feed
        self.position = behind.position
        self.head = self.stored_head = behind.head
        self.read_to = behind.position
        self.events: deque[TellableEvent] = deque()
        self.attempts = behind.attempts
        self.retry_at = behind.retry_at
        self.failing_since = behind.failing_since
        self.parked_at: datetime | None = None
        self.last_answer: str | None = None
        self.behind_since = behind.failing_since or now
        self.is_proven = behind.position > 0 and not behind.attempts
        self.is_busy = False
        """It stands in a queue, or its event is under way."""
        self.is_dirty = False

    @property
    def lacks(self) -> bool:
        return self.position != self.head

    def note(self) -> Note:
        """What is to be stored of it."""
        return Note(
            feed=self.key, position=self.position, attempts=self.attempts,
            retry_at=self.retry_at, failing_since=self.failing_since, parked_at=self.parked_at,
            last_answer=self.last_answer,
        )  # fmt: skip


class Backlog:
    """The logs of one endpoint.

    Args:
        wants: whether a type is asked for.
    """

    def __init__(self, wants: Callable[[str], bool]) -> None:
        self._wants = wants
        self._feeds: OrderedDict[FeedKey, TrackedFeed] = OrderedDict()
        self._unread: deque[TrackedFeed] = deque()
        self._proven: deque[TrackedFeed] = deque()
        self._unproven: deque[TrackedFeed] = deque()
        self._failing: deque[TrackedFeed] = deque()
        self._waiting: list[tuple[datetime, int, TrackedFeed]] = []
        self._tie = count()
        self.has_new_wait = False
        """A log has begun to wait since the last `wake`."""
        self._dirty: dict[FeedKey, TrackedFeed] = {}
        self._unnoted = self._noting = 0
        self._turn = 0
        self.sending = 0
        self.sending_unproven = 0
        self.sending_failing = 0

    # -- what is behind -----------------------------------------------------------------------

    def hear(self, key: FeedKey, seq: int, now: datetime) -> bool:
        """A log has an event `seq`; False where the log is not known here."""
        feed = self._feeds.get(key)
        if feed is None:
            return False
        if seq > feed.head:
            if not feed.lacks:
                feed.behind_since = now
            feed.head = seq
            self._go_on(feed)
        return True

    def admit(self, found: Iterable[Behind], now: datetime) -> int:
        """Takes in logs that were found to be behind; how many of them were news."""
        news = 0
        for behind in found:
            known = self._feeds.get(behind.feed)
            if known is not None:
                news += known.head < behind.head
                self._compare(known, behind, now)
            elif self._has_room():
                news += 1
                feed = self._feeds[behind.feed] = TrackedFeed(behind, now)
                self._go_on(feed)
        return news

    def _compare(self, known: TrackedFeed, behind: Behind, now: datetime) -> None:
        """A log that is known here, as it was stored a moment ago."""
        if behind.head >= known.head:
            known.stored_head = behind.head
            self.hear(known.key, behind.head, now)
        elif behind.head < known.position and not known.is_busy and not known.is_dirty:
            # The log was set back, or this answer is older than what is known: look again.
            del self._feeds[known.key]

    def _has_room(self) -> bool:
        while len(self._feeds) >= REMEMBERED:
            key, feed = next(iter(self._feeds.items()))
            if feed.lacks or feed.is_dirty or feed.is_busy:
                self._feeds.move_to_end(key)
                return False
            del self._feeds[key]
        return True

    @property
    def has_room(self) -> bool:
        """False while so much waits that looking for more is of no use."""
        return len(self._unread) + self.ready < REMEMBERED // 2

    @property
    def ready(self) -> int:
        """How many logs could be sent from at once."""
        return len(self._proven) + len(self._unproven) + len(self._failing)

    def _go_on(self, feed: TrackedFeed) -> None:
        """Puts a log where it belongs next."""
        if feed.is_busy or not feed.lacks or feed.parked_at is not None:
            return
        feed.is_busy = True
        if feed.retry_at is not None:
            heapq.heappush(self._waiting, (feed.retry_at, next(self._tie), feed))
            self.has_new_wait = True
        elif feed.events:
            self._queue_of(feed).append(feed)
        else:
            self._unread.append(feed)

    def _queue_of(self, feed: TrackedFeed) -> deque[TrackedFeed]:
        if feed.attempts:
            return self._failing
        return self._proven if feed.is_proven else self._unproven

    # -- reading ------------------------------------------------------------------------------

    @property
    def has_unread(self) -> bool:
        """True where logs wait to be read."""
        return bool(self._unread)

    def to_read(self, limit: int) -> list[TrackedFeed]:
        """The next logs to read; each is given back by `fill` or `unread`."""
        return [self._unread.popleft() for _ in range(min(limit, len(self._unread)))]

    def unread(self, feeds: Sequence[TrackedFeed]) -> None:
        """They could not be read."""
        self._unread.extendleft(reversed(feeds))

    def fill(self, feed: TrackedFeed, events: Sequence[TellableEvent], *, limit: int) -> None:
        """A log's events after `read_to`, as many as `limit`, or all there are."""
        feed.is_busy = False
        if events:
            feed.read_to = events[-1].event.seq
            feed.head = max(feed.head, feed.read_to)
            feed.behind_since = events[0].at
        if len(events) < limit and feed.read_to != feed.head:
            if feed.head == feed.stored_head:
                feed.read_to = feed.head  # the rest was purged, or the log was set back
            else:
                feed.head = feed.read_to  # announced, but not in the log: Postgres's word counts
        feed.events.extend(event for event in events if self._wants(event.told_as))
        if not feed.events:
            self._move(feed, feed.read_to)
        self._go_on(feed)

    def _move(self, feed: TrackedFeed, position: int) -> None:
        if feed.position != position:
            feed.position = position
            self._mark(feed)

    def _mark(self, feed: TrackedFeed) -> None:
        feed.is_dirty = True
        self._dirty[feed.key] = feed

    # -- sending ------------------------------------------------------------------------------

    def wake(self, now: datetime) -> datetime | None:
        """Logs whose wait is over are ready; when the next one will be, or None."""
        self.has_new_wait = False
        while self._waiting and self._waiting[0][0] <= now:
            _, _, feed = heapq.heappop(self._waiting)
            feed.is_busy = False
            feed.retry_at = None
            self._go_on(feed)
        return self._waiting[0][0] if self._waiting else None

    def take(self) -> TrackedFeed | None:
        """The log to send from next; its first event is then under way. None = nobody may now."""
        if self.sending >= IN_FLIGHT or self._unnoted >= UNNOTED:
            return None
        feed = self._next()
        if feed is not None:
            self.sending += 1
            self.sending_failing += feed.attempts > 0
            self.sending_unproven += not feed.is_proven
        return feed

    def _next(self) -> TrackedFeed | None:
        """From each of the queues in turn, as far as it may."""
        may_try = self.sending_unproven < UNPROVEN_IN_FLIGHT
        limits = (
            (self._proven, True),
            (self._unproven, may_try),
            (self._failing, may_try and self.sending_failing < FAILING_IN_FLIGHT),
        )
        for place in range(self._turn, self._turn + len(limits)):
            queue, is_allowed = limits[place % len(limits)]
            if queue and is_allowed:
                self._turn = (place + 1) % len(limits)
                return queue.popleft()
        return None

    def _landed(self, feed: TrackedFeed) -> None:
        self.sending -= 1
        self.sending_failing -= feed.attempts > 0
        self.sending_unproven -= not feed.is_proven
        feed.is_busy = False

    def taken(self, feed: TrackedFeed, answer: str) -> None:
        """Its event was taken."""
        self._landed(feed)
        event = feed.events.popleft()
        feed.is_proven = True
        feed.attempts, feed.retry_at, feed.failing_since = 0, None, None
        feed.last_answer = answer
        self._move(feed, event.event.seq if feed.events else feed.read_to)
        self._unnoted += 1
        if feed.events:
            feed.behind_since = feed.events[0].at
        self._feeds.move_to_end(feed.key)
        self._go_on(feed)

    def refused(
        self, feed: TrackedFeed, answer: str, *, now: datetime, retry_at: datetime | None
    ) -> None:
        """Its event was not taken; `retry_at` None = it is parked."""
        self._landed(feed)
        feed.is_proven = False
        feed.attempts += 1
        feed.failing_since = feed.failing_since or now
        feed.last_answer = answer
        feed.retry_at = retry_at
        if retry_at is None:
            feed.parked_at = now
        self._mark(feed)
        self._go_on(feed)

    def put_back(self, feed: TrackedFeed) -> None:
        """It could not be sent for a reason of ours: the same event is sent again."""
        self._landed(feed)
        self._go_on(feed)

    # -- noting -------------------------------------------------------------------------------

    def to_note(self) -> list[TrackedFeed]:
        """Logs of which something is to be stored. What changes from now on is stored next time."""
        feeds = list(self._dirty.values())
        self._dirty.clear()
        for feed in feeds:
            feed.is_dirty = False
        self._noting, self._unnoted = self._unnoted, 0
        return feeds

    def not_noted(self, feeds: Sequence[TrackedFeed]) -> None:
        """They could not be stored: they are, next time."""
        self._unnoted += self._noting
        for feed in feeds:
            self._mark(feed)

    @property
    def has_news(self) -> bool:
        """True where something is to be stored."""
        return bool(self._dirty)

    def forget(self, feeds: Sequence[TrackedFeed], *, later_than: datetime) -> None:
        """Of logs just stored, those that wait for longer are left to the table, and the parked."""
        gone = set()
        for feed in feeds:
            is_far = feed.retry_at is not None and feed.retry_at > later_than
            if (is_far or feed.parked_at is not None) and not feed.is_dirty:
                self._feeds.pop(feed.key, None)
                gone.add(feed.key)
        if gone:
            self._waiting = [entry for entry in self._waiting if entry[2].key not in gone]
            heapq.heapify(self._waiting)

    def behind_since(self) -> datetime | None:
        """The time of the oldest event that is lacking, among the logs in memory."""
        return min((feed.behind_since for feed in self._feeds.values() if feed.lacks), default=None)

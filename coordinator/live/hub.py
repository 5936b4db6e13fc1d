"""The hub of a node: the feeds that are open here, and whatever keeps them current.

It does not know what a feed is about. Events come by three ways: commits of this node, the bus, and
the log, which repairs what the bus lost: at once where a later event shows the gap, else at the
next poll (3 s; 1 s while Redis is away).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import structlog

from coordinator.domain.errors import NotFound, Unavailable
from coordinator.domain.events import Event, FeedKey
from coordinator.live.feed import HISTORY, Feed, FeedSource, PendingSubscriber, Subscriber
from coordinator.live.frames import event_frame
from coordinator.metrics import DELIVERIES, DELIVERY_SECONDS, GAPS_REPAIRED

log = structlog.get_logger()

POLL_SECONDS = 3.0
DEGRADED_POLL_SECONDS = 1.0
POLL_CHUNK = 1000
LATE_SECONDS = 0.03
"""How long the reader waits for an event that is mostly on its way already."""
RETRY_SECONDS = 0.3
READ = 500
WRITES_AT_ONCE = 64
WRITES_PER_TURN = 16
"""Connections that are written to before other work has its turn: so many when a round begins, and
so many when one goes on, about a tenth of a millisecond."""
IDLE_SECONDS = 60.0
ATTACH_SECONDS = 8.0


class Hub:
    """The feeds open on this node.

    Args:
        sources: where each kind of feed is read.
        is_degraded: True while Redis is away: the poll then runs faster.
    """

    def __init__(self, sources: Iterable[FeedSource], is_degraded: Callable[[], bool]) -> None:
        self._sources = {source.kind: source for source in sources}
        self._is_degraded = is_degraded
        self.feeds: dict[FeedKey, Feed] = {}
        self._readers: dict[FeedKey, asyncio.Task[None]] = {}
        self._unsettled: dict[FeedKey, float] = {}
        """Feeds with something to send that no round has begun for, and since when."""
        self._rounds: dict[FeedKey, tuple[float, int]] = {}
        """Rounds under way: since when there was something to send, and deliveries so far."""
        self._is_sending = False
        self._idle_since: dict[FeedKey, float] = {}
        self._poll_now = asyncio.Event()

    def offer(self, events: Sequence[Event], committed: float) -> None:
        """Takes events of own commits and of the bus. Never blocks.

        Args:
            committed: the wall clock (`time.time`) of the node that committed them.
        """
        for event in events:
            feed = self.feeds.get(event.feed)
            if feed is None:
                continue
            if feed.offer(event):
                self._settle_soon(feed, committed)
            elif feed.is_behind:
                self._read_soon(feed, delay=LATE_SECONDS)

    def _settle_soon(self, feed: Feed, committed: float) -> None:
        """Frames of one turn of the loop are joined: one write per connection."""
        self._unsettled.setdefault(feed.key, committed)
        self._send_soon()

    def _send_soon(self) -> None:
        if not self._is_sending:
            self._is_sending = True
            asyncio.get_running_loop().call_soon(self._send_some)

    def _send_some(self) -> None:
        """Goes on with the rounds that are under way, and begins those that are due."""
        self._is_sending = False
        left = WRITES_PER_TURN
        for key, committed in list(self._unsettled.items()):
            feed = self.feeds.get(key)
            is_under_way = key in self._rounds
            if feed is None or not is_under_way:
                del self._unsettled[key]
            if feed is None:
                continue
            try:
                DELIVERIES.inc(feed.settle())
            except Exception as error:
                self._give_up(feed, error)
                continue
            if not is_under_way:  # else when that round is over
                feed.begin_round()
                self._rounds[key] = committed, 0
                left = WRITES_AT_ONCE
        for key, (committed, before) in list(self._rounds.items()):
            del self._rounds[key]
            feed = self.feeds.get(key)
            if feed is None:
                continue
            try:
                writes, deliveries = feed.send(left)
            except Exception as error:
                self._give_up(feed, error)
                continue
            DELIVERIES.inc(deliveries)
            left -= writes
            if not left:
                self._rounds[key] = committed, before + deliveries  # the others first, next time
                break
            if before + deliveries:
                DELIVERY_SECONDS.observe(max(0.0, time.time() - committed))
        if self._rounds or self._unsettled:
            self._send_soon()

    def flush(self, feed: Feed, subscriber: Subscriber) -> None:
        """A connection is sent all that its feed has; due before each direct write to it."""
        if deliveries := feed.flush(subscriber):
            DELIVERIES.inc(deliveries)

    async def attach(
        self,
        key: FeedKey,
        subscriber: Subscriber,
        *,
        since: int | None,
        connect_seq: int | None,
    ) -> Feed:
        """Lets a connection in: it is greeted, and sent every later event once, in order.

        Args:
            since: resume after this seq.
            connect_seq: the log's last seq that its own transaction saw; None = it is asked for.

        Raises:
            NotFound: no such feed.
            Unavailable: the log could not be read in time.
        """
        feed = self._open(key)
        feed.holds += 1
        try:
            source = self._sources[key.kind]
            if connect_seq is None:
                connect_seq = await source.head(key.id)
                if connect_seq is None:
                    raise NotFound
                subscriber.connect_seq = connect_seq
            if since is not None and since > connect_seq:
                since = None  # past the log's end: the client has seen another log
            entry = PendingSubscriber(subscriber, since=since, need=connect_seq, greets=True)
            await self._read_history(feed, entry)
            await self._let_in(feed, entry)
        except BaseException:
            feed.unsubscribe(subscriber)
            raise
        finally:
            feed.holds -= 1
            self._note_use(feed)
        return feed

    async def sync(self, feed: Feed, subscriber: Subscriber, since: int) -> None:
        """Sends a listening connection the events after `since` again, or a snapshot.

        Raises:
            Unavailable: the log could not be read in time.
        """
        source = self._sources[feed.key.kind]
        need = feed.seq or 0
        if since > need:
            need = await source.head(feed.key.id) or 0
        known = since if since <= need else None
        entry = PendingSubscriber(subscriber, since=known, need=need, greets=False)
        await self._read_history(feed, entry)
        self.flush(feed, subscriber)
        if subscriber not in feed.subscribers:
            return  # it went meanwhile
        feed.unsubscribe(subscriber)
        try:
            await self._let_in(feed, entry)
        except (NotFound, Unavailable):
            subscriber.close(4201)  # it listens no more, and must not believe that it does

    async def _read_history(self, feed: Feed, entry: PendingSubscriber) -> None:
        """What a resuming client missed and this feed's ring does not hold."""
        since = entry.since
        if since is None or not 0 <= entry.need - since <= HISTORY:
            return
        # The state first: what it was read after is then all in the log's answer, and what comes
        # later in the ring. The other way round, events between the two would be in neither.
        await self._catch_up(feed, entry.need)
        if feed.remembers(since):
            return
        source = self._sources[feed.key.kind]
        events = await source.events_after(feed.key.id, since, HISTORY)
        entry.history = {event.seq: event_frame(event) for event in events}

    async def _let_in(self, feed: Feed, entry: PendingSubscriber) -> None:
        feed.waiting.append(entry)
        await self._catch_up(feed, entry.need)
        DELIVERIES.inc(feed.settle())
        if feed.is_missing:
            raise NotFound
        if self.feeds.get(feed.key) is not feed or entry in feed.waiting:
            raise Unavailable

    async def _catch_up(self, feed: Feed, need: int) -> None:
        """Waits until the feed is at `need`, or its reader has given up."""
        feed.target = max(feed.target, need)
        if feed.is_behind:
            self._read_soon(feed, delay=0.0 if feed.seq is None else LATE_SECONDS)
            reader = self._readers.get(feed.key)
            if reader is not None:
                await asyncio.wait([reader], timeout=ATTACH_SECONDS)

    def detach(self, feed: Feed, subscriber: Subscriber) -> None:
        """A connection has gone; harmless the second time."""
        feed.unsubscribe(subscriber)
        self._note_use(feed)

    def _open(self, key: FeedKey) -> Feed:
        feed = self.feeds.get(key)
        if feed is None:
            feed = self.feeds[key] = Feed(key)
        self._idle_since.pop(key, None)
        return feed

    def _note_use(self, feed: Feed) -> None:
        if not feed.is_used:
            self._idle_since[feed.key] = time.monotonic()

    def _close_idle(self) -> None:
        limit = time.monotonic() - IDLE_SECONDS
        for key in [key for key, since in self._idle_since.items() if since < limit]:
            del self._idle_since[key]
            feed = self.feeds.get(key)
            if feed is not None and not feed.is_used and key not in self._readers:
                del self.feeds[key]

    # -- repair -------------------------------------------------------------------------------

    def _read_soon(self, feed: Feed, *, delay: float) -> None:
        """Starts the feed's one reader, where it does not run already."""
        running = self._readers.get(feed.key)
        if running is not None and not running.done():
            return
        reader = asyncio.get_running_loop().create_task(self._read(feed, delay))
        self._readers[feed.key] = reader
        reader.add_done_callback(partial(self._forget_reader, feed.key))

    def _forget_reader(self, key: FeedKey, reader: asyncio.Task[None]) -> None:
        # One that has just ended may have been followed by another one already.
        if self._readers.get(key) is reader:
            del self._readers[key]

    async def _read(self, feed: Feed, delay: float) -> None:
        """Brings a feed up to its target from the log; tries again while somebody needs it."""
        try:
            if delay:
                await asyncio.sleep(delay)
            while feed.is_behind and self.feeds.get(feed.key) is feed:
                try:
                    await self._read_once(feed)
                except Unavailable:
                    if not feed.is_used:
                        return
                    await asyncio.sleep(RETRY_SECONDS)
        except Exception as error:
            self._give_up(feed, error)

    async def _read_once(self, feed: Feed) -> None:
        source = self._sources[feed.key.kind]
        if feed.seq is None:
            loaded = await source.load(feed.key.id)
            if loaded is None:
                feed.is_missing = True
                self._drop(feed, 4004)
                return
            feed.start(*loaded)
        else:
            events = await source.events_after(feed.key.id, feed.seq, READ)
            if events:
                GAPS_REPAIRED.inc(sum([feed.offer(event) for event in events]))
            elif feed.is_behind:
                # The log does not have what was announced: it was set back, or announced wrongly.
                feed.target = feed.seq
                feed.reorder_buffer.clear()
        DELIVERIES.inc(feed.settle())
        self._settle_soon(feed, time.time())

    def _give_up(self, feed: Feed, error: Exception) -> None:
        """Something of this feed failed: its clients come back to a new one, the others go on."""
        log.error("feed_failed", feed=feed.key.id, exc_info=error)
        self._drop(feed, 4201)

    def _drop(self, feed: Feed, code: int) -> None:
        """Closes a feed that cannot be continued, and its connections with it."""
        if self.feeds.get(feed.key) is feed:
            del self.feeds[feed.key]
        self._idle_since.pop(feed.key, None)
        feed.waiting.clear()
        for subscriber in list(feed.subscribers):
            subscriber.close(code)

    def poll_now(self) -> None:
        """What no message announced is looked for at once (Redis came back, or went)."""
        self._poll_now.set()

    async def run(self) -> None:
        """Polls the log's ends of the open feeds, until cancelled. Survives every error."""
        while True:
            pace = DEGRADED_POLL_SECONDS if self._is_degraded() else POLL_SECONDS
            try:
                async with asyncio.timeout(pace):
                    await self._poll_now.wait()
            except TimeoutError:
                pass
            self._poll_now.clear()
            try:
                self._close_idle()
                await self.poll()
            except Unavailable:
                pass  # Postgres is away: the node's lease says so, in one place
            except Exception as error:
                log.error("poll_failed", exc_info=error)

    async def poll(self) -> None:
        """Asks the log once for what open feeds have missed."""
        for kind, source in self._sources.items():
            known = [
                (feed.key.id, feed.seq)
                for feed in self.feeds.values()
                if feed.key.kind == kind and feed.seq is not None
            ]
            for start in range(0, len(known), POLL_CHUNK):
                chunk = known[start : start + POLL_CHUNK]
                before = dict(chunk)
                for feed_id, last_seq in await source.heads(chunk):
                    self._take_head(FeedKey(kind, feed_id), last_seq, before[feed_id])

    def _take_head(self, key: FeedKey, last_seq: int, known: int) -> None:
        feed = self.feeds.get(key)
        if feed is None or feed.seq is None:
            return
        if last_seq < known:
            log.warning("log_was_set_back", feed=key.id, seq=known, last_seq=last_seq)
            self._drop(feed, 4201)
        elif last_seq > feed.seq:
            feed.target = max(feed.target, last_seq)
            self._read_soon(feed, delay=0.0)

    async def close(self) -> None:
        """Ends the readers."""
        readers = list(self._readers.values())
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

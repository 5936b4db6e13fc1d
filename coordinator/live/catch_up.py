"""Bringing feeds up to the log: their readers, the poll, the proof after a change of history.

A feed that is behind its target has one reader, which loads its state or reads the events that it
lacks, and tries again while somebody needs it. The poll compares the last event of every open feed
with the log's end: every 3 s, every second while Redis is away. It also finds the feeds from which
somebody was erased: what is held of them is read anew.

Where the database has become another history (a standby that was promoted, a restored backup), each
feed is frozen until the log is found to have the last event that its clients were told: by seq,
epoch and time, since the seq alone may name another event by now. A feed whose clients were told
what the log does not have is closed with 4201, and they come back to a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import structlog

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import Unavailable
from coordinator.domain.events import Event, FeedKey
from coordinator.live.feed import Feed, FeedSource
from coordinator.live.loop import waited
from coordinator.live.open_feeds import OpenFeeds
from coordinator.metrics import GAPS_REPAIRED
from coordinator.store.logs import Moved

log = structlog.get_logger()

POLL_SECONDS = 3.0
DEGRADED_POLL_SECONDS = 1.0
POLL_CHUNK = 1000
PROVE_CHUNK = 200
LATE_SECONDS = 0.03
"""How long the reader waits for an event that is mostly on its way already."""
RETRY_SECONDS = 0.3
READ = 500
REACH_SECONDS = 8.0
"""How long a connection that attaches waits for its feed."""


class CatchUp:
    """Reads the log for the open feeds of a node.

    Args:
        epoch: which history the database is in, as far as it is known.
        is_degraded: True while Redis is away: the poll then runs faster.
        listen: hears a feed's channel from when it returns; None where there is no bus.
        on_read: called when a feed's reader has brought new events or a new state.
    """

    def __init__(
        self,
        sources: Mapping[str, FeedSource],
        feeds: OpenFeeds,
        *,
        epoch: Callable[[], str],
        is_degraded: Callable[[], bool],
        listen: Callable[[FeedKey], Awaitable[None]] | None,
        on_read: Callable[[Feed], None],
    ) -> None:
        self._sources = sources
        self._feeds = feeds
        self._epoch = epoch
        self._is_degraded = is_degraded
        self._listen = listen
        self._on_read = on_read
        self._readers: dict[FeedKey, asyncio.Task[None]] = {}
        self._proving: asyncio.Task[None] | None = None
        self._poll_now = asyncio.Event()

    # -- readers ------------------------------------------------------------------------------

    def soon(self, feed: Feed, *, delay: float = LATE_SECONDS) -> None:
        """Starts the feed's one reader after `delay` seconds, where it does not run already."""
        running = self._readers.get(feed.key)
        if running is not None and not running.done():
            return
        reader = asyncio.get_running_loop().create_task(self._read(feed, delay))
        self._readers[feed.key] = reader
        reader.add_done_callback(partial(self._forget_reader, feed.key))

    async def reach(self, feed: Feed, seq: int) -> None:
        """Waits until the feed is at `seq`, or its reader has given up."""
        if feed.is_frozen and self._proving is not None:
            await asyncio.wait([self._proving], timeout=REACH_SECONDS)
        feed.target = max(feed.target, seq)
        if feed.is_behind:
            self.soon(feed, delay=0.0 if feed.seq is None else LATE_SECONDS)
            reader = self._readers.get(feed.key)
            if reader is not None:
                await asyncio.wait([reader], timeout=REACH_SECONDS)

    def _forget_reader(self, key: FeedKey, reader: asyncio.Task[None]) -> None:
        # Another reader may have followed this one already.
        if self._readers.get(key) is reader:
            del self._readers[key]

    async def _read(self, feed: Feed, delay: float) -> None:
        """Brings a feed up to its target from the log; tries again while somebody needs it."""
        try:
            if delay:
                await asyncio.sleep(delay)
            while feed.is_behind and not feed.is_frozen and feed in self._feeds:
                try:
                    has_news = await self._read_once(feed)
                except Unavailable:
                    has_news = False
                    if not feed.is_used:
                        return
                if not has_news:
                    await asyncio.sleep(RETRY_SECONDS)
        except Exception as error:
            self._feeds.give_up(feed, error)

    async def _read_once(self, feed: Feed) -> bool:
        """One look into the database; False where it has brought nothing yet."""
        if feed.head is None and self._listen is not None:
            await self._listen(feed.key)  # before the read: no event falls between the two
        source, epoch = self._sources[feed.key.kind], self._epoch()
        if feed.head is None or (feed.is_stale and feed.head.seq >= feed.target):
            loaded = await source.load(feed.key.id)
            if epoch != self._epoch():
                return False
            if loaded is None:
                feed.is_missing = True
                self._feeds.drop(feed, CloseCode.NOT_FOUND)
                return True
            head, state = loaded
            if feed.head is None:
                feed.start(head, state, epoch=epoch)
            elif not feed.renew(head.seq, state):
                return feed.head.seq < feed.target
        else:
            seq = feed.head.seq
            events = await source.events_after(feed.key.id, seq, READ)
            if epoch != self._epoch():
                return False
            _take_events(feed, events, seq)
        self._on_read(feed)
        return True

    async def close(self) -> None:
        """Ends the readers."""
        readers = list(self._readers.values())
        if self._proving is not None:
            readers.append(self._proving)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    # -- another history ----------------------------------------------------------------------

    def prove_soon(self) -> None:
        """The database has become another history: looks for each feed's last event in it."""
        for feed in self._feeds:
            feed.freeze()
        if self._proving is None or self._proving.done():
            self._proving = asyncio.get_running_loop().create_task(self._prove())

    async def _prove(self) -> None:
        """Thaws or closes what is frozen; tries again until nothing is."""
        while frozen := [feed for feed in self._feeds if feed.is_frozen]:
            epoch = self._epoch()
            try:
                for kind, source in self._sources.items():
                    feeds = [feed for feed in frozen if feed.key.kind == kind]
                    for start in range(0, len(feeds), PROVE_CHUNK):
                        await self._prove_chunk(source, feeds[start : start + PROVE_CHUNK], epoch)
            except Unavailable:
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:
                log.error("proof_failed", exc_info=error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _prove_chunk(self, source: FeedSource, feeds: list[Feed], epoch: str) -> None:
        known = [(feed.key.id, feed.head) for feed in feeds if feed.head is not None]
        vanished = await source.vanished(known)
        if epoch != self._epoch():
            return  # the history has changed again: `_prove` begins anew
        for feed in feeds:
            if feed not in self._feeds:
                continue
            if feed.key.id in vanished:
                self._close_contradicted(feed)
                continue
            feed.thaw(epoch)
            self._on_read(feed)
            if feed.is_behind:
                self.soon(feed, delay=0.0)

    def _close_contradicted(self, feed: Feed) -> None:
        log.warning("log_was_set_back", feed=feed.key.id, seq=feed.seq)
        self._feeds.drop(feed, CloseCode.CANNOT_CONTINUE)

    # -- the poll -----------------------------------------------------------------------------

    def poll_now(self) -> None:
        """What no message announced is looked for at once (Redis came back, or went)."""
        self._poll_now.set()

    async def run(self) -> None:
        """Polls the log's ends of the open feeds, until cancelled. Survives every error."""
        while True:
            pace = DEGRADED_POLL_SECONDS if self._is_degraded() else POLL_SECONDS
            await waited(self._poll_now, at_most=pace)
            try:
                self._feeds.close_idle(self._readers.__contains__)
                await self.poll()
            except Unavailable:
                pass  # Postgres is away: the node's lease says so, in one place
            except Exception as error:
                log.error("poll_failed", exc_info=error)

    async def poll(self) -> None:
        """Asks the log once for what open feeds have missed."""
        for kind, source in self._sources.items():
            known = [
                (feed.key.id, feed.head, feed.state.erasures)
                for feed in self._feeds
                if feed.key.kind == kind
                and feed.head is not None
                and feed.state is not None
                and not feed.is_frozen
            ]
            for start in range(0, len(known), POLL_CHUNK):
                chunk, epoch = known[start : start + POLL_CHUNK], self._epoch()
                before = {feed_id: head for feed_id, head, _ in chunk}
                moved = await source.moved(list(before.items()), [each[2] for each in chunk])
                if epoch != self._epoch():
                    return
                for each in moved:
                    self._take_moved(FeedKey(kind, each.feed_id), each, before[each.feed_id].seq)

    def _take_moved(self, key: FeedKey, moved: Moved, told: int) -> None:
        feed = self._feeds.get(key)
        if feed is None or feed.seq is None or feed.is_frozen:
            return
        if not moved.stands or moved.last_seq is None or moved.last_seq < told:
            self._close_contradicted(feed)
            return
        if moved.last_seq > feed.seq:
            feed.target = max(feed.target, moved.last_seq)
        if feed.state is not None and feed.state.erasures != moved.erasures:
            log.info("somebody_was_erased", feed=feed.key.id)
            feed.doubt_state()
        if feed.is_behind:
            self.soon(feed, delay=0.0)


def _take_events(feed: Feed, events: Sequence[Event], seq: int) -> None:
    """What the log has after `seq`."""
    if events:
        GAPS_REPAIRED.inc(sum([feed.offer(event) for event in events]))
    elif feed.seq == seq:
        # The log does not have what was announced: it was set back, or announced wrongly.
        feed.target = seq
        feed.reorder_buffer.clear()

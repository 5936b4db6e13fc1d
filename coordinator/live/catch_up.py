"""Bringing feeds up to the log: their readers, and the poll for what no message announced.

A feed that is behind its target has one reader, which loads its state or reads the events that it
lacks, and tries again while somebody needs it. The poll compares the last seq of every open feed
with the log's: every 3 s, every second while Redis is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import Unavailable
from coordinator.domain.events import FeedKey
from coordinator.live.feed import Feed, FeedSource
from coordinator.live.open_feeds import OpenFeeds
from coordinator.metrics import GAPS_REPAIRED

log = structlog.get_logger()

POLL_SECONDS = 3.0
DEGRADED_POLL_SECONDS = 1.0
POLL_CHUNK = 1000
LATE_SECONDS = 0.03
"""How long the reader waits for an event that is mostly on its way already."""
RETRY_SECONDS = 0.3
READ = 500
REACH_SECONDS = 8.0
"""How long a connection that attaches waits for its feed."""


class CatchUp:
    """Reads the log for the open feeds of a node.

    Args:
        is_degraded: True while Redis is away: the poll then runs faster.
        on_read: a feed has been brought on by what its reader found.
    """

    def __init__(
        self,
        sources: Mapping[str, FeedSource],
        feeds: OpenFeeds,
        *,
        is_degraded: Callable[[], bool],
        on_read: Callable[[Feed], None],
    ) -> None:
        self._sources = sources
        self._feeds = feeds
        self._is_degraded = is_degraded
        self._on_read = on_read
        self._readers: dict[FeedKey, asyncio.Task[None]] = {}
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
        feed.target = max(feed.target, seq)
        if feed.is_behind:
            self.soon(feed, delay=0.0 if feed.seq is None else LATE_SECONDS)
            reader = self._readers.get(feed.key)
            if reader is not None:
                await asyncio.wait([reader], timeout=REACH_SECONDS)

    def _forget_reader(self, key: FeedKey, reader: asyncio.Task[None]) -> None:
        # One that has just ended may have been followed by another one already.
        if self._readers.get(key) is reader:
            del self._readers[key]

    async def _read(self, feed: Feed, delay: float) -> None:
        """Brings a feed up to its target from the log; tries again while somebody needs it."""
        try:
            if delay:
                await asyncio.sleep(delay)
            while feed.is_behind and feed in self._feeds:
                try:
                    await self._read_once(feed)
                except Unavailable:
                    if not feed.is_used:
                        return
                    await asyncio.sleep(RETRY_SECONDS)
        except Exception as error:
            self._feeds.give_up(feed, error)

    async def _read_once(self, feed: Feed) -> None:
        source = self._sources[feed.key.kind]
        if feed.seq is None:
            loaded = await source.load(feed.key.id)
            if loaded is None:
                feed.is_missing = True
                self._feeds.drop(feed, CloseCode.NOT_FOUND)
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
        self._on_read(feed)

    async def close(self) -> None:
        """Ends the readers."""
        readers = list(self._readers.values())
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    # -- the poll -----------------------------------------------------------------------------

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
                (feed.key.id, feed.seq)
                for feed in self._feeds
                if feed.key.kind == kind and feed.seq is not None
            ]
            for start in range(0, len(known), POLL_CHUNK):
                chunk = known[start : start + POLL_CHUNK]
                before = dict(chunk)
                for feed_id, last_seq in await source.heads(chunk):
                    self._take_head(FeedKey(kind, feed_id), last_seq, before[feed_id])

    def _take_head(self, key: FeedKey, last_seq: int, known: int) -> None:
        feed = self._feeds.get(key)
        if feed is None or feed.seq is None:
            return
        if last_seq < known:
            log.warning("log_was_set_back", feed=key.id, seq=known, last_seq=last_seq)
            self._feeds.drop(feed, CloseCode.CANNOT_CONTINUE)
        elif last_seq > feed.seq:
            feed.target = max(feed.target, last_seq)
            self.soon(feed, delay=0.0)

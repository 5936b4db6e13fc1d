"""Finding what an endpoint lacks, and reading it: hints and scans in, events of the logs out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from coordinator.domain.errors import Unavailable
from coordinator.domain.events import INTERVIEW, ROOM, FeedKey
from coordinator.domain.webhook import wanted_kinds
from coordinator.store.webhook_feeds import Behind, WebhookFeeds
from coordinator.store.webhooks import Endpoint
from coordinator.webhooks.backlog import IN_FLIGHT, Backlog

RETRY_SECONDS = 0.3
READ_FEEDS = 100
READ_EVENTS = 20
READY_ENOUGH = 2 * IN_FLIGHT
"""So many logs ready to be sent from, and nothing more is read."""
NAMED_AT_ONCE = 500
MOST_NAMED = 10_000
STEP_SECONDS = 0.15
QUICK_SCAN_SECONDS = 2.0
FULL_STEP_SECONDS = 0.5
FULL_SCAN_SECONDS = 5.0
MUCH = 100
"""A step of a scan that finds so many logs is followed by the next one at once."""


class Finder:
    """Fills a backlog.

    Args:
        now: Postgres's clock, as far as this process can tell.
        on_filled: called when something may be ready to be sent; must not block.
        on_admitted: called when the backlog has logs that it did not have.
    """

    def __init__(
        self, feeds: WebhookFeeds, endpoint: Endpoint, backlog: Backlog, *,
        now: Callable[[], datetime], on_filled: Callable[[], None],
        on_admitted: Callable[[], None],
    ) -> None:  # fmt: skip
        self._feeds = feeds
        self._endpoint = endpoint
        self._backlog = backlog
        self._now = now
        self._on_filled = on_filled
        self._on_admitted = on_admitted
        self._kinds = wanted_kinds(endpoint.events, tenant=endpoint.enterprise_id)
        self._named: dict[FeedKey, int] = {}
        self._has_work = asyncio.Event()
        self._has_place = asyncio.Event()

    def hear(self, key: FeedKey, seq: int) -> None:
        """Somebody says that a log has an event `seq`. Never blocks."""
        if key.kind not in self._kinds:
            return
        is_known = self._backlog.hear(key, seq, self._now())
        if not is_known and len(self._named) < MOST_NAMED:  # else the scans find it
            self._named[key] = seq
        self._has_work.set()

    def go_on(self) -> None:
        """Something was sent: there may be place for more."""
        if self._backlog.has_unread and self._backlog.ready < READY_ENOUGH:
            self._has_work.set()
        if self._backlog.has_room:
            self._has_place.set()

    async def read(self) -> None:
        """Looks up what hints have named, and reads logs, until cancelled."""
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            try:
                while await self._look_up_named() | await self._read_some():
                    pass
            except Unavailable:
                self._has_work.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def _look_up_named(self) -> bool:
        keys = list(self._named)[:NAMED_AT_ONCE]
        if not keys:
            return False
        before = {key: self._named[key] for key in keys}
        found = await self._feeds.named(self._endpoint, keys)
        for key in keys:
            if self._named[key] == before[key]:  # else it was named again meanwhile
                del self._named[key]
        self._admit(found)
        return True

    def _admit(self, found: Sequence[Behind]) -> int:
        news = self._backlog.admit(found, self._now())
        if news:
            self._has_work.set()
            self._on_admitted()
        return news

    async def _read_some(self) -> bool:
        if self._backlog.ready >= READY_ENOUGH:
            return False
        feeds = self._backlog.to_read(READ_FEEDS)
        if not feeds:
            return False
        try:
            found = await self._feeds.events_after(
                self._endpoint, [(feed.key, feed.read_to) for feed in feeds], READ_EVENTS
            )
        except BaseException:
            self._backlog.unread(feeds)
            raise
        for feed in feeds:
            self._backlog.fill(feed, found[feed.key], limit=READ_EVENTS)
        self._on_filled()
        return True

    async def scan_quickly(self) -> None:
        """Finds what no hint has told (Redis is away, or lost it), and what is due, until
        cancelled.
        """
        while True:
            try:
                self._admit(await self._feeds.due(self._endpoint, NAMED_AT_ONCE))
                self._admit(await self._feeds.scan_lately_ended_rooms(self._endpoint))
                after: Any = None
                while True:
                    scan = await self._feeds.scan_active_rooms(self._endpoint, after)
                    news = self._admit(scan.behind)
                    after = scan.until
                    if after is None:
                        break
                    await self._pause(news, STEP_SECONDS)
            except Unavailable:
                pass  # the lease says so, in one place
            await asyncio.sleep(QUICK_SCAN_SECONDS * random.uniform(0.8, 1.2))

    async def scan_all(self) -> None:
        """Looks at every log, slowly, until cancelled: the last resort, and how a new sender finds
        its work.
        """
        while True:
            for kind in (ROOM, INTERVIEW):
                after: Any = None
                while True:
                    try:
                        scan = await self._feeds.scan_all(self._endpoint, kind, after)
                    except Unavailable:
                        await asyncio.sleep(FULL_STEP_SECONDS)
                        continue
                    news = self._admit(scan.behind)
                    after = scan.until
                    if after is None:
                        break
                    await self._pause(news, FULL_STEP_SECONDS)
            await asyncio.sleep(FULL_SCAN_SECONDS * random.uniform(0.8, 1.2))

    async def _pause(self, news: int, seconds: float) -> None:
        """Between two steps of a scan: none where much is found, for as long as it has a place."""
        if news < MUCH:
            await asyncio.sleep(seconds)
        while not self._backlog.has_room:
            self._has_place.clear()
            await self._has_place.wait()

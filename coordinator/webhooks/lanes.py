"""Lanes: tasks with a connection each, that send one event after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from coordinator.webhooks.backlog import TrackedFeed
from coordinator.webhooks.http import WebhookConnection

IDLE_SECONDS = 30.0


class Lanes:
    """As many lanes as are needed at once; one that has been idle for a while ends.

    Args:
        connection: a new connection, not opened yet.
        next_feed: what is to be sent from next, by a lane that is free; None = nothing now.
        deliver: sends a log's next event; must not raise.
    """

    def __init__(
        self, *, connection: Callable[[], WebhookConnection],
        next_feed: Callable[[], TrackedFeed | None],
        deliver: Callable[[WebhookConnection, TrackedFeed], Awaitable[None]],
    ) -> None:  # fmt: skip
        self.connection = connection
        self.next_feed = next_feed
        self.deliver = deliver
        self._idle: list[Lane] = []
        self._all: set[Lane] = set()

    def give(self, feed: TrackedFeed) -> None:
        """Has a log's next event sent."""
        if self._idle:
            self._idle.pop().give(feed)
        else:
            self._all.add(Lane(self, feed))

    def rest(self, lane: Lane) -> None:
        """Keeps a lane that has nothing to do for the next log."""
        self._idle.append(lane)

    def retire(self, lane: Lane) -> bool:
        """An idle lane may end, unless it has just been given something."""
        if lane not in self._idle:
            return False
        self._idle.remove(lane)
        self._all.discard(lane)
        return True

    async def end(self) -> None:
        """Ends all of them, also those that wait for an answer."""
        tasks = [lane.task for lane in self._all]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Lane:
    """One of them."""

    def __init__(self, lanes: Lanes, feed: TrackedFeed) -> None:
        self._lanes = lanes
        self._connection = lanes.connection()
        self._given: asyncio.Future[TrackedFeed] = asyncio.get_running_loop().create_future()
        self.give(feed)
        self.task = asyncio.create_task(self._run())

    def give(self, feed: TrackedFeed) -> None:
        """What it sends from next; only while it is idle."""
        self._given.set_result(feed)

    async def _run(self) -> None:
        try:
            while (feed := await self._next()) is not None:
                await self._lanes.deliver(self._connection, feed)
        finally:
            self._connection.close()

    async def _next(self) -> TrackedFeed | None:
        """What comes next; None = nothing has for a while, and the lane ends."""
        if not self._given.done():
            feed = self._lanes.next_feed()
            if feed is not None:
                return feed
            self._lanes.rest(self)
            while not self._given.done():
                await asyncio.wait([self._given], timeout=IDLE_SECONDS)
                if not self._given.done() and self._lanes.retire(self):
                    return None
        feed = self._given.result()
        self._given = asyncio.get_running_loop().create_future()
        return feed

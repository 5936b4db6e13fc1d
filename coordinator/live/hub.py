"""The hub of a node: the feeds that are open here, and the one entrance for their events.

It does not know what a feed is about. Events come by three ways: commits of this node, the bus, and
the log. What the bus loses, the log repairs: at once where a later event shows the gap, else at the
next poll.

    open_feeds   which feeds are open
    broadcast    subscribers are told what has changed
    resume       a client gets into the stream
    catch_up     a feed is brought up to the log
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from coordinator.domain.events import Event, FeedKey
from coordinator.live.broadcast import Broadcast
from coordinator.live.catch_up import CatchUp
from coordinator.live.feed import Feed, FeedSource
from coordinator.live.open_feeds import OpenFeeds
from coordinator.live.resume import Resume


class Hub:
    """The feeds open on this node.

    Args:
        sources: where each kind of feed is read.
        epoch: which history the database is in; `change_history` says when it is another.
        is_degraded: True while Redis is away: the poll then runs faster.
        listen: hears the bus for a feed, from when it returns; None where there is no bus.
    """

    def __init__(
        self,
        sources: Iterable[FeedSource],
        *,
        epoch: Callable[[], str],
        is_degraded: Callable[[], bool],
        listen: Callable[[FeedKey], Awaitable[None]] | None = None,
    ) -> None:
        by_kind = {source.kind: source for source in sources}
        self.feeds = OpenFeeds()
        self.broadcast = Broadcast(self.feeds)
        self.catch_up = CatchUp(
            by_kind,
            self.feeds,
            epoch=epoch,
            is_degraded=is_degraded,
            listen=listen,
            on_read=self._tell_what_was_read,
        )
        self.resume = Resume(by_kind, self.feeds, self.catch_up, self.broadcast)

    def offer(self, events: Sequence[Event], committed: float) -> None:
        """Takes events of own commits and of the bus. Never blocks.

        Args:
            committed: the wall clock (`time.time`) of the node that committed them.
        """
        changed: dict[Feed, None] = {}
        for event in events:
            feed = self.feeds.get(event.feed)
            if feed is None:
                continue
            if event.epoch and feed.epoch and event.epoch != feed.epoch:
                self._look_for(event, feed)
                continue
            if feed.offer(event):
                changed[feed] = None
                if feed.is_stale:
                    self.catch_up.soon(feed)
            elif feed.is_behind:
                self.catch_up.soon(feed)
        if changed:
            self.broadcast.at_once(changed, committed)

    def _look_for(self, event: Event, feed: Feed) -> None:
        """An event of another history than the feed's: told only where the log has it."""
        feed.target = max(feed.target, event.seq)
        self.catch_up.soon(feed)

    def change_history(self, epoch: str) -> None:
        """The database has become another history. Never blocks."""
        self.catch_up.prove_soon()

    def _tell_what_was_read(self, feed: Feed) -> None:
        self.broadcast.admit_and_evict(feed)
        self.broadcast.soon(feed, time.time())

    def open_keys(self) -> list[FeedKey]:
        """The feeds that are open."""
        return [feed.key for feed in self.feeds]

    def poll_now(self) -> None:
        """What no message announced is looked for at once: Redis came back, or went."""
        self.catch_up.poll_now()

    async def run(self) -> None:
        """Keeps the feeds up to the log, until cancelled. Survives every error."""
        await self.catch_up.run()

    async def close(self) -> None:
        """Ends what reads for the feeds."""
        await self.catch_up.close()

"""Telling the subscribers of feeds that have changed, a bounded number of writes at a time.

A small feed is told in the turn in which its events were committed, a larger one at the end of that
turn; either way the frames that have gathered are joined, so that each connection gets one write. A
broadcast over many connections takes several turns, and feeds take turns with each other: a large
room delays nobody by more than a fraction of a millisecond.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from coordinator.domain.events import FeedKey
from coordinator.live.feed import Feed
from coordinator.live.open_feeds import OpenFeeds
from coordinator.live.resume import admit_pending
from coordinator.live.subscribers import Subscriber
from coordinator.metrics import DELIVERIES, DELIVERY_SECONDS

FIRST_WRITES = 64
"""How many connections a broadcast writes to in its first turn of the loop."""
WRITES_PER_TURN = 16
"""How many it writes to in each later turn: about a tenth of a millisecond."""
SMALL = 32
"""A feed with so few connections is told at once."""


class Broadcast:
    """The broadcasts of a node, due and under way."""

    def __init__(self, feeds: OpenFeeds) -> None:
        self._feeds = feeds
        self._due: dict[FeedKey, float] = {}
        """Feeds with frames to send and no broadcast yet: the time of the oldest event."""
        self._under_way: dict[FeedKey, tuple[float, int]] = {}
        """Broadcasts that go on: the time of the oldest event, and the deliveries so far."""
        self._is_scheduled = False

    def soon(self, feed: Feed, committed: float) -> None:
        """Tells the feed's subscribers at the end of this turn of the loop.

        Args:
            committed: the wall clock of the oldest event among them.
        """
        self._due.setdefault(feed.key, committed)
        self._schedule()

    def at_once(self, feeds: Iterable[Feed], committed: float) -> None:
        """Tells the subscribers of small feeds in this turn of the loop, the others at its end.

        Args:
            feeds: those that have changed: all events of a batch are joined.
        """
        budget = FIRST_WRITES
        for feed in feeds:
            if budget < 0 or len(feed.subscribers) > SMALL or feed.key in self._under_way:
                self.soon(feed, committed)
                continue
            self._due.pop(feed.key, None)
            try:
                self.admit_and_evict(feed)
                feed.subscribers.begin_broadcast()
                writes, deliveries = feed.subscribers.send(SMALL + 1)
            except Exception as error:
                self._feeds.give_up(feed, error)
                continue
            budget -= writes
            DELIVERIES.inc(deliveries)
            if deliveries:
                DELIVERY_SECONDS.observe(max(0.0, time.time() - committed))

    def flush(self, feed: Feed, subscriber: Subscriber) -> None:
        """Sends a connection what it lacks of its feed; due before each direct write to it."""
        if deliveries := feed.subscribers.flush(subscriber):
            DELIVERIES.inc(deliveries)

    def admit_and_evict(self, feed: Feed) -> None:
        """Admits pending subscribers that the feed is ready for; evicts whom its events end."""
        if feed.needs_review:
            review(feed)
        if feed.subscribers.pending:
            admit_pending(feed)
        if feed.departures:
            DELIVERIES.inc(evict(feed))

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        budget = self._begin(WRITES_PER_TURN)
        self._go_on(budget)
        if self._under_way or self._due:
            self._schedule()

    def _begin(self, budget: int) -> int:
        """Begins the broadcasts that are due; how many writes this turn may make."""
        for key, committed in list(self._due.items()):
            feed = self._feeds.get(key)
            is_under_way = key in self._under_way
            if feed is None or not is_under_way:
                del self._due[key]
            if feed is None:
                continue
            try:
                self.admit_and_evict(feed)
            except Exception as error:
                self._feeds.give_up(feed, error)
                continue
            if not is_under_way:  # else it stays due until that broadcast is over
                feed.subscribers.begin_broadcast()
                self._under_way[key] = committed, 0
                budget = FIRST_WRITES
        return budget

    def _go_on(self, budget: int) -> None:
        """Goes on with the broadcasts under way until the budget of writes is spent."""
        for key, (committed, before) in list(self._under_way.items()):
            del self._under_way[key]
            feed = self._feeds.get(key)
            if feed is None:
                continue
            try:
                writes, deliveries = feed.subscribers.send(budget)
            except Exception as error:
                self._feeds.give_up(feed, error)
                continue
            DELIVERIES.inc(deliveries)
            budget -= writes
            if not budget:
                self._under_way[key] = committed, before + deliveries  # the others first, next time
                return
            if before + deliveries:
                DELIVERY_SECONDS.observe(max(0.0, time.time() - committed))


def review(feed: Feed) -> None:
    """Ends the connections for which a state that was read anew has no place."""
    feed.needs_review = False
    assert feed.state is not None
    for subscriber in feed.subscribers.of_user(None):
        if not feed.state.admits(subscriber.user_id):
            subscriber.on_not_admitted()


def evict(feed: Feed) -> int:
    """Closes the connections that the feed's events end; the events sent to them before, in sum.

    A connection that was admitted after the event stays: it came back. Who still waits for later
    events ends, too: nobody would ask about this one again.
    """
    departures, feed.departures = feed.departures, []
    deliveries = 0
    for seq, departure in departures:
        for subscriber in feed.subscribers.of_user(departure.user_id):
            if subscriber.connect_seq < seq:
                deliveries += feed.subscribers.flush(subscriber)
                subscriber.close(departure.code)
        for subscriber in feed.subscribers.pending_of(departure.user_id):
            if subscriber.connect_seq < seq:
                feed.subscribers.remove(subscriber)
                subscriber.close(departure.code)
    return deliveries

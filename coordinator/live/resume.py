"""How a client gets into a feed's stream: from its `since` to its first event.

    attach   a connection opens: it waits until the feed has reached what it must be told of
    sync     a connection that listens already asks again
    admit    with no await in between: greet it (by a snapshot, or by the events that it missed),
             and subscribe it

A client may resume after `since` where it is of the feed's epoch and at most `HISTORY` events
follow; they come from the feed's history, else from the log. "Past the end" means past the log's
end, not past this feed's: a client may come from a node that was faster.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import NotFound, Unavailable
from coordinator.domain.events import Event, FeedKey
from coordinator.domain.roster import NotUnderstood, Roster
from coordinator.live.catch_up import CatchUp
from coordinator.live.feed import Feed, FeedSource
from coordinator.live.frames import EventFrame
from coordinator.live.history import HISTORY
from coordinator.live.open_feeds import OpenFeeds
from coordinator.live.subscribers import PendingSubscriber, Subscriber, joined

if TYPE_CHECKING:
    from coordinator.live.broadcast import Broadcast


class Resume:
    """Attaches connections to the feeds of a node."""

    def __init__(
        self,
        sources: Mapping[str, FeedSource],
        feeds: OpenFeeds,
        catch_up: CatchUp,
        broadcast: Broadcast,
    ) -> None:
        self._sources = sources
        self._feeds = feeds
        self._catch_up = catch_up
        self._broadcast = broadcast

    async def attach(
        self,
        key: FeedKey,
        subscriber: Subscriber,
        *,
        since: int | None,
        epoch: str | None,
        connect_seq: int | None,
    ) -> Feed:
        """Lets a connection in: it is greeted, and sent every later event once, in order.

        Args:
            since: resume after this seq.
            epoch: the history that it belongs to; None = that of the log's event `since`.
            connect_seq: the log's last seq that its own transaction saw; None = it is asked for.

        Raises:
            NotFound: no such feed.
            Unavailable: the log could not be read in time.
        """
        feed = self._feeds.open(key)
        feed.holds += 1
        try:
            if connect_seq is None:
                connect_seq = await self._sources[key.kind].head(key.id)
                if connect_seq is None:
                    raise NotFound
                subscriber.connect_seq = connect_seq
            if since is not None and since > connect_seq:
                since = None  # past the log's end: the client has seen another log
            entry = PendingSubscriber(
                subscriber, since=since, epoch=epoch, need=connect_seq, greets=True
            )
            await self._recall(feed, entry)
            await self._admit(feed, entry)
        except BaseException:
            feed.subscribers.remove(subscriber)
            raise
        finally:
            feed.holds -= 1
            self._feeds.note_use(feed)
        return feed

    async def sync(
        self, feed: Feed, subscriber: Subscriber, *, since: int | None, epoch: str | None
    ) -> None:
        """Sends a listening connection the events after `since` again, or a snapshot.

        Raises:
            Unavailable: the log could not be read in time.
        """
        need = feed.seq or 0
        if since is not None and since > need:
            need = await self._sources[feed.key.kind].head(feed.key.id) or 0
        known = since if since is None or since <= need else None
        entry = PendingSubscriber(subscriber, since=known, epoch=epoch, need=need, greets=False)
        await self._recall(feed, entry)
        self._broadcast.flush(feed, subscriber)
        if subscriber not in feed.subscribers:
            return  # the connection ended meanwhile
        feed.subscribers.remove(subscriber)
        try:
            await self._admit(feed, entry)
        except (NotFound, Unavailable):
            # The connection is no subscriber any more: the close tells its client so.
            subscriber.close(CloseCode.CANNOT_CONTINUE)

    def detach(self, feed: Feed, subscriber: Subscriber) -> None:
        """A connection has gone; harmless the second time."""
        feed.subscribers.remove(subscriber)
        self._feeds.note_use(feed)

    async def _recall(self, feed: Feed, entry: PendingSubscriber) -> None:
        """Reads what a resuming client missed into the feed's history, where it is not there.

        One read serves all who return to this feed: after a node's death they come by thousands.
        """
        since = entry.since
        if since is None or not 0 <= entry.need - since <= HISTORY:
            return
        # The feed's state is read first: the log's answer then has every event up to that state,
        # and the history every later one. In the other order, events between the two reads would
        # be in neither.
        await self._catch_up.reach(feed, entry.need)
        counts = entry.subscriber.counts_only
        async with feed.recalling:
            if feed.seq is None or feed.seq - since > HISTORY:
                return
            if not feed.history.remembers(since, counts=counts):
                feed.history.recall(await self._read_before_history(feed, counts=counts))
        if entry.epoch is None:
            entry.epoch = await self._epoch_of(feed, since)

    async def _epoch_of(self, feed: Feed, since: int) -> str | None:
        """The epoch of the log's event `since`; for 0, before the first event, the feed's."""
        if since == 0:
            return feed.epoch
        known = feed.epoch_of(since)
        if known is not None:
            return known
        return await self._sources[feed.key.kind].epoch_at(feed.key.id, since)

    async def _read_before_history(self, feed: Feed, *, counts: bool) -> list[EventFrame]:
        if counts:
            feed.history.forget_uncounted()
        source, feed_id = self._sources[feed.key.kind], feed.key.id
        assert feed.seq is not None
        start = max(0, feed.seq - HISTORY)
        events = await source.events_after(feed_id, start, feed.history.first - 1 - start)
        if not counts:
            return [EventFrame(event) for event in events]
        return counted_frames(events, await source.connections_at(feed_id, start))

    async def _admit(self, feed: Feed, entry: PendingSubscriber) -> None:
        """Waits until the feed has what the connection needs; it is then greeted.

        Raises:
            NotFound: there is no such feed.
            Unavailable: it could not be read in time.
        """
        feed.subscribers.pending.append(entry)
        await self._catch_up.reach(feed, entry.need)
        self._broadcast.admit_and_evict(feed)
        if feed.is_missing:
            raise NotFound
        if feed not in self._feeds or entry in feed.subscribers.pending:
            raise Unavailable


def admit_pending(feed: Feed) -> None:
    """Greets and subscribes whoever waits for no more than the feed has by now."""
    if feed.seq is None or feed.is_stale or feed.is_frozen:
        return
    pending = feed.subscribers.pending
    ready = [entry for entry in pending if entry.need <= feed.seq]
    if not ready:
        return
    feed.subscribers.pending = [entry for entry in pending if entry.need > feed.seq]
    for entry in ready:
        _greet(feed, entry, feed.seq)
        feed.subscribers.add(entry.subscriber)


def _greet(feed: Feed, entry: PendingSubscriber, seq: int) -> None:
    subscriber, since = entry.subscriber, entry.since
    counts_only = subscriber.counts_only
    is_known = since is not None and entry.epoch == feed.epoch
    if since is None or not is_known or not feed.history.remembers(since, counts=counts_only):
        assert feed.state is not None
        subscriber.welcome(feed, since=seq, counts=feed.state.counts(), resumed=False)
        return
    if entry.greets:
        subscriber.welcome(feed, since=since, counts=feed.counts_at(since), resumed=True)
    if missed := feed.history.after(since):
        subscriber.write(joined(missed, counts_only=counts_only))


def counted_frames(events: Sequence[Event], connections: Mapping[str, str]) -> list[EventFrame]:
    """Events that were read from the log, with the counts before and after each.

    Args:
        connections: who was there before the first of them, and how.
    """
    there = {user_id: {"connection": state} for user_id, state in connections.items()}
    roster = Roster({}, there)
    frames = []
    for event in events:
        before = roster.counts()
        with contextlib.suppress(NotUnderstood):
            roster.apply(event)
        frames.append(EventFrame(event, counts_before=before, counts=roster.counts()))
    return frames

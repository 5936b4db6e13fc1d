"""How a client gets into a feed's stream: from its `since` to its first event.

    attach   a connection opens: it waits until the feed has reached what it must be told of
    sync     a connection that listens already asks again
    admit    with no await in between: greet it (by a snapshot, or by the events that it missed),
             and subscribe it

A client may resume after `since` where at most `HISTORY` events follow; they come from the feed's
history, else from the log. "Past the end" means past the log's end, not past this feed's: a client
may come from a node that was faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import NotFound, Unavailable
from coordinator.domain.events import FeedKey
from coordinator.live.catch_up import CatchUp
from coordinator.live.feed import HISTORY, Feed, FeedSource
from coordinator.live.frames import event_frame
from coordinator.live.open_feeds import OpenFeeds
from coordinator.live.subscribers import PendingSubscriber, Subscriber

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
        self, key: FeedKey, subscriber: Subscriber, *, since: int | None, connect_seq: int | None
    ) -> Feed:
        """Lets a connection in: it is greeted, and sent every later event once, in order.

        Args:
            since: resume after this seq.
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
            entry = PendingSubscriber(subscriber, since=since, need=connect_seq, greets=True)
            await self._read_missed(feed, entry)
            await self._admit(feed, entry)
        except BaseException:
            feed.subscribers.remove(subscriber)
            raise
        finally:
            feed.holds -= 1
            self._feeds.note_use(feed)
        return feed

    async def sync(self, feed: Feed, subscriber: Subscriber, since: int) -> None:
        """Sends a listening connection the events after `since` again, or a snapshot.

        Raises:
            Unavailable: the log could not be read in time.
        """
        need = feed.seq or 0
        if since > need:
            need = await self._sources[feed.key.kind].head(feed.key.id) or 0
        known = since if since <= need else None
        entry = PendingSubscriber(subscriber, since=known, need=need, greets=False)
        await self._read_missed(feed, entry)
        self._broadcast.flush(feed, subscriber)
        if subscriber not in feed.subscribers:
            return  # it went meanwhile
        feed.subscribers.remove(subscriber)
        try:
            await self._admit(feed, entry)
        except (NotFound, Unavailable):
            # It listens no more, and must not believe that it does.
            subscriber.close(CloseCode.CANNOT_CONTINUE)

    def detach(self, feed: Feed, subscriber: Subscriber) -> None:
        """A connection has gone; harmless the second time."""
        feed.subscribers.remove(subscriber)
        self._feeds.note_use(feed)

    async def _read_missed(self, feed: Feed, entry: PendingSubscriber) -> None:
        """Reads what a resuming client missed and this feed's history does not hold."""
        since = entry.since
        if since is None or not 0 <= entry.need - since <= HISTORY:
            return
        # The state first: what it was read after is then all in the log's answer, and what comes
        # later in the history. The other way round, events between the two would be in neither.
        await self._catch_up.reach(feed, entry.need)
        if feed.remembers(since):
            return
        source = self._sources[feed.key.kind]
        events = await source.events_after(feed.key.id, since, HISTORY)
        entry.missed = {event.seq: event_frame(event) for event in events}

    async def _admit(self, feed: Feed, entry: PendingSubscriber) -> None:
        """Waits until the feed has what the connection needs; it is then greeted.

        Raises:
            NotFound: there is no such feed.
            Unavailable: it could not be read in time.
        """
        feed.subscribers.pending.append(entry)
        await self._catch_up.reach(feed, entry.need)
        self._broadcast.settle(feed)
        if feed.is_missing:
            raise NotFound
        if feed not in self._feeds or entry in feed.subscribers.pending:
            raise Unavailable


def admit_pending(feed: Feed) -> None:
    """Greets and subscribes whoever waits for no more than the feed has by now."""
    if feed.seq is None:
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
    missed = _missed_frames(feed, entry, seq)
    if missed is None:
        entry.subscriber.welcome(feed, resumed=False, since=seq)
        return
    if entry.greets:
        entry.subscriber.welcome(feed, resumed=True, since=entry.since or 0)
    if missed:
        entry.subscriber.write(b"".join(missed))


def _missed_frames(feed: Feed, entry: PendingSubscriber, seq: int) -> list[bytes] | None:
    """The frames that it missed; None where a snapshot is due."""
    since = entry.since
    if since is None or since > seq or seq - since > HISTORY:
        return None
    if since == seq:
        return []
    known = entry.missed | dict(feed.history)
    try:
        return [known[number] for number in range(since + 1, seq + 1)]
    except KeyError:
        return None

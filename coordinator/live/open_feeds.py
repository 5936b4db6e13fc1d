"""The feeds that are open on this node: from the first who attaches to a minute after the last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import structlog

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.events import FeedKey
from coordinator.live.feed import Feed
from coordinator.live.history import Histories

log = structlog.get_logger()

IDLE_SECONDS = 60.0


class OpenFeeds:
    """Open feeds by their key."""

    def __init__(self) -> None:
        self._feeds: dict[FeedKey, Feed] = {}
        self._histories = Histories()
        self._idle_since: dict[FeedKey, float] = {}
        self.get = self._feeds.get
        """The feed of a key, or None."""

    def __len__(self) -> int:
        return len(self._feeds)

    def __iter__(self) -> Iterator[Feed]:
        return iter(self._feeds.values())

    def __contains__(self, feed: Feed) -> bool:
        """True while this very feed is open: not where it was dropped and opened anew."""
        return self._feeds.get(feed.key) is feed

    def open(self, key: FeedKey) -> Feed:
        """The feed, opened where it is not yet."""
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = Feed(key, self._histories.open())
        self._idle_since.pop(key, None)
        return feed

    def note_use(self, feed: Feed) -> None:
        """Somebody has gone: a feed that nobody uses is closed by and by."""
        if not feed.is_used:
            self._idle_since[feed.key] = time.monotonic()

    def close_idle(self, is_needed: Callable[[FeedKey], bool]) -> None:
        """Closes what nobody has used for a minute, unless it `is_needed`."""
        limit = time.monotonic() - IDLE_SECONDS
        for key in [key for key, since in self._idle_since.items() if since < limit]:
            del self._idle_since[key]
            feed = self._feeds.get(key)
            if feed is not None and not feed.is_used and not is_needed(key):
                self._close(feed)

    def _close(self, feed: Feed) -> None:
        del self._feeds[feed.key]
        self._histories.close(feed.history)

    def drop(self, feed: Feed, code: CloseCode) -> None:
        """Closes a feed that cannot be continued, and its connections with it."""
        if feed in self:
            self._close(feed)
        self._idle_since.pop(feed.key, None)
        feed.subscribers.pending.clear()
        for subscriber in feed.subscribers.of_user(None):
            subscriber.close(code)

    def give_up(self, feed: Feed, error: Exception) -> None:
        """Closes a feed whose handling raised: its clients return to a new one."""
        log.error("feed_failed", feed=feed.key.id, exc_info=error)
        self.drop(feed, CloseCode.CANNOT_CONTINUE)

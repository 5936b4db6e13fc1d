"""Which channels of the bus a feed is told on, and which of them a node hears.

    feed room_1  ->  CRC-32  % 262,144  ->  …:feeds:{4711}

All nodes of a deployment spread feeds over the same number of channels (`deployment.channels`, read
when a node starts). While it goes from one number to another, or to this version from the one
before, nodes hold leases that spread otherwise: until the last of them has gone, feeds are told,
and heard, in each of their ways. What is heard twice is dropped by its `seq`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import lru_cache

from coordinator.domain.events import FeedKey

REMEMBERED = 4096
"""Feeds whose channels are remembered: a room that has an event has more."""


class FeedChannels:
    """The channels of feeds, as this node tells and hears them.

    Attributes:
        spreads: over how many channels feeds are spread: this node's number first.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = f"{prefix}:feeds:".encode()
        self.spreads: tuple[int, ...] = (1,)
        self.of = lru_cache(REMEMBERED)(self._of)

    def spread(self, own: int, others: set[int]) -> bool:
        """From now on in these ways; True where one of them is new."""
        before, self.spreads = self.spreads, (own, *sorted(others - {own}))
        if self.spreads != before:
            self.of.cache_clear()
        return not set(self.spreads) <= set(before)

    def _of(self, feed: FeedKey) -> frozenset[bytes]:
        """`of`: the feed's channel in each of the ways."""
        place = zlib.crc32(f"{feed.kind}:{feed.id}".encode())
        return frozenset([self._named(place % channels) for channels in self.spreads])

    def used(self, feeds: Iterable[FeedKey]) -> set[bytes]:
        """What is heard where these feeds are open. One channel for all is heard always."""
        common = {self._named(0)} if 1 in self.spreads else set()
        return common.union(*map(self._of, feeds))

    def _named(self, number: int) -> bytes:
        return b"%b{%d}" % (self._prefix, number)

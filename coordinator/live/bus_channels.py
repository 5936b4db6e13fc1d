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

from coordinator.domain.events import FeedKey

_ONE_FOR_ALL = (1,)


class FeedChannels:
    """Attributes:
    spreads: over how many channels feeds are spread: this node's number first.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = f"{prefix}:feeds:".encode()
        self._first = frozenset((self._named(0),))
        self.spreads: tuple[int, ...] = (1,)

    def spread(self, own: int, others: set[int]) -> bool:
        """From now on in these ways; True where one of them is new."""
        before, self.spreads = self.spreads, (own, *sorted(others - {own}))
        return not set(self.spreads) <= set(before)

    def of(self, feed: FeedKey) -> frozenset[bytes]:
        """The feed's channel in each of the ways."""
        if self.spreads == _ONE_FOR_ALL:
            return self._first
        place = zlib.crc32(f"{feed.kind}:{feed.id}".encode())
        return frozenset([self._named(place % channels) for channels in self.spreads])

    def used(self, feeds: Iterable[FeedKey]) -> set[bytes]:
        """What is heard where these feeds are open. One channel for all is heard always."""
        common = self._first if 1 in self.spreads else ()
        return set(common).union(*(self.of(feed) for feed in feeds))

    def _named(self, number: int) -> bytes:
        return b"%b{%d}" % (self._prefix, number)

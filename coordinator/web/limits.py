"""Rate limits: so many of one kind per caller in a sliding window, counted together by all nodes.

    login, join, leave, zego, live, view, key, ticket   per client address
    phone, qr, create                                   per user
    open                                                per key

Most are counted in Redis before they are served (`limits`, moving window); join and view, the most
frequent, are counted together without waiting for it (`web/shared_windows.py`). While Redis is away
each node counts for itself, with the same rates: nobody is refused for it, and nobody gets in
unlimited. What is switched off costs a look into a dict.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter

from coordinator.domain.errors import RateLimited
from coordinator.redis import AWAY, REDIS_SECONDS, RedisClient
from coordinator.web.addresses import Network, client_address, counted_as
from coordinator.web.remembered_callers import RememberedCallers
from coordinator.web.shared_windows import QuickEval, SharedWindows, nothing_open

log = structlog.get_logger()

PAUSE_SECONDS = 2.0
"""How long Redis is left alone after it has failed: one request in this time pays for the try."""

LOCAL_CALLERS = 20_000
"""How many callers a node remembers by itself; beyond it those seen longest ago are forgotten."""

AHEAD = frozenset({"join", "view"})
"""Kinds that are counted without waiting for Redis (`web/shared_windows.py`)."""


class Limits:
    """Asked before a request is served. Safe to use from many tasks; never raises for Redis."""

    def __init__(
        self,
        rates: Mapping[str, str],
        redis: RedisClient,
        prefix: str,
        trusted_proxies: Sequence[Network],
        *,
        nodes: Callable[[], int],
        quick_eval: QuickEval = nothing_open,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Does no I/O.

        Args:
            rates: `60/minute` by name; the empty string is no limit.
            redis: an impatient one (`fail_fast_redis`); its owner closes it.
            prefix: sets this deployment's keys on a shared Redis apart.
            nodes: how many nodes hold a lease, this one among them.
            quick_eval: a way to Redis that is open already (`BusLinks.eval`).
            clock: seconds; of the local counting and of the pause.
        """
        self._items = {name: parse(rate) for name, rate in rates.items() if rate}
        self._ahead_rates = {
            name: (item.amount, item.get_expiry())
            for name, item in self._items.items()
            if name in AHEAD
        }
        # Parsing an address costs as much as all of the counting, and callers come again.
        self._address_of = lru_cache(LOCAL_CALLERS)(
            lambda peer, *forwarded: client_address(peer, forwarded, trusted_proxies)
        )
        self._counted_as = lru_cache(LOCAL_CALLERS)(counted_as)
        self._shared = MovingWindowRateLimiter(
            _Storage(redis, f"{prefix}:limits")
        )
        self._local = LocalWindows(clock)
        self._ahead = SharedWindows(redis, f"{prefix}:windows", nodes, clock, quick_eval)
        self._clock = clock
        self._try_again_at: float | None = None  # None while Redis is well

    async def check(self, name: str, who: str) -> None:
        """Counts one request of the kind `name` by `who`: an address, a user or a key's name.

        Raises:
            RateLimited: it is one too many; `retry_after` says when the next one fits.
        """
        item = self._items.get(name)
        if item is None:
            return
        wait = await self._wait(item, name, self._counted_as(who))
        if wait is not None:
            raise _too_many(wait)

    async def check_client(self, name: str, scope: Any) -> None:
        """`check` for the address that an HTTP request or a websocket (`scope`) comes from.

        Raises:
            RateLimited: it is one too many.
        """
        if name in self._items:
            await self.check(name, self.address(scope))

    def admits_client(self, name: str, scope: Any) -> bool:
        """`check_client` of a kind that is counted ahead, without waiting.

        False where that needs Redis: nothing has been counted then.

        Raises:
            RateLimited: it is one too many.
        """
        rate = self._ahead_rates.get(name)
        if rate is None:
            return True
        wait = self._ahead.admit(name, self._counted_as(self.address(scope)), *rate)
        if wait is None or wait is False:
            return wait is None
        raise _too_many(wait)

    def address(self, scope: Any) -> str:
        """The client's address; `X-Forwarded-For` counts from trusted proxies only."""
        peer = scope["client"][0] if scope.get("client") else ""
        forwarded = [v.decode("latin-1") for k, v in scope["headers"] if k == b"x-forwarded-for"]
        return self._address_of(peer, *forwarded)

    async def _wait(self, item: RateLimitItem, name: str, who: str) -> float | None:
        """Counts; None where it fits, else the seconds until one fits again."""
        if name in AHEAD:
            return await self._wait_ahead(name, who, item.amount, item.get_expiry())
        if self._may_try_redis():
            try:
                async with asyncio.timeout(REDIS_SECONDS):
                    wait = await self._shared_wait(item, name, who)
            except AWAY as error:
                self._redis_failed(error)
            else:
                self._try_again_at = None
                return wait
        return self._local.wait((name, who), item.amount, item.get_expiry())

    async def _wait_ahead(
        self, name: str, who: str, limit: int, seconds: float
    ) -> float | None:
        decided = self._ahead.admit(name, who, limit, seconds)
        if decided is not False:
            return decided
        if self._may_try_redis():
            try:
                wait = await self._ahead.ask(name, who, limit, seconds)
            except AWAY as error:
                self._redis_failed(error)
            else:
                self._try_again_at = None
                return wait
        return self._ahead.admit_alone(name, who, limit, seconds)

    async def close(self) -> None:
        """Ends what is told to Redis in the background."""
        await self._ahead.close()

    def _may_try_redis(self) -> bool:
        if self._try_again_at is None:
            return True
        if self._clock() < self._try_again_at:
            return False
        # This request tries Redis; the others are counted locally meanwhile.
        self._try_again_at = self._clock() + PAUSE_SECONDS
        return True

    def _redis_failed(self, error: Exception) -> None:
        if self._try_again_at is None:
            log.warning("limits_counted_locally", error=type(error).__name__)
        self._try_again_at = self._clock() + PAUSE_SECONDS

    async def _shared_wait(self, item: RateLimitItem, name: str, who: str) -> float | None:
        if await self._shared.hit(item, name, who):
            return None
        stats = await self._shared.get_window_stats(item, name, who)
        return stats.reset_time - time.time()


def _too_many(wait: float) -> RateLimited:
    """`wait`: the seconds until one fits again."""
    return RateLimited(retry_after=max(1, math.ceil(wait)))


class _Storage(RedisStorage):
    """The library's counting, on the client that the house has made (which may be a cluster's)."""

    def __init__(self, redis: RedisClient, prefix: str) -> None:
        self._redis = redis
        super().__init__("async+redis://", implementation="redispy", key_prefix=prefix)

    def configure_bridge(self) -> None:
        bridge: Any = self.bridge
        bridge.storage = self._redis
        bridge.connection_getter = lambda _: self._redis


class LocalWindows:
    """Moving windows in this process: exact, and bounded in memory."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._hits: RememberedCallers[deque[float]] = RememberedCallers(LOCAL_CALLERS)

    def wait(self, key: tuple[str, str], amount: int, seconds: float) -> float | None:
        """Counts one; None where it fits, else the seconds until one fits again."""
        now = self._clock()
        hits = self._hits.seen(*key)
        if hits is None:
            hits = deque(maxlen=amount)
            self._hits.remember(*key, hits)
        if len(hits) == amount and (left := hits[0] + seconds - now) > 0:
            return left
        hits.append(now)
        return None

"""Rate limits: so many of one kind per caller in a sliding window, counted together by all nodes.

    join, leave, zego, view, live, login, key, ticket   per client address
    create, phone, qr                                   per user
    open                                                per key

What is frequent is counted on the node and settled with Redis afterwards (`AHEAD`,
`web/shared_windows.py`): at most a tenth more than the limit gets in. What somebody could guess
secrets by, or what costs calls of WeChat, is counted in Redis before it is served, exactly
(`limits`, moving window). While Redis is away each node counts for itself, with the same rates:
nobody is refused for it, and nobody gets in unlimited. What is switched off costs a look into a
dict.
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
from limits import parse
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

AHEAD = frozenset({"join", "leave", "zego", "view", "live", "create", "open"})
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
        items = {name: parse(rate) for name, rate in rates.items() if rate}
        self._exact = {name: item for name, item in items.items() if name not in AHEAD}
        self._ahead_rates = {
            name: (item.amount, item.get_expiry()) for name, item in items.items() if name in AHEAD
        }
        # Parsing an address costs as much as all of the counting, and callers come again.
        self._address_of = lru_cache(LOCAL_CALLERS)(
            lambda peer, *forwarded: client_address(peer, forwarded, trusted_proxies)
        )
        self._counted_as = lru_cache(LOCAL_CALLERS)(counted_as)
        self._shared = MovingWindowRateLimiter(_Storage(redis, f"{prefix}:limits"))
        self._local = LocalWindows(clock)
        self._ahead = SharedWindows(redis, f"{prefix}:windows", nodes, clock, quick_eval)
        self._clock = clock
        self._try_again_at: float | None = None  # None while Redis is well

    async def check(self, name: str, who: str) -> None:
        """Counts one request of the kind `name` by `who`: an address, a user or a key's name.

        Raises:
            RateLimited: it is one too many; `retry_after` says when the next one fits.
        """
        if not self._admits(name, who):
            await self._ask(name, self._counted_as(who))

    async def check_client(self, name: str, scope: Any) -> None:
        """`check` for the address that an HTTP request or a websocket (`scope`) comes from.

        Raises:
            RateLimited: it is one too many.
        """
        if not self.admits_client(name, scope):
            await self._ask(name, self._counted_as(self.address(scope)))

    def admits_client(self, name: str, scope: Any) -> bool:
        """`check_client` as far as nothing is waited for.

        False where Redis is to be asked: nothing has been counted then.

        Raises:
            RateLimited: it is one too many.
        """
        if name in self._ahead_rates:
            return self._admits(name, self.address(scope))
        return name not in self._exact

    def _admits(self, name: str, who: str) -> bool:
        rate = self._ahead_rates.get(name)
        if rate is None:
            return name not in self._exact
        wait = self._ahead.admit(name, self._counted_as(who), *rate)
        if wait is None or wait is False:
            return wait is None
        raise _too_many(wait)

    def address(self, scope: Any) -> str:
        """The client's address; `X-Forwarded-For` counts from trusted proxies only."""
        peer = scope["client"][0] if scope.get("client") else ""
        forwarded = [v.decode("latin-1") for k, v in scope["headers"] if k == b"x-forwarded-for"]
        return self._address_of(peer, *forwarded)

    async def _ask(self, name: str, who: str) -> None:
        """Counts with Redis, or by this node alone where Redis is away.

        Raises:
            RateLimited
        """
        wait = await self._wait(name, who)
        if wait is not None:
            raise _too_many(wait)

    async def _wait(self, name: str, who: str) -> float | None:
        """None where it fits, else the seconds until one fits again."""
        if self._may_try_redis():
            try:
                wait = await self._shared_wait(name, who)
            except AWAY as error:
                self._redis_failed(error)
            else:
                self._try_again_at = None
                return wait
        return self._local_wait(name, who)

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

    async def _shared_wait(self, name: str, who: str) -> float | None:
        if name in self._ahead_rates:
            return await self._ahead.ask(name, who, *self._ahead_rates[name])
        item = self._exact[name]
        async with asyncio.timeout(REDIS_SECONDS):
            if await self._shared.hit(item, name, who):
                return None
            stats = await self._shared.get_window_stats(item, name, who)
        return stats.reset_time - time.time()

    def _local_wait(self, name: str, who: str) -> float | None:
        if name in self._ahead_rates:
            return self._ahead.admit_alone(name, who, *self._ahead_rates[name])
        item = self._exact[name]
        return self._local.wait((name, who), item.amount, item.get_expiry())


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

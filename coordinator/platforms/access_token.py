"""WeChat's access token: one for all nodes, fetched by one of them at a time.

It stands in Redis and, on each node, in memory. It is renewed 5 minutes before its end; while one
node renews it, the others go on with the old one, or wait where there is none. A token that the
platform refuses is replaced: by what another node has put into Redis meanwhile, else by asking for
it anew, and where the platform then hands out the very same one, by force. That may be done twice a
minute and 20 times a day; else the same one is tried again, which the platform insists on and may
have refused by mistake. Without Redis each node keeps a token of its own, which works too: asked in
the normal way, WeChat gives all of them the same one.

Source: developers.weixin.qq.com, getStableAccessToken.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from redis.exceptions import LockError

from coordinator.domain.errors import CoordinatorError, Unavailable
from coordinator.redis import AWAY, RedisClient

log = structlog.get_logger()

RENEW_EARLY = 300
"""Seconds before its end at which a token is renewed. WeChat itself switches at that point and not
earlier: an earlier request gets the old token again. So the jitter below delays, never hastens."""

JITTER = 2.0
FETCH_SECONDS = 4.0
"""How long a `Fetch` may take; each implementation keeps to it."""

LOCK_SECONDS = FETCH_SECONDS + 0.5
"""The lock outlives any fetch, and a node that died with it holds the others up no longer."""

WAIT_SECONDS = 2 * LOCK_SECONDS
POLL_SECONDS = 0.05
PAUSE_SECONDS = 10.0
"""How long a token that is still good is used before the next try, after renewing it has failed."""

FORCE_APART = 30
FORCE_A_DAY = 20
"""WeChat's own limits of `force_refresh`."""


class AccessToken(msgspec.Struct, frozen=True):
    """A token and its times, in Unix seconds; as JSON, what stands in Redis."""

    value: str
    fetched_at: float
    expires_at: float

    def __repr__(self) -> str:
        return f"AccessToken(expires_at={self.expires_at})"

    def is_good(self, now: float) -> bool:
        return now < self.expires_at

    def is_fresh(self, now: float, jitter: float) -> bool:
        """True until 5 minutes before the token's end; a token younger than a second always is, so
        that a short-lived one is not renewed at each use.
        """
        return self.is_good(now) and now < max(
            self.expires_at - RENEW_EARLY + jitter, self.fetched_at + 1
        )


Fetch = Callable[[bool], Awaitable[tuple[str, float]]]
"""Asks the platform for (token, seconds to live), `True` for by force; raises a CoordinatorError.
"""


class AccessTokens:
    """Hands out the token that holds. Safe to use from many tasks, which share one renewal."""

    def __init__(
        self,
        fetch: Fetch,
        redis: RedisClient,
        prefix: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Does no I/O.

        Args:
            prefix: of the keys in Redis; it names the deployment and the application.
            clock: Unix seconds.
        """
        self._fetch = fetch
        self._redis = redis
        self._key = f"{prefix}:access-token"
        self._clock = clock
        self._jitter = random.uniform(0, JITTER)
        self._held: AccessToken | None = None
        self._refused = ""
        self._pause_until = 0.0
        self._forced_at = 0.0
        self._renewal: asyncio.Task[AccessToken] | None = None

    async def close(self) -> None:
        """Ends a renewal that is under way."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    async def current(self) -> str:
        """The token to use.

        Raises:
            CoordinatorError: there is none, and the platform gives none.
        """
        now = self._clock()
        held = self._held
        if held is not None and (held.is_fresh(now, self._jitter) or self._is_paused(held, now)):
            return held.value
        while (renewed := await self._renewed()).value == self._refused:
            pass  # refused while it was being fetched: the next renewal knows of that
        return renewed.value

    async def after_refusal(self, refused: str) -> str:
        """The token to use now that the platform has refused `refused`.

        Raises:
            CoordinatorError: there is no other.
        """
        self._refused = refused
        if self._held is not None and self._held.value == refused:
            self._held = None
        return await self.current()

    def _is_paused(self, held: AccessToken, now: float) -> bool:
        return held.is_good(now) and now < self._pause_until

    async def _renewed(self) -> AccessToken:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())
            self._renewal.add_done_callback(_look_at_its_error)
        # Shielded: one request that gives up must not take the token from the others.
        return await asyncio.shield(self._renewal)

    async def _renew(self) -> AccessToken:
        try:
            return await self._renew_together()
        except AWAY as error:
            log.warning("access_token_without_redis", error=type(error).__name__)
            return await self._fetched()

    async def _renew_together(self) -> AccessToken:
        """One node fetches, the others take what it has put into Redis. Raises what `AWAY` has."""
        lock = self._redis.lock(f"{self._key}:lock", timeout=LOCK_SECONDS, thread_local=False)
        give_up_at = time.monotonic() + WAIT_SECONDS
        while True:
            if (shared := await self._shared()) is not None:
                return shared
            if await lock.acquire(blocking=False):
                break
            if (old := self._old()) is not None:
                return old
            if time.monotonic() > give_up_at:
                raise Unavailable(retry_after=1)
            await asyncio.sleep(POLL_SECONDS)
        try:
            # Whoever held the lock before us may have finished since we looked.
            return await self._shared() or await self._fetched()
        finally:
            with contextlib.suppress(LockError, *AWAY):
                await lock.release()

    async def _shared(self) -> AccessToken | None:
        """What stands in Redis, if it is fresh and not the one that was refused."""
        raw = await self._redis.get(self._key)
        shared = _decoded(raw)
        if shared is None or shared.value == self._refused or not shared.is_good(self._clock()):
            return None
        if self._held is None or self._held.expires_at < shared.expires_at:
            self._held = shared
        return shared if shared.is_fresh(self._clock(), self._jitter) else None

    def _old(self) -> AccessToken | None:
        held = self._held
        return held if held is not None and held.is_good(self._clock()) else None

    async def _fetched(self) -> AccessToken:
        """From the platform, kept in memory and in Redis; the old one where it gives none."""
        try:
            token = await self._asked(force=False)
            if token.value == self._refused and await self._may_force():
                log.warning("access_token_forced")
                token = await self._asked(force=True)
        except CoordinatorError:
            self._pause_until = self._clock() + PAUSE_SECONDS
            if (old := self._old()) is None:
                raise
            return old
        self._held, self._refused = token, ""
        with contextlib.suppress(*AWAY):
            lifetime_ms = max(1, int((token.expires_at - self._clock()) * 1000))
            await self._redis.set(self._key, msgspec.json.encode(token), px=lifetime_ms)
        return token

    async def _asked(self, *, force: bool) -> AccessToken:
        now = self._clock()  # before the answer: counted from its way back, it would end too late
        value, lifetime = await self._fetch(force)
        return AccessToken(value, now, now + lifetime)

    async def _may_force(self) -> bool:
        """False where that has been done too recently, or too often today."""
        now = self._clock()
        if now - self._forced_at < FORCE_APART:
            return False
        self._forced_at = now
        with contextlib.suppress(*AWAY):
            if not await self._redis.set(f"{self._key}:forced", "1", nx=True, ex=FORCE_APART):
                return False
            today = f"{self._key}:forced:{int(now) // 86400}"
            count: Any = await self._redis.incr(today)
            await self._redis.expire(today, 86400)
            return int(count) <= FORCE_A_DAY
        return True


def _decoded(raw: bytes | str | None) -> AccessToken | None:
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=AccessToken)
    except msgspec.MsgspecError:
        return None  # not ours: fetched anew and written over


def _look_at_its_error(task: asyncio.Task[AccessToken]) -> None:
    """Marks the task's error as seen: its callers have raised it, and where none is left, asyncio
    would log it as never retrieved.
    """
    if not task.cancelled():
        task.exception()

"""Sliding windows that all nodes count together, without asking Redis before each request.

A node admits a caller by itself as long as what it knows of all nodes' requests leaves room, and as
long as it has told Redis of all but a few of its own (its share). Every 200 ms it tells Redis of
its new ones and hears of the others'; at its share it asks first, and waits.

    L  requests per window        N  nodes        u  share: a tenth of L, divided by the others

    nobody is refused who has made fewer than L requests in the window, at whichever nodes;
    nobody gets more than L + (N - 1) * u in, a tenth more than L.

A node that has just started has no share: the others do not count it yet. Where it is the only one
it has a share as soon as Redis has told it of a caller: it may be the very node, started anew, that
the caller has used up its window at. While Redis is away each node counts for itself, with all
of L.

In Redis a caller is a sorted set: members are a node and a number of its own, so that telling twice
counts once, and scores are times of Redis's own clock.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from coordinator.redis import AWAY, REDIS_SECONDS, RedisClient

SETTLE_SECONDS = 0.2
"""How soon the others hear of a request. Longer is cheaper, and does not change what gets in: that
is what the share is for."""
SHARE = 0.1
"""Of the limit: what all nodes together may admit without having told each other."""
NEW_SECONDS = 10.0
"""How long a node that has started beside others has no share."""
CALLERS = 20_000
"""How many callers a node remembers; beyond it those seen longest ago are forgotten."""
AT_ONCE = 16
"""Callers that Redis is asked about at the same time: half of the client's connections."""

# KEYS: the caller. ARGV: this node, the window in ms, the limit, whether one more is wanted
# (its number, or ''), since when news are wanted, then numbers and ages in ms of requests that have
# been admitted. Answers whether the one more was admitted, Redis's time in ms, and the other nodes'
# requests since: member, age, member, age …
_SETTLE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local node, window, limit, wanted = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
for i = 6, #ARGV, 2 do
    redis.call('ZADD', KEYS[1], now - ARGV[i + 1], node .. ARGV[i])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
local admitted = 0
if wanted ~= '' and redis.call('ZCARD', KEYS[1]) < limit then
    redis.call('ZADD', KEYS[1], now, node .. wanted)
    admitted = 1
end
redis.call('PEXPIRE', KEYS[1], window)
local news = {}
local known = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[5], '+inf', 'WITHSCORES')
for i = 1, #known, 2 do
    if string.sub(known[i], 1, #node) ~= node then
        news[#news + 1] = known[i]
        news[#news + 1] = now - known[i + 1]
    end
end
return {admitted, now, news}
"""
_LATE_MS = 2000
"""How much later than it was admitted a request may be told, for the others to hear of it."""

QuickEval = Callable[..., Awaitable[Any] | None]
"""`BusLinks.eval`: a script, its key, its arguments; None where it has no connection."""


def nothing_open(*_: Any) -> None:
    """The `QuickEval` of whoever has no connection of its own."""


@dataclass(slots=True)
class SharedWindow:
    """What this node knows of one caller; times are of its own clock, oldest first."""

    key: str
    limit: int
    seconds: float
    own: deque[float] = field(default_factory=deque)
    others: dict[bytes, float] = field(default_factory=dict)
    untold: dict[int, float] = field(default_factory=dict)
    """By number: those of `own` that Redis has not heard of."""
    heard_until_ms: int = 0
    """On Redis's clock."""
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One request asks at a time: a flood of one caller takes one connection."""

    def forget_old(self, now: float) -> None:
        horizon = now - self.seconds
        while self.own and self.own[0] <= horizon:
            self.own.popleft()
        for known in (self.others, self.untold):
            times: Any = known  # its first entry is among its oldest
            if times and next(iter(times.values())) <= horizon:
                for name in [name for name, at in times.items() if at <= horizon]:
                    del times[name]

    def count(self) -> int:
        return len(self.own) + len(self.others)

    def wait(self, now: float) -> float:
        """Seconds until one more fits into a window that is full."""
        in_the_way = self.count() - self.limit + 1
        leaving = heapq.nsmallest(in_the_way, (*self.own, *self.others.values()))
        return leaving[-1] + self.seconds - now


class SharedWindows:
    """Counts requests; safe from many tasks. Only what is awaited is asked of Redis at once.

    Args:
        nodes: how many nodes hold a lease, this one among them.
        clock: seconds.
        quick_eval: a way to Redis that is open already, tried before `redis`.
    """

    def __init__(
        self,
        redis: RedisClient,
        prefix: str,
        nodes: Callable[[], int],
        clock: Callable[[], float],
        quick_eval: QuickEval,
    ) -> None:
        self._redis = redis
        self._quick_eval = quick_eval
        self._prefix = prefix
        self._nodes = nodes
        self._clock = clock
        self._node = secrets.token_hex(6) + ":"
        self._numbers = itertools.count()
        self._started_at = clock()
        self._windows: dict[tuple[str, str], SharedWindow] = {}
        self._dirty: dict[str, SharedWindow] = {}
        self._settling: asyncio.Task[None] | None = None
        self._connections = asyncio.Semaphore(AT_ONCE)
        self._away_at = float("-inf")
        """When Redis last did not answer."""

    def admit(self, name: str, who: str, limit: int, seconds: float) -> float | bool | None:
        """Counts one request where that can be decided without asking.

        Returns:
            None where it is admitted, the seconds until one fits where it is not, and False where
            Redis has to be asked (`ask`).
        """
        now = self._clock()
        window = self._window(name, who, limit, seconds)
        window.forget_old(now)
        if len(window.own) + len(window.others) >= limit:
            return window.wait(now)
        if len(window.untold) >= self._share(window, now):
            return False
        self._add(window, now)
        return None

    async def ask(self, name: str, who: str, limit: int, seconds: float) -> float | None:
        """Counts one request after telling and asking Redis; None, or the seconds until one fits.

        Raises:
            redis.AWAY
        """
        window = self._window(name, who, limit, seconds)
        came_at = self._clock()
        async with window.asking:
            # A request that asked meanwhile got an answer, or none, that serves this one, too.
            self._raise_if_away(came_at)
            decided = self.admit(name, who, limit, seconds)
            if decided is not False:
                return decided
            if await self._settle(window, wants=True):
                return None
        now = self._clock()
        window.forget_old(now)
        return window.wait(now) if window.count() >= limit else 1.0

    def admit_alone(self, name: str, who: str, limit: int, seconds: float) -> float | None:
        """Counts one request while Redis is away: None, or the seconds until one fits."""
        now = self._clock()
        window = self._window(name, who, limit, seconds)
        window.forget_old(now)
        if window.count() >= limit:
            return window.wait(now)
        self._add(window, now)
        return None

    def _window(self, name: str, who: str, limit: int, seconds: float) -> SharedWindow:
        window = self._windows.pop((name, who), None)
        if window is None:
            window = SharedWindow(f"{self._prefix}:{name}:{who}", limit, seconds)
            if len(self._windows) >= CALLERS:
                del self._windows[next(iter(self._windows))]
        self._windows[name, who] = window  # at the end: seen last
        return window

    def _share(self, window: SharedWindow, now: float) -> float:
        others = self._nodes() - 1
        if now - self._started_at < NEW_SECONDS and (others or not window.heard_until_ms):
            return 0
        return math.floor(SHARE * window.limit / others) if others > 0 else window.limit

    def _add(self, window: SharedWindow, now: float) -> None:
        window.own.append(now)
        window.untold[next(self._numbers)] = now
        self._dirty[window.key] = window
        if self._settling is None:
            self._settling = asyncio.get_running_loop().create_task(self._settle_all())

    async def _settle_all(self) -> None:
        """Tells Redis what it has not heard, until that is nothing."""
        try:
            while self._dirty:
                await asyncio.sleep(SETTLE_SECONDS)
                dirty, self._dirty = self._dirty, {}
                settling = [self._settle_quietly(window) for window in dirty.values()]
                await (settling[0] if len(settling) == 1 else asyncio.gather(*settling))
        finally:
            self._settling = None

    async def _settle_quietly(self, window: SharedWindow) -> None:
        window.forget_old(self._clock())
        if not window.untold:
            return
        try:
            await self._settle(window, wants=False)
        except AWAY:
            self._dirty[window.key] = window  # again, until they are too old to matter

    async def _settle(self, window: SharedWindow, *, wants: bool) -> bool:
        """Tells and hears; True where one more was wanted and admitted."""
        now = self._clock()
        told = dict(window.untold)
        number = next(self._numbers)
        ages = [part for n, at in told.items() for part in (n, round((now - at) * 1000))]
        arguments: list[Any] = [
            self._node, round(window.seconds * 1000), window.limit, number if wants else "",
            window.heard_until_ms - _LATE_MS, *ages,
        ]  # fmt: skip
        async with self._connections:
            self._raise_if_away(now)
            try:
                async with asyncio.timeout(REDIS_SECONDS):
                    admitted, redis_ms, news = await self._eval(window.key, arguments)
            except AWAY:
                self._away_at = self._clock()
                raise
        now = self._clock()
        for settled in told:
            window.untold.pop(settled, None)
        for member, age_ms in zip(news[::2], news[1::2], strict=True):
            window.others[member] = now - age_ms / 1000
        window.heard_until_ms = redis_ms
        if admitted:
            window.own.append(now)
        return bool(admitted)

    def _eval(self, key: str, arguments: list[Any]) -> Any:
        """Most callers come once in a while, and each is told by itself: redis-py takes longer for
        that than all the rest of their request.
        """
        quick = self._quick_eval(_SETTLE, key, *arguments)
        return self._redis.eval(_SETTLE, 1, key, *arguments) if quick is None else quick

    def _raise_if_away(self, came_at: float) -> None:
        """Nobody waits for Redis longer than one try takes, however many wait before it.

        Raises:
            TimeoutError: it has not answered somebody since `came_at`.
        """
        if self._away_at >= came_at:
            raise TimeoutError

    async def close(self) -> None:
        """Ends the telling."""
        if self._settling is not None:
            self._settling.cancel()
            await asyncio.gather(self._settling, return_exceptions=True)

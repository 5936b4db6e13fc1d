"""Sliding windows that all nodes count together, without asking Redis before each request.

A node admits a caller by itself as long as what it knows of all nodes' requests leaves room, and as
long as it has told Redis of all but a few of its own (its share). Every 200 ms it tells Redis of
its new ones and hears of the others'; at its share it asks first, and waits.

    L  requests per window        N  nodes        u  share: a tenth of L, divided by the nodes

    nobody is refused who has made fewer than L requests in the window, at whichever nodes;
    nobody gets more than L + N * u in, a tenth more than L.

For what is untold at the others is all that whoever decides cannot know: (N - 1) * u. The rest of
the tenth is for what nobody counts on: a node that the others do not know yet, or one that is
killed before it has told. Where u is 0 (L < 10 N) Redis is asked before each request.

Who may have forgotten something asks first, too. A node that has just started has no share beside
others, which do not count it yet; alone it asks once for each caller, who may have used up its
window at the very node, before it was started anew. So does a node that has had to forget callers,
for as long as what it has forgotten counts. While Redis is away each node counts for itself, with
all of L.

In Redis a caller is a sorted set: members are a node's window and a number, so that telling twice
counts once, and scores are times of Redis's own clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from coordinator.redis import AWAY, REDIS_SECONDS, RedisClient
from coordinator.web.remembered_callers import RememberedCallers

SETTLE_SECONDS = 0.2
"""How soon the others hear of a request. Longer is cheaper, and does not change what gets in: that
is what the share is for."""
TENTH = 10
"""The limit divided by this: what all nodes together may admit without having told each other."""
NEW_SECONDS = 10.0
"""How long a node that has started beside others has no share."""
CALLERS = 20_000
"""How many callers a node remembers, some 25 MB; beyond it those seen longest ago are forgotten."""
AT_ONCE = 16
"""Callers that Redis is asked about at the same time: half of the client's connections."""
TIDY_SECONDS = 1.0
"""How soon what has left a window is dropped where the window is not full."""

# KEYS: the caller. ARGV: the sign of this node's window, its length in ms, the limit, whether one
# more is wanted (its number, or ''), since when news are wanted, then numbers and ages in ms of
# requests that have been admitted. Answers whether the one more was admitted, Redis's time in ms,
# and the others' requests since (all of them where the window is full: what has been told very late
# counts, too): member, age, member, age …
_SETTLE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local sign, window, limit, wanted = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
for i = 6, #ARGV, 2 do
    redis.call('ZADD', KEYS[1], now - ARGV[i + 1], sign .. ARGV[i])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
local admitted = 0
if wanted ~= '' and redis.call('ZCARD', KEYS[1]) < limit then
    redis.call('ZADD', KEYS[1], now, sign .. wanted)
    admitted = 1
end
redis.call('PEXPIRE', KEYS[1], window)
local news, since = {}, ARGV[5]
if redis.call('ZCARD', KEYS[1]) >= limit then
    since = '-inf'
end
local known = redis.call('ZRANGEBYSCORE', KEYS[1], since, '+inf', 'WITHSCORES')
for i = 1, #known, 2 do
    if string.sub(known[i], 1, #sign) ~= sign then
        news[#news + 1] = known[i]
        news[#news + 1] = now - known[i + 1]
    end
end
return {admitted, now, news}
"""
_LATE_MS = 2000
"""How much later than it was admitted a request may be told, for the others to hear of it before
the window is full. Who has no share, and asks before each request, looks that far back every
`SETTLE_SECONDS` only: else each of them hears of all others' again, which it does not decide by."""

QuickEval = Callable[..., Awaitable[Any] | None]
"""`BusLinks.eval`: a script, its key, its arguments; None where it has no connection."""


def nothing_open(*_: Any) -> None:
    """The `QuickEval` of whoever has no connection of its own."""


@dataclass(slots=True, eq=False)
class SharedWindow:
    """What this node knows of one caller; times are of its own clock, oldest first."""

    key: str
    sign: str
    """What its members in Redis begin with. A caller that was forgotten and is met again has a
    window of another sign, which hears of the requests of the first like of another node's."""
    limit: int
    seconds: float
    own: deque[float] = field(default_factory=deque)
    others: dict[bytes, float] = field(default_factory=dict)
    untold: dict[int, float] = field(default_factory=dict)
    """By number: those of `own` that Redis has not heard of."""
    unanswered: list[int] = field(default_factory=list)
    """Numbers that Redis was asked to admit and may have. The next requests take them, so that
    none counts that was not admitted."""
    heard_until_ms: int = 0
    """On Redis's clock."""
    looked_back_at: float = float("-inf")
    """When it last heard of what was told late, too."""
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One request asks at a time: a flood of one caller takes one connection."""
    tidied_at: float = float("-inf")
    full_until: float = float("-inf")
    """No request fits before that: a flood of refused ones is not counted each time."""

    def count(self) -> int:
        return len(self.own) + len(self.others)

    def wait(self, now: float) -> float | None:
        """Seconds until one more fits; None where one does."""
        if now < self.full_until:
            return self.full_until - now
        self.forget_old(now)
        in_the_way = self.count() - self.limit + 1
        if in_the_way <= 0:
            return None
        leaving = heapq.nsmallest(in_the_way, (*self.own, *self.others.values()))
        self.full_until = leaving[-1] + self.seconds
        return self.full_until - now

    def forget_old(self, now: float) -> None:
        horizon = now - self.seconds
        while self.own and self.own[0] <= horizon:
            self.own.popleft()
        # Where the limit is high it takes long to look at all of the others'.
        if self.count() >= self.limit or now - self.tidied_at >= TIDY_SECONDS:
            self.tidied_at = now
            self.others = {name: at for name, at in self.others.items() if at > horizon}
            self.untold = {number: at for number, at in self.untold.items() if at > horizon}


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
        self._node = secrets.token_hex(6)
        self._numbers = itertools.count()
        self._started_at = clock()
        self._callers: RememberedCallers[SharedWindow] = RememberedCallers(CALLERS)
        self._forgot_until: dict[str, float] = {}
        """By kind: until when a request counts whose caller has been forgotten."""
        self._dirty: dict[SharedWindow, None] = {}
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
        return self._decide(name, self._window(name, who, limit, seconds))

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
            decided = self._decide(name, window)
            if decided is not False:
                return decided
            has_share = self._share(name, window, came_at) > 0
            if await self._settle(window, wants=True, looks_back=has_share):
                return None
        wait = window.wait(self._clock())
        return 1.0 if wait is None else wait

    def admit_alone(self, name: str, who: str, limit: int, seconds: float) -> float | None:
        """Counts one request while Redis is away: None, or the seconds until one fits."""
        now = self._clock()
        window = self._window(name, who, limit, seconds)
        wait = window.wait(now)
        if wait is None:
            self._add(window, now)
        return wait

    def _decide(self, name: str, window: SharedWindow) -> float | bool | None:
        now = self._clock()
        wait = window.wait(now)
        if wait is None and len(window.untold) >= self._share(name, window, now):
            return False
        if wait is None:
            self._add(window, now)
        return wait

    def _window(self, name: str, who: str, limit: int, seconds: float) -> SharedWindow:
        window = self._callers.seen(name, who)
        if window is None:
            sign = f"{self._node}.{next(self._numbers)}:"
            window = SharedWindow(f"{self._prefix}:{name}:{who}", sign, limit, seconds)
            forgotten = self._callers.remember(name, who, window)
            if forgotten is not None:
                self._forget(*forgotten)
        return window

    def _forget(self, name: str, window: SharedWindow) -> None:
        if window.own:
            counts_until = window.own[-1] + window.seconds
            self._forgot_until[name] = max(counts_until, self._forgot_until.get(name, 0.0))
        if len(self._dirty) > CALLERS:
            self._dirty.pop(window, None)  # Redis is away: it hears of those that are remembered

    def _share(self, name: str, window: SharedWindow, now: float) -> int:
        nodes = max(self._nodes(), 1)
        is_new = now - self._started_at < NEW_SECONDS
        if is_new and nodes > 1:
            return 0
        if not window.heard_until_ms and (is_new or now < self._forgot_until.get(name, 0.0)):
            return 0
        return window.limit // (TENTH * nodes)

    def _add(self, window: SharedWindow, now: float) -> None:
        window.own.append(now)
        number = window.unanswered.pop() if window.unanswered else next(self._numbers)
        window.untold[number] = now
        self._dirty[window] = None
        if self._settling is None:
            self._settling = asyncio.get_running_loop().create_task(self._settle_all())

    async def _settle_all(self) -> None:
        """Tells Redis what it has not heard, until that is nothing."""
        try:
            while self._dirty:
                await asyncio.sleep(SETTLE_SECONDS)
                await self._tell()
        finally:
            self._settling = None

    async def _tell(self) -> None:
        """Tells of all callers of whom there is something to tell, or as far as Redis is there."""
        dirty = list(self._dirty)
        for start in range(0, len(dirty), AT_ONCE):
            telling = [self._settle_quietly(window) for window in dirty[start : start + AT_ONCE]]
            told = [await telling[0]] if len(telling) == 1 else await asyncio.gather(*telling)
            if not all(told):
                return

    async def _settle_quietly(self, window: SharedWindow) -> bool:
        """False where Redis is away: it is told again, until that is too old to matter."""
        window.forget_old(self._clock())
        try:
            if window.untold:
                await self._settle(window, wants=False)
        except AWAY:
            # Behind the others: they may be on a server of the cluster that is there.
            self._dirty[window] = self._dirty.pop(window, None)
            return False
        if not window.untold:
            self._dirty.pop(window, None)
        return True

    async def _settle(self, window: SharedWindow, *, wants: bool, looks_back: bool = True) -> bool:
        """Tells and hears; True where one more was wanted and admitted."""
        came_at = self._clock()
        number = next(self._numbers)
        async with self._connections:
            self._raise_if_away(came_at)
            told, asked_at = dict(window.untold), self._clock()
            looks_back |= asked_at - window.looked_back_at >= SETTLE_SECONDS
            since = window.heard_until_ms - (_LATE_MS if looks_back else 0)
            wanted = number if wants else ""
            try:
                async with asyncio.timeout(REDIS_SECONDS):
                    answer = await self._eval(window, told, asked_at, wanted, since)
            except AWAY:
                self._away_at = self._clock()
                if wants:
                    window.unanswered.append(number)
                raise
        admitted, redis_ms, news = answer
        for settled in told:
            window.untold.pop(settled, None)
        for member, age_ms in zip(news[::2], news[1::2], strict=True):
            window.others[member] = asked_at - age_ms / 1000  # none counts longer than it should
        window.heard_until_ms = redis_ms
        if looks_back:
            window.looked_back_at = asked_at
        if admitted:
            window.own.append(self._clock())
        return bool(admitted)

    def _eval(
        self, window: SharedWindow, told: dict[int, float], now: float, wanted: int | str,
        since: int,
    ) -> Any:  # fmt: skip
        """Most callers come once in a while, and each is told by itself: redis-py takes longer for
        that than all the rest of their request.
        """
        ages = [part for n, at in told.items() for part in (n, round((now - at) * 1000))]
        arguments: list[Any] = [
            window.sign, round(window.seconds * 1000), window.limit, wanted, since, *ages,
        ]  # fmt: skip
        quick = self._quick_eval(_SETTLE, window.key, *arguments)
        return self._redis.eval(_SETTLE, 1, window.key, *arguments) if quick is None else quick

    def _raise_if_away(self, came_at: float) -> None:
        """Nobody waits for Redis longer than one try takes, however many wait before it.

        Raises:
            TimeoutError: it has not answered somebody since `came_at`.
        """
        if self._away_at >= came_at:
            raise TimeoutError

    async def close(self) -> None:
        """Ends the telling, with what there is to tell."""
        if self._settling is None:
            return
        self._settling.cancel()
        await asyncio.gather(self._settling, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * REDIS_SECONDS):
                await self._tell()

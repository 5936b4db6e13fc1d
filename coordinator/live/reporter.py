"""What a node says of itself every two seconds, and its figures of the last ten minutes.

    {"node": "3f9c…", "name": "web1:4711", "version": "1.0.0", "epoch": "k3v9", "isDraining": false,
     "since": "2026-11-25T10:00:00.000Z", "connections": 120, "rooms": 14, "eventsPerSecond": 3.2,
     "deliveryP99Ms": 1.9, "redis": "ok", "redisMs": 0.3, "postgres": "ok", "postgresMs": 0.8}

The history has one line per ten seconds: `[seconds since 1970, connections, rooms, eventsPerSecond,
deliveryP99Ms, redisMs, postgresMs]`; null where there was nothing to measure. Reports go to
Postgres, so that any node can show all of them; none of it is needed for anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import msgspec

from coordinator import metrics
from coordinator.domain.errors import Unavailable
from coordinator.domain.events import timestamp
from coordinator.live.loop import Loop
from coordinator.redis import AWAY
from coordinator.store.node_reports import NodeReports

REPORT_SECONDS = 2.0
SAMPLE_SECONDS = 10.0
SAMPLES = 60
LEAVE_SECONDS = 0.5

Bucket = tuple[float, float]
"""Of a histogram: up to so many seconds, how many so far."""


class Reporter:
    """Measures this node and writes its reports.

    Args:
        node_epoch: this run of the node, as it is now.
        epoch: of the database, as this node knows it.
        redis_is_down: as the bus sees it.
        ping_redis: one round trip.
    """

    def __init__(
        self,
        reports: NodeReports,
        *,
        name: str,
        node_epoch: Callable[[], str],
        epoch: Callable[[], str],
        counts: Callable[[], tuple[int, int]],
        is_draining: Callable[[], bool],
        redis_is_down: Callable[[], bool],
        ping_redis: Callable[[], Awaitable[Any]],
    ) -> None:
        self._reports = reports
        self._name = name
        self._node_epoch = node_epoch
        self._epoch = epoch
        self._counts = counts
        self._is_draining = is_draining
        self._redis_is_down = redis_is_down
        self._ping_redis = ping_redis
        self._since = datetime.now(UTC)
        self._version = version("coordinator")
        self._history: deque[list[float | None]] = deque(maxlen=SAMPLES)
        self._sampled_at = time.monotonic()
        self._events, self._buckets = _events(), _buckets()
        self._rate, self._p99 = 0.0, None  # type: float, float | None
        self._postgres_ms: float | None = None
        self._last_epoch = ""
        self._loop = Loop(self.report, name="report", seconds=REPORT_SECONDS)

    async def run(self) -> None:
        """Until cancelled."""
        await self._loop.pass_once()
        await self._loop.run()

    async def leave(self) -> None:
        """This node ends in order: its report goes, so that it is not shown as missing.

        Where Postgres does not answer in time, it is told to be missing for ten minutes.
        """
        leaving = asyncio.create_task(self._reports.remove(self._last_epoch))
        await asyncio.wait([leaving], timeout=LEAVE_SECONDS)
        if not leaving.cancel():
            with contextlib.suppress(Unavailable):
                leaving.result()

    async def report(self) -> None:
        """Measures and writes.

        Raises:
            Unavailable: Postgres is away.
        """
        redis_ms = await self._redis_round_trip()
        history = self._sample(redis_ms) if self._is_due() else None
        node_epoch = self._node_epoch()
        if node_epoch != self._last_epoch:
            history = _text(list(self._history))  # a new row begins with what is known
            await self._reports.remove(self._last_epoch)
        asked_at = time.perf_counter()
        await self._reports.write(node_epoch, self._name, self._shown(redis_ms), history)
        self._last_epoch = node_epoch
        self._postgres_ms = _milliseconds(time.perf_counter() - asked_at)

    def _is_due(self) -> bool:
        return time.monotonic() - self._sampled_at >= SAMPLE_SECONDS

    def _sample(self, redis_ms: float | None) -> str:
        now = time.monotonic()
        events, buckets = _events(), _buckets()
        self._rate = round((events - self._events) / (now - self._sampled_at), 2)
        self._p99 = _p99(self._buckets, buckets)
        self._sampled_at, self._events, self._buckets = now, events, buckets
        connections, rooms = self._counts()
        self._history.append(
            [int(time.time()), connections, rooms, self._rate, self._p99, redis_ms,
             self._postgres_ms]
        )  # fmt: skip
        return _text(list(self._history))

    def _shown(self, redis_ms: float | None) -> str:
        connections, rooms = self._counts()
        report = {
            "node": self._node_epoch(),
            "name": self._name,
            "version": self._version,
            "since": timestamp(self._since),
            "epoch": self._epoch(),
            "isDraining": self._is_draining(),
            "connections": connections,
            "rooms": rooms,
            "eventsPerSecond": self._rate,
            "deliveryP99Ms": self._p99,
            "redis": "down" if self._redis_is_down() else "ok",
            "redisMs": redis_ms,
            "postgres": "ok",
            "postgresMs": self._postgres_ms,
        }
        return _text({name: value for name, value in report.items() if value is not None})

    async def _redis_round_trip(self) -> float | None:
        asked_at = time.perf_counter()
        try:
            await self._ping_redis()
        except AWAY:
            return None
        return _milliseconds(time.perf_counter() - asked_at)


def _events() -> float:
    """How many events this process has committed."""
    return sum(
        sample.value
        for family in metrics.EVENTS.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    )


def _buckets() -> list[Bucket]:
    return [
        (float(sample.labels["le"]), sample.value)
        for family in metrics.DELIVERY_SECONDS.collect()
        for sample in family.samples
        if sample.name.endswith("_bucket")
    ]


def _p99(before: Sequence[Bucket], now: Sequence[Bucket]) -> float | None:
    """Milliseconds within which 99 of 100 deliveries since `before` were made; None of none.

    Within a bucket deliveries are taken to be spread evenly.
    """
    pairs = zip(now, before, strict=True)
    counts = [(limit, count - earlier) for (limit, count), (_, earlier) in pairs]
    total = counts[-1][1] if counts else 0
    if not total:
        return None
    wanted, lower, passed = total * 0.99, 0.0, 0.0
    for limit, count in counts:
        if count >= wanted:
            if limit == float("inf"):
                return _milliseconds(lower)
            return _milliseconds(lower + (limit - lower) * (wanted - passed) / (count - passed))
        lower, passed = limit, count
    return _milliseconds(lower)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()

"""Health for load balancers, and metrics for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from litestar import Response, get
from litestar.di import NamedDependency
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from coordinator.domain.errors import Unavailable
from coordinator.store.database import Database

CHECK_SECONDS = 2.0
TAGS = ["health"]


class Health:
    """What this node can tell of itself."""

    def __init__(
        self,
        database: Database,
        *,
        redis_is_down: Callable[[], bool],
        is_draining: Callable[[], bool],
        trouble: Callable[[], str | None],
        node: Callable[[], str],
    ) -> None:
        """`trouble`: why this node cannot serve although Postgres answers; None where it can."""
        self._database = database
        self._redis_is_down = redis_is_down
        self._is_draining = is_draining
        self._trouble = trouble
        self._node = node

    async def report(self) -> tuple[bool, dict[str, str]]:
        """Whether clients may be sent here, and why: the body of `/health/ready`."""
        postgres = self._trouble() is None and await self._postgres_answers()
        redis = not self._redis_is_down()
        is_draining = self._is_draining()
        serving = postgres and not is_draining
        status = ("ready" if redis else "degraded") if serving else "unavailable"
        return serving, {
            "status": "draining" if is_draining else status,
            "postgres": "ok" if postgres else "down",
            "redis": "ok" if redis else "down",
            "node": self._node(),
        }

    async def _postgres_answers(self) -> bool:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._database.ping()
                return True
        except (Unavailable, TimeoutError):
            return False


@get("/health/live", summary="The event loop turns", tags=TAGS)
async def live() -> dict[str, str]:
    return {"status": "live"}


@get("/health/ready", summary="Whether to send clients here", tags=TAGS)
async def ready(health: NamedDependency[Health]) -> Response[dict[str, str]]:
    """503 where Postgres is away or cannot be written to, where an essential task has ended, and
    while draining; without Redis it is `degraded`, and 200.
    """
    serving, report = await health.report()
    return Response(report, status_code=200 if serving else 503)


@get("/metrics", summary="Prometheus metrics of this process", tags=TAGS)
async def metrics() -> Response[bytes]:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


HANDLERS = [live, ready, metrics]
"""Everything under /health/, and /metrics."""

"""Health for load balancers, and metrics for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from litestar import Response, get
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from coordinator.domain.errors import Unavailable
from coordinator.store.database import Database

CHECK_SECONDS = 2.0


def routes(
    database: Database,
    *,
    redis_is_up: Callable[[], bool],
    is_draining: Callable[[], bool],
    node: Callable[[], str],
) -> list[Any]:
    """The handlers of `/health/…` and `/metrics`."""

    @get("/health/live", summary="The event loop turns", tags=["health"])
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @get("/health/ready", summary="Whether to send clients here", tags=["health"])
    async def ready() -> Response[dict[str, str]]:
        """503 without Postgres and while draining; without Redis it is `degraded`, and 200."""
        postgres = await _postgres_answers(database)
        redis = redis_is_up()
        serving = postgres and not is_draining()
        status = ("ready" if redis else "degraded") if serving else "unavailable"
        if is_draining():
            status = "draining"
        return Response(
            {
                "status": status,
                "postgres": "ok" if postgres else "down",
                "redis": "ok" if redis else "down",
                "node": node(),
            },
            status_code=200 if serving else 503,
        )

    @get("/metrics", summary="Prometheus metrics of this process", tags=["health"])
    async def metrics() -> Response[bytes]:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return [live, ready, metrics]


async def _postgres_answers(database: Database) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return bool(await database.fetchval("SELECT 1"))
    except (Unavailable, TimeoutError):
        return False

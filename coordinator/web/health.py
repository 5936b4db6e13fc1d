"""Health for load balancers, and metrics for Prometheus."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

from litestar import HttpMethod, Response, route
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from coordinator.domain.errors import Forbidden, Unavailable
from coordinator.store.database import Database
from coordinator.web.addresses import Network, is_loopback, is_within
from coordinator.web.guards import Connection
from coordinator.web.limits import Limits
from coordinator.worker_metrics import merged

CHECK_SECONDS = 2.0
TAGS = ["health"]
GET_OR_HEAD = [HttpMethod.GET, HttpMethod.HEAD]
_METRICS_TYPE = CONTENT_TYPE_LATEST.partition("; charset=")[0]
"""Litestar adds the charset to every text."""


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
        siblings: Callable[[str], Awaitable[dict[str, bytes]]],
    ) -> None:
        """Does no I/O.

        Args:
            trouble: why this node cannot serve although Postgres answers; None where it can.
            siblings: what the other workers of this server answer to a word, by process id.
        """
        self._database = database
        self._redis_is_down = redis_is_down
        self._is_draining = is_draining
        self._trouble = trouble
        self._node = node
        self._siblings = siblings

    async def exposition(self) -> bytes:
        """The metrics of all workers of this server."""
        others = await self._siblings("metrics")
        return merged({str(os.getpid()): generate_latest(), **others})

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


@route(
    "/health/live", http_method=GET_OR_HEAD, status_code=200, summary="The event loop turns",
    tags=TAGS,
)  # fmt: skip
async def live() -> dict[str, str]:
    return {"status": "live"}


@route(
    "/health/ready", http_method=GET_OR_HEAD, status_code=200,
    summary="Whether to send clients here", tags=TAGS,
)  # fmt: skip
async def ready(health: NamedDependency[Health]) -> Response[dict[str, str]]:
    """503 where Postgres is away or cannot be written to, where an essential task has ended, and
    while draining; without Redis it is `degraded`, and 200.
    """
    serving, report = await health.report()
    return Response(report, status_code=200 if serving else 503)


async def _metrics_reader(connection: Connection, _: BaseRouteHandler) -> None:
    """Whoever calls from this machine itself, and from the networks of `METRICS_ALLOW`.

    A caller of loopback that brings `X-Forwarded-For` is a proxy that speaks for somebody else.

    Raises:
        Forbidden
    """
    limits: Limits = connection.app.state["limits"]
    allowed: Sequence[Network] = connection.app.state["metrics_allow"]
    caller = limits.address(connection.scope)
    is_here = is_loopback(caller) and "x-forwarded-for" not in connection.headers
    if not is_here and not is_within(caller, allowed):
        raise Forbidden


@route(
    "/metrics",
    http_method=GET_OR_HEAD,
    status_code=200,
    guards=[_metrics_reader],
    media_type=_METRICS_TYPE,
    summary="Prometheus metrics of this server, all its workers",
    tags=TAGS,
)
async def metrics(health: NamedDependency[Health]) -> Response[bytes]:
    """For this machine and `METRICS_ALLOW` alone; others are refused (403)."""
    return Response(await health.exposition(), media_type=_METRICS_TYPE)


HANDLERS = [live, ready, metrics]
"""Everything under /health/, and /metrics."""

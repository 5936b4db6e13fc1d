"""`GET /api/console/deployment`: the nodes, for admins."""

from __future__ import annotations

from litestar import Response, get
from litestar.di import NamedDependency

from coordinator.domain.errors import Forbidden, TokenExpired, Unauthorized
from coordinator.services.deployment import DeploymentStatus
from coordinator.store.epochs import Epochs
from coordinator.web import guards
from coordinator.web.openapi.operation import STAFF, Documentation, documented
from coordinator.web.views import View


class NodeView(View, frozen=True, kw_only=True):
    """`history` has a line per 10 s: `[seconds since 1970, connections, rooms, eventsPerSecond,
    deliveryP99Ms, redisMs, postgresMs]`, null where nothing was measured. A node that has just
    begun has not reported anything yet.
    """

    node: str
    name: str
    since: str
    version: str | None = None
    epoch: str | None = None
    is_draining: bool | None = None
    connections: int | None = None
    rooms: int | None = None
    events_per_second: float | None = None
    delivery_p99_ms: float | None = None
    redis: str | None = None
    redis_ms: float | None = None
    postgres: str | None = None
    postgres_ms: float | None = None
    reported_at: str | None = None
    history: list[list[float | None]]


class MissingNodeView(View, frozen=True, kw_only=True):
    node: str
    name: str
    at: str


class DeploymentView(View, frozen=True, kw_only=True):
    """What is answered; `gone` are nodes of the last ten minutes that did not end in order."""

    epoch: str
    now: str
    nodes: list[NodeView]
    gone: list[MissingNodeView]


_NODE = {
    "node": "3f9c0a1b2c3d", "name": "web1:4711", "version": "1.0.0",
    "since": "2026-11-25T10:00:00.000Z", "epoch": "k3v9", "isDraining": False, "connections": 120,
    "rooms": 14, "eventsPerSecond": 3.2, "deliveryP99Ms": 1.9, "redis": "ok", "redisMs": 0.3,
    "postgres": "ok", "postgresMs": 0.8, "reportedAt": "2026-11-25T10:20:00.000Z",
    "history": [[1795601990, 118, 14, 3.1, 1.8, 0.3, 0.8]],
}  # fmt: skip

GET_DEPLOYMENT = Documentation(
    answer=DeploymentView,
    security=STAFF,
    errors=[Unauthorized, TokenExpired, Forbidden],
    response_example={
        "epoch": "k3v9", "now": "2026-11-25T10:20:01.000Z", "nodes": [_NODE], "gone": [],
    },
)  # fmt: skip


@get(
    "/api/console/deployment",
    guards=[guards.admin],
    response_headers={"Cache-Control": "no-store"},
    summary="部署状态",
    description="管理员：持有租约的每个节点及其最近十分钟，以及失联的节点。",
    tags=["console"],
    operation_class=documented(GET_DEPLOYMENT),
)
async def get_deployment(
    deployment: NamedDependency[DeploymentStatus], epochs: NamedDependency[Epochs]
) -> Response[bytes]:
    shown = await deployment.shown(epochs.current)
    head = '{"success":true,"message":"操作成功","data":'.encode()
    return Response(head + shown + b"}", media_type="application/json")


HANDLERS = (get_deployment,)

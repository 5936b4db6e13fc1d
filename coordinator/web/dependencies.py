"""What handlers and guards are given: this node's services, by name.

    app = Litestar(…, dependencies=injected(services), state=State(services))

    @get("/api/interview/room/{room_id:str}")
    async def get_room(room_id: PathText, rooms: NamedDependency[RoomService]) -> …

Guards, which Litestar injects nothing into, read `connection.app.state["rooms"]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litestar import Litestar
from litestar.di import Provide
from litestar.routes import HTTPRoute


def injected(services: Mapping[str, Any]) -> dict[str, Provide]:
    """Each service under its name, for Litestar to inject."""
    return {name: _constant(service) for name, service in services.items()}


def resolve_in_turn(app: Litestar) -> None:
    """Makes Litestar resolve a handler's dependencies one after the other, in the request's task.

    By itself it starts a task for each, so that none waits for another. Ours are there already, and
    the tasks cost as much as a query.
    """
    for route in app.routes:
        for _, model in route.route_handler_map.values() if isinstance(route, HTTPRoute) else ():
            model.dependency_batches = [
                {dependency} for batch in model.dependency_batches for dependency in batch
            ]


def _constant(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)

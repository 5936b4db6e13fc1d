"""What handlers and guards are given: this node's services, by name.

    app = Litestar(…, dependencies=injected(services), state=State(services))

    @get("/api/interview/room/{room_id:str}")
    async def get_room(room_id: PathText, rooms: NamedDependency[RoomService]) -> …

Guards, which Litestar injects nothing into, read `connection.app.state["rooms"]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litestar.di import Provide


def injected(services: Mapping[str, Any]) -> dict[str, Provide]:
    """Each service under its name, for Litestar to inject."""
    return {name: _constant(service) for name, service in services.items()}


def _constant(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)

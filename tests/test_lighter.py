"""What Litestar is spared at each request, and that handlers and guards are served all the same."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httpx
from litestar import Litestar, Request, get
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath

from coordinator.web.dependencies import injected
from coordinator.web.lighter import lighten


def _task() -> str:
    task = asyncio.current_task()
    assert task is not None
    return task.get_name()


async def asks_for_a_name(connection: ASGIConnection[Any, Any, Any, Any], _: Any) -> None:
    if "name" not in connection.query_params:
        raise NotAuthorizedException


async def notes_its_handler(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    connection.state.is_own = handler is connection.route_handler


@get("/{number:int}", guards=[asks_for_a_name, notes_its_handler])
async def told(
    number: FromPath[int], first: NamedDependency[str], task: NamedDependency[str],
    is_own: NamedDependency[bool],
) -> list[Any]:  # fmt: skip
    return [number, first, task == _task(), is_own]


def _is_own(request: Request[Any, Any, Any]) -> bool:
    return bool(request.state.is_own)


async def asked(path: str) -> httpx.Response:
    own = {
        "task": Provide(_task, sync_to_thread=False),
        "is_own": Provide(_is_own, sync_to_thread=False),
    }
    app = Litestar([told], dependencies=injected({"first": "a"}) | own)
    lighten(app)
    transport = httpx.ASGITransport(cast(Any, app))
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as http:
        return await http.get(path)


async def test_a_handler_is_given_what_it_asks_for_in_its_own_task() -> None:
    """Litestar by itself starts a task for each, and copies the handler for each guard."""
    assert (await asked("/7?name=x")).json() == [7, "a", True, True]


async def test_what_a_guard_refuses_is_refused() -> None:
    assert (await asked("/7")).status_code == 401

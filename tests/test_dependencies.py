"""What handlers are given, and that nothing is started to give it to them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httpx
from litestar import Litestar, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath

from coordinator.web.dependencies import injected, resolve_in_turn


def _task() -> str:
    task = asyncio.current_task()
    assert task is not None
    return task.get_name()


@get("/{number:int}")
async def told(
    number: FromPath[int], first: NamedDependency[str], task: NamedDependency[str],
    last: NamedDependency[str],
) -> list[Any]:  # fmt: skip
    return [number, first, task == _task(), last]


async def test_a_handler_is_given_what_it_asks_for_in_its_own_task() -> None:
    """Litestar by itself starts a task for each of them."""
    services = injected({"first": "a", "last": "z"})
    app = Litestar([told], dependencies=services | {"task": Provide(_task, sync_to_thread=False)})
    resolve_in_turn(app)
    transport = httpx.ASGITransport(cast(Any, app))
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as http:
        answer = await http.get("/7")
    assert answer.json() == [7, "a", True, "z"]

"""A fast path for the hottest calls: a guest's join and the view of a room.

Litestar's way through router, connection object and response costs as much as everything else that
these two do. They are answered in front of it by the same functions as behind it
(`guests.join_room`, `rooms.view_room`) and with the same failures; whatever is special about a
request (a browser's `Origin`, an unusual path) goes Litestar's way. Most joins do not even come
here (`prompt.py`). A test sends each request all ways and compares what comes back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from coordinator.web.bodies import whole_body
from coordinator.web.http_protocol import ANSWER
from coordinator.web.http_request import Meter
from coordinator.web.json_answer import Outcome, failure, success
from coordinator.web.prompt import Begin, Prompts

Endpoint = Callable[[Any, bytes], Awaitable[Any]]
"""From the ASGI scope and the body to what is encoded as the answer; raises `CoordinatorError`."""


class FastPath:
    """An ASGI application in front of another one.

    Args:
        posts: endpoints of exact paths.
        gets: endpoints of paths that are a prefix and one segment more.
        prompts: endpoints of exact paths, to which the HTTP protocol gives what is plain.
    """

    def __init__(
        self, app: Any, meter: Meter, *,
        posts: dict[str, Endpoint], gets: dict[str, Endpoint], prompts: dict[str, Begin],
    ) -> None:  # fmt: skip
        self._app = app
        self._meter = meter
        self.prompts = Prompts(meter, prompts)
        self._posts = posts
        self._gets = gets

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        endpoint = self._endpoint(scope) if scope["type"] == "http" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status, headers, content = await _answer(endpoint, scope, receive)
        send_whole = scope.get("extensions", {}).get(ANSWER)
        if send_whole is None or not send_whole(scope, status, headers, content):
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": content})
        self._meter.answered(scope, status, started)

    def _endpoint(self, scope: Any) -> Endpoint | None:
        path: str = scope["path"]
        if scope["method"] == "POST":
            endpoint = self._posts.get(path)
        elif scope["method"] == "GET":
            prefix, slash, last = path.rpartition("/")
            endpoint = self._gets.get(prefix + slash) if last else None
        else:
            return None
        if endpoint is not None and any(name == b"origin" for name, _ in scope["headers"]):
            return None
        return endpoint


async def _answer(endpoint: Endpoint, scope: Any, receive: Any) -> Outcome:
    """Status, headers and body, whatever comes of it."""
    try:
        body = await whole_body(scope, receive) if scope["method"] == "POST" else b""
        return success(await endpoint(scope, body))
    except (Exception, asyncio.CancelledError) as error:
        return failure(error, scope)

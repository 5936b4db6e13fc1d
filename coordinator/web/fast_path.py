"""A short way for the hottest calls: a guest's join and the view of a room.

Litestar's way through router, connection object and response costs as much as everything else that
these two do. They are answered in front of it by the very stories that their Litestar handlers tell
(`guests.join_story`, `rooms.view_story`), in the same shapes; whatever is special about a request
(a browser's `Origin`, an unusual path) goes Litestar's way.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog

from coordinator.domain.errors import CoordinatorError, PayloadTooLarge
from coordinator.web.bodies import MAX_BODY_BYTES
from coordinator.web.errors import failure_body
from coordinator.web.http_protocol import ANSWER
from coordinator.web.http_request import Meter, request_id

log = structlog.get_logger()

Story = Callable[[Any, bytes], Awaitable[Any]]
"""From the ASGI scope and the body to what is encoded as the answer; raises `CoordinatorError`."""

_JSON = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode


class FastPath:
    """An ASGI application in front of another one.

    Args:
        posts: stories of exact paths.
        gets: stories of paths that are a prefix and one segment more.
    """

    def __init__(
        self, app: Any, meter: Meter, *, posts: dict[str, Story], gets: dict[str, Story]
    ) -> None:
        self._app = app
        self._meter = meter
        self._posts = posts
        self._gets = gets

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        story = self._story(scope) if scope["type"] == "http" else None
        if story is None:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = [_JSON]
        try:
            body = await _body(scope, receive) if scope["method"] == "POST" else b""
            answer = await story(scope, body)
            status = 200
        except CoordinatorError as error:
            status, answer = error.status, failure_body(error, scope["path"])
            if error.retry_after is not None:
                headers.append((b"retry-after", str(error.retry_after).encode()))
        except Exception as error:
            identity = request_id(scope)
            log.error("request_failed", requestId=identity, path=scope["path"], exc_info=error)
            answer = failure_body(CoordinatorError(), scope["path"], requestId=identity)
            status = 500
        content = _encode(answer)
        headers.append((b"content-length", str(len(content)).encode()))
        send_whole = scope.get("extensions", {}).get(ANSWER)
        if send_whole is None or not send_whole(scope, status, headers, content):
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": content})
        self._meter.answered(scope, status, started)

    def _story(self, scope: Any) -> Story | None:
        path: str = scope["path"]
        if scope["method"] == "POST":
            story = self._posts.get(path)
        elif scope["method"] == "GET":
            prefix, slash, last = path.rpartition("/")
            story = self._gets.get(prefix + slash) if last else None
        else:
            return None
        if story is not None and any(name == b"origin" for name, _ in scope["headers"]):
            return None
        return story


async def _body(scope: Any, receive: Any) -> bytes:
    """The whole body.

    Raises:
        PayloadTooLarge: it is, or says that it is, longer than `MAX_BODY_BYTES`.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > MAX_BODY_BYTES:
            raise PayloadTooLarge
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        if len(body) > MAX_BODY_BYTES:
            raise PayloadTooLarge
        message = await receive()
        body += message.get("body", b"")
    if len(body) > MAX_BODY_BYTES:
        raise PayloadTooLarge
    return body

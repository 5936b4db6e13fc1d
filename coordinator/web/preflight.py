"""What a browser is told that asks for a page of another origin whether it may call, and caches.

Litestar answers the pages that `ALLOWED_ORIGINS` names, and refuses the others as plain text. Here
they are refused in front of it, in the shape of the API that they ask about, like everything else
that is refused.

Litestar says `Vary: Origin` to the pages alone that may read, and writes it over the handler's own
(files are sent plain or compressed). A cache has to know both from any answer, or it gives some
what it has kept for others.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.config.cors import CORSConfig

from coordinator.domain.errors import Forbidden
from coordinator.web.errors import failure_response
from coordinator.web.http_request import header

_VARY = (b"vary", b"Accept-Encoding, Origin")


class Preflights:
    """An ASGI application in front of another one, with its `cors`."""

    def __init__(self, app: Any, cors: CORSConfig) -> None:
        self._app = app
        self._cors = cors

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not _of_a_stranger(scope, self._cors):
            await self._app(scope, receive, _varying(send))
            return
        refusal = failure_response(Forbidden(), scope)
        content = msgspec.json.encode(refusal.body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            _VARY,
        ]
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def _of_a_stranger(scope: Any, cors: CORSConfig) -> bool:
    if scope["method"] != "OPTIONS":
        return False
    origin = header(scope, b"origin")
    return origin is not None and not cors.is_origin_allowed(origin)


def _varying(send: Any) -> Any:
    async def vary(message: Any) -> None:
        if message["type"] == "http.response.start":
            others = [each for each in message["headers"] if each[0].lower() != b"vary"]
            message = message | {"headers": [*others, _VARY]}
        await send(message)

    return vary

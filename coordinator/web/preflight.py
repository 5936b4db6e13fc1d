"""What a browser is told that asks for a page of another origin whether it may call.

Litestar answers the pages that `ALLOWED_ORIGINS` names, and refuses the others as plain text. Here
they are refused in front of it, in the shape of the API that they ask about, like everything else
that is refused.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.config.cors import CORSConfig

from coordinator.domain.errors import Forbidden
from coordinator.web.errors import failure_response
from coordinator.web.http_request import header


class Preflights:
    """An ASGI application in front of another one; `cors` None: none of them is answered here."""

    def __init__(self, app: Any, cors: CORSConfig | None) -> None:
        self._app = app
        self._cors = cors

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._cors is None or not _of_a_stranger(scope, self._cors):
            await self._app(scope, receive, send)
            return
        refusal = failure_response(Forbidden(), scope["path"])
        content = msgspec.json.encode(refusal.body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"vary", b"Origin"),
        ]
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def _of_a_stranger(scope: Any, cors: CORSConfig) -> bool:
    if scope["type"] != "http" or scope["method"] != "OPTIONS":
        return False
    origin = header(scope, b"origin")
    return origin is not None and not cors.is_origin_allowed(origin)

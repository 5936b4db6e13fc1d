"""HEAD is answered like GET, without the body (RFC 9110, section 9.3.2)."""

from __future__ import annotations

from typing import Any


class AnsweredLikeGet:
    """An ASGI application in front of another one, which need know nothing of HEAD.

    The server keeps the body back: it looks at the method of its own scope.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = scope | {"method": "GET"}
        await self._app(scope, receive, send)

"""HEAD is answered like GET, without the body (RFC 9110, section 9.3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def allow(methods: Iterable[str]) -> str:
    """The value of `Allow` for a path that is served by these methods."""
    served = set(methods)
    return ", ".join(sorted(served | {"HEAD"} if "GET" in served else served))


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

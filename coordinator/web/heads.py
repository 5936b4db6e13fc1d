"""HEAD is answered like GET, without the body (RFC 9110, section 9.3.2); what OPTIONS tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = scope | {"method": "GET"}
        return self._app(scope, receive, send)


class EveryMethodAllowed:
    """An ASGI application in front of Litestar, which keeps a route for each handler: the answer to
    OPTIONS names every method of its path, not those of one route alone.

    Args:
        allowed: what `Allow` lists, by the path's template.
    """

    def __init__(self, app: Any, allowed: Mapping[str, str]) -> None:
        self._app = app
        self._allowed = allowed

    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            send = self._naming_all(scope, send)
        return self._app(scope, receive, send)

    def _naming_all(self, scope: Any, send: Any) -> Any:
        async def name_all(message: Any) -> None:
            allowed = self._allowed.get(scope.get("path_template", ""))
            if allowed is not None and message.get("status") == 204:
                others = [each for each in message["headers"] if each[0].lower() != b"allow"]
                message = message | {"headers": [*others, (b"allow", allowed.encode())]}
            await send(message)

        return name_all

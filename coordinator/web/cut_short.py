"""Requests that the node's end cuts short: their callers hear 503, and ask another node."""

from __future__ import annotations

import asyncio
from typing import Any

from coordinator.web.json_answer import failure


class AnsweredAtTheEnd:
    """An ASGI application whose cancelled requests are answered, as far as they were not."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def observe(message: Any) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, observe)
        except asyncio.CancelledError as error:
            if has_begun:
                raise
            status, headers, content = failure(error, scope)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": content})

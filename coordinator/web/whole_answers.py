"""Answers to clients of HTTP/1.0, which know no chunks (RFC 9112, section 6.1).

What is sent by and by to others is kept for them until it is whole: then its length is known.
"""

from __future__ import annotations

from typing import Any

from litestar.exceptions import LitestarException

from coordinator.web.json_answer import failure

_WITHOUT_BODY = (204, 304)


class WholeForHttp10:
    """An ASGI application in front of another one, which need know nothing of HTTP/1.0."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] == "http" and scope["http_version"] == "1.0":
            return self._answer_whole(scope, receive, send)
        return self._app(scope, receive, send)

    async def _answer_whole(self, scope: Any, receive: Any, send: Any) -> None:
        answer = _Answer(send)
        try:
            await self._app(scope, receive, answer.take)
        except Exception as error:
            if not answer.is_kept:
                raise
            status, headers, content = failure(_cause(error), scope)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": content})


class _Answer:
    """One answer; `is_kept` while its start waits for the end of its body."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self._start: Any = None
        self._pieces: list[bytes] = []

    @property
    def is_kept(self) -> bool:
        return self._start is not None

    async def take(self, message: Any) -> None:
        if message["type"] == "http.response.start" and _lacks_length(message):
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._pieces.append(message.get("body", b""))
            if not message.get("more_body"):
                await self._send_whole(self._start, b"".join(self._pieces))

    async def _send_whole(self, start: Any, content: bytes) -> None:
        self._start = None
        headers = [*start["headers"], (b"content-length", b"%d" % len(content))]
        await self._send(start | {"headers": headers})
        await self._send({"type": "http.response.body", "body": content})


def _lacks_length(start: Any) -> bool:
    if start["status"] in _WITHOUT_BODY:
        return False
    return not any(name.lower() == b"content-length" for name, _ in start["headers"])


def _cause(error: BaseException) -> BaseException:
    """What ended a stream: Litestar runs it in a group, and says that the answer had begun."""
    if isinstance(error, LitestarException) and error.__cause__ is not None:
        return _cause(error.__cause__)
    return _cause(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error

"""What every request brings: an id for the log, headers, a bearer token; and how it is counted."""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any

import structlog

from coordinator.logging import request_underway
from coordinator.metrics import HTTP_REQUESTS, HTTP_SECONDS

log = structlog.get_logger()


def request_id(scope: Any) -> str:
    """The id of this request, made at its first use."""
    state = scope.setdefault("state", {})
    if "request_id" not in state:
        state["request_id"] = secrets.token_hex(8)
    identity: str = state["request_id"]
    return identity


def bearer(authorization: str | None) -> str | None:
    """The token of an `Authorization: Bearer …` header, or None."""
    if authorization is None:
        return None
    scheme, _, token = authorization.strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def utf8_header(value: str | None) -> str | None:
    """A header's text: its bytes arrive as Latin-1, and are UTF-8."""
    return None if value is None else value.encode("latin-1", "replace").decode("utf-8", "replace")


def header(scope: Any, name: bytes) -> str | None:
    """The first value of a header of an ASGI scope; `name` in small letters."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None


def bearer_token(scope: Any) -> str | None:
    """The token of an ASGI scope's `Authorization: Bearer …` header, or None."""
    return bearer(header(scope, b"authorization"))


_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Meter:
    """Counts and times what is answered, and tells each request at `LOG_LEVEL=debug`."""

    def __init__(self) -> None:
        self._tells_each = log.is_enabled_for(logging.DEBUG)

    def answered(self, scope: Any, status: int, started: float) -> None:
        """A request has been answered; `started` is `time.perf_counter` at its beginning."""
        seconds = time.perf_counter() - started
        method = scope["method"]  # a strange one is counted with the others
        HTTP_REQUESTS.values[method if method in _METHODS else "other", str(status)] += 1
        HTTP_SECONDS.observe(seconds)
        if self._tells_each:
            log.debug(
                "request",
                requestId=request_id(scope),
                method=method,
                path=scope["path"],
                status=status,
                ms=round(seconds * 1000, 1),
            )


class Underway:
    """A request that is being served, for the log.

    Attributes:
        scope: its own, None when it has been answered.
    """

    __slots__ = ("scope",)

    def __init__(self, scope: Any) -> None:
        self.scope = scope

    def __call__(self) -> str | None:
        return None if self.scope is None else request_id(self.scope)


class Metered:
    """An ASGI application whose answers a meter counts, and whose log lines name the request."""

    def __init__(self, app: Any, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500
        underway = Underway(scope)
        request_underway.set(underway)  # in the task of this request alone

        async def observe(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observe)
        finally:
            self._meter.answered(scope, status, started)
            underway.scope = None

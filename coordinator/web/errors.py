"""Failures out, in the shape of the API that was called.

The mini-program's API says `{"success": false, "message": …, "code": …}`, the open API `error` in
place of `message`. What the framework refuses by itself (unknown path, wrong method, body too
large) has the same shape. What nobody foresaw is a 500 that carries a `requestId`; its stack
stands in the log under the same id, never in the answer.
"""

from __future__ import annotations

from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from coordinator.domain.errors import (
    CoordinatorError,
    Forbidden,
    InvalidParams,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    Unauthorized,
)
from coordinator.web.http_request import request_id

log = structlog.get_logger()

_FRAMEWORK: dict[int, type[CoordinatorError]] = {
    400: InvalidParams,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    413: PayloadTooLarge,
}

_HUNG_UP = "client disconnected prematurely"
"""Litestar's words for a request whose end never came: no fault of ours, and nobody is answered."""


def is_open_api(path: str) -> bool:
    """True where a path belongs to the open API, which has an error shape of its own."""
    return path == "/api/open" or path.startswith("/api/open/")


def failure_body(error: CoordinatorError, path: str, **more: str) -> dict[str, Any]:
    """The failure as the API of that path shows it."""
    word = "error" if is_open_api(path) else "message"
    return {"success": False, word: error.message, "code": error.code, **more}


def failure(request: Request[Any, Any, Any], error: CoordinatorError) -> Response[dict[str, Any]]:
    """Something that we know of: as it says."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = request.scope.get("state", {}).get("allow", "")
    return Response(
        failure_body(error, request.url.path),
        status_code=error.status,
        headers={name: value for name, value in headers.items() if value},
    )


def framework_failure(
    request: Request[Any, Any, Any], error: HTTPException
) -> Response[dict[str, Any]]:
    """Something that Litestar refused."""
    kind = _FRAMEWORK.get(error.status_code)
    if kind is None:
        if error.status_code < 500 or error.detail == _HUNG_UP:
            return failure(request, InvalidParams())
        return unforeseen(request, error)
    known = kind()
    if isinstance(known, MethodNotAllowed) and error.headers:
        allowed = {name.lower(): value for name, value in error.headers.items()}.get("allow", "")
        request.scope.setdefault("state", {})["allow"] = allowed
    return failure(request, known)


def unforeseen(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Something that should not happen: logged with its stack, told without it."""
    identity = request_id(request.scope)
    log.error("request_failed", requestId=identity, path=request.url.path, exc_info=error)
    return Response(
        failure_body(CoordinatorError(), request.url.path, requestId=identity), status_code=500
    )


EXCEPTION_HANDLERS: Any = {
    CoordinatorError: failure,
    HTTPException: framework_failure,
    Exception: unforeseen,
}

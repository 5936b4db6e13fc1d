"""Failures out, in the shape of the API that was called.

The mini-program's API says `{"success": false, "message": …, "code": …}`, the open API `error` in
place of `message`. What the framework refuses by itself (unknown path, wrong method, body too
large) has the same shape. What nobody foresaw is a 500 that carries a `requestId`; its stack
stands in the log under the same id, never in the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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
from coordinator.web.heads import allow
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

_OPEN_API = re.compile("/+api/+open(/|$)")
"""The router takes several slashes for one."""

_BY_KEY = 'ApiKey header="X-API-Key"'

_HUNG_UP = "client disconnected prematurely"
"""Litestar's words for a request whose end never came: no fault of ours, and nobody is answered."""


def is_open_api(path: str) -> bool:
    """True where a path belongs to the open API, which has an error shape of its own."""
    return _OPEN_API.match(path) is not None


class Unforeseen(CoordinatorError):
    """Something that should not happen; its stack stands in the log under `request_id`."""

    def __init__(self, request_id: str) -> None:
        super().__init__()
        self.request_id = request_id


@dataclass(frozen=True, slots=True)
class FailureResponse:
    """A failure as it goes out, whichever way; `headers` beside those of its JSON body."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


def failure_response(error: CoordinatorError, scope: Any) -> FailureResponse:
    """The failure as the API of the path that was asked for shows it."""
    is_open = is_open_api(scope["path"])
    complaint = "error" if is_open else "message"
    body = {"success": False, complaint: error.message, "code": error.code}
    if isinstance(error, Unforeseen):
        body["requestId"] = error.request_id
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.status == 401:
        headers["WWW-Authenticate"] = _challenges(scope["method"], is_open=is_open)
    return FailureResponse(error.status, body, headers)


def _challenges(method: str, *, is_open: bool) -> str:
    """What would be let in there (RFC 9110, section 11.6.1): only what the open API reads takes an
    admin's token too. No scheme is registered for keys.
    """
    if not is_open:
        return "Bearer"
    return f"{_BY_KEY}, Bearer" if method == "GET" else _BY_KEY


def unforeseen(error: BaseException, scope: Any) -> Unforeseen:
    """What is told in place of an error that nobody foresaw; it is logged with its stack."""
    identity = request_id(scope)
    log.error("request_failed", requestId=identity, path=scope["path"], exc_info=error)
    return Unforeseen(identity)


def refused_by_litestar(error: HTTPException) -> CoordinatorError | None:
    """In our words what Litestar refused; None where it is no refusal."""
    kind = _FRAMEWORK.get(error.status_code)
    if kind is not None:
        return kind()
    if error.status_code < 500 or error.detail == _HUNG_UP:
        return InvalidParams()
    return None


def _answer(failure: FailureResponse) -> Response[dict[str, Any]]:
    return Response(failure.body, status_code=failure.status, headers=failure.headers)


def _on_refusal(
    request: Request[Any, Any, Any], error: CoordinatorError
) -> Response[dict[str, Any]]:
    return _answer(failure_response(error, request.scope))


def _on_litestar(request: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, Any]]:
    refusal = refused_by_litestar(error)
    if refusal is None:
        return _on_unforeseen(request, error)
    failure = failure_response(refusal, request.scope)
    for name, value in (error.headers or {}).items():
        if name.lower() == "allow":
            failure.headers["Allow"] = allow(value.split(", "))
    return _answer(failure)


def _on_unforeseen(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    return _answer(failure_response(unforeseen(error, request.scope), request.scope))


EXCEPTION_HANDLERS: Any = {
    CoordinatorError: _on_refusal,
    HTTPException: _on_litestar,
    Exception: _on_unforeseen,
}

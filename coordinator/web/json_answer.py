"""An answer in JSON as it goes out, a failure too: the same whichever way a request has come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from coordinator.domain.errors import CoordinatorError, Unavailable
from coordinator.web.errors import failure_response, unforeseen

Headers = Iterable[tuple[bytes, bytes]]
Outcome = tuple[int, Headers, bytes]
"""Status, headers and body."""

_JSON = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode


def success(answer: Any) -> Outcome:
    """What is answered where all went well."""
    content = _encode(answer)
    return 200, (_JSON, (b"content-length", b"%d" % len(content))), content


def failure(error: BaseException, scope: Any) -> Outcome:
    """A refusal in the shape of the API that was called; what nobody foresaw is logged.

    What was cancelled is 503: the node ends, and another one can be asked.
    """
    if isinstance(error, asyncio.CancelledError):
        error = Unavailable(retry_after=1)
    if not isinstance(error, CoordinatorError):
        error = unforeseen(error, scope)
    refused = failure_response(error, scope)
    content = _encode(refused.body)
    headers = [_JSON, (b"content-length", b"%d" % len(content))]
    headers += [(name.lower().encode(), value.encode()) for name, value in refused.headers.items()]
    return refused.status, headers, content


def answer_bytes(status: int, headers: Headers, body: bytes, *, keep_alive: bool) -> bytes:
    """A whole answer in HTTP/1.1, from its status line to its body."""
    lines = [STATUS_LINE[status]]
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    lines += (b"\r\n" if keep_alive else b"connection: close\r\n\r\n", body)
    return b"".join(lines)

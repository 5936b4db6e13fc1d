"""What the head of a request may be: how large, and what must stand in it (RFC 9112, 9110).

Sizes are counted as the bytes arrive: a head is refused when it has grown too large, not when it
has ended.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from coordinator.web.errors import is_open_api

MAX_HEAD_BYTES = 16 * 1024
MAX_HEADERS = 100
MAX_TARGET_BYTES = 8 * 1024

_ENCODED_SLASH = re.compile("%2f", re.IGNORECASE)
_SLASHES = re.compile("//+")
_FIRST_LINE = re.compile(rb"[\r\n]*[!-~]{1,100} ([!-~]+)")

_FOR_PUNCTUATION = 4
"""Bytes of a header line beside its name and its value: `: ` and CRLF."""


@dataclass(frozen=True, slots=True)
class RefusedHead:
    """Why a request is answered without being read, and its connection ended."""

    status: int
    message: str
    reason: str
    """Of the metric."""
    headers: bytes = b""
    """More of them, each with its CRLF."""

    def answer(self, target: bytes) -> bytes:
        """The whole answer, in the shape of the API that was called."""
        try:
            path, _ = target_parts(target)
        except httptools.HttpParserInvalidURLError:  # it was cut off, for example
            path = target.partition(b"?")[0].decode("latin-1")
        body = {
            "success": False,
            "error" if is_open_api(path) else "message": self.message,
            "code": {403: "FORBIDDEN", 404: "NOT_FOUND"}.get(self.status, "INVALID_PARAMS"),
        }
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        return _REFUSAL % (STATUS_LINE[self.status], self.headers, len(content)) + content


_REFUSAL = (
    b"%b%bcontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
)

def target_parts(target: bytes) -> tuple[str, str]:
    """Path and query of a request's target, also of `http://host/path` (RFC 9112, section 3.2.2).

    An encoded slash stays encoded: it is part of a segment, and ends none (RFC 3986, section 2.2).
    Several slashes are one, as they are to the router: many clients join `https://host/` and
    `/api/…`.

    Raises:
        httptools.HttpParserInvalidURLError
    """
    url = httptools.parse_url(target)
    path, query = (url.path or b"/").decode("latin-1"), (url.query or b"").decode("latin-1")
    return _SLASHES.sub("/", unquote(_ENCODED_SLASH.sub("%252F", path))), query


def keep_encoded_slashes(scope: Any, target: bytes) -> None:
    """In the path of an ASGI scope, which uvicorn has decoded."""
    if b"%2" in target:
        scope["path"], _ = target_parts(target)


MALFORMED = RefusedHead(400, "请求格式错误", "malformed")
TARGET_TOO_LONG = RefusedHead(414, "请求地址过长", "target")
HEAD_TOO_LARGE = RefusedHead(431, "请求头过大", "head")
NO_HOST = RefusedHead(400, "缺少Host请求头", "host")
TWO_HOSTS = RefusedHead(400, "Host请求头重复", "host")
FOREIGN_HOST = RefusedHead(403, "不支持的访问地址", "host")
NO_UPGRADE = RefusedHead(
    400, "WebSocket连接必须使用HTTP/1.1的GET请求，不带请求体，且此前的请求都已答复", "upgrade"
)
NO_HANDSHAKE = RefusedHead(
    400,
    "WebSocket握手无效：需要版本13和Sec-WebSocket-Key",
    "upgrade",
    b"sec-websocket-version: 13\r\n",
)
NO_PATH = RefusedHead(404, "资源不存在", "not_found")


class RequestHead:
    """Counts one head. What its methods answer with ends the connection; None = so far, so good."""

    __slots__ = ("_headers", "_host", "_hosts", "_parsed_bytes", "_raw_bytes", "_target_bytes")

    def __init__(self) -> None:
        self._parsed_bytes = self._raw_bytes = self._target_bytes = 0
        self._headers = self._hosts = 0
        self._host = b""

    @staticmethod
    def target_in(start: memoryview) -> bytes:
        """The target of a request whose first line the parser did not take: as far as it goes."""
        match = _FIRST_LINE.match(start)
        return match[1] if match else b""

    def add_target(self, size_bytes: int) -> RefusedHead | None:
        """What is too large by now."""
        self._target_bytes += size_bytes
        self._parsed_bytes += size_bytes
        return TARGET_TOO_LONG if self._target_bytes > MAX_TARGET_BYTES else None

    def add_header(self, name: bytes, value: bytes) -> RefusedHead | None:
        """What is too large by now; `name` in small letters."""
        self._headers += 1
        if name == b"host":
            self._hosts += 1
            self._host = value
        self._parsed_bytes += len(name) + len(value) + _FOR_PUNCTUATION
        if self._headers > MAX_HEADERS or self._parsed_bytes > MAX_HEAD_BYTES:
            return HEAD_TOO_LARGE
        return None

    def add_raw(self, size_bytes: int) -> None:
        """Bytes that belong to this head alone, and that no end of a header has followed yet."""
        self._raw_bytes += size_bytes

    def raw_over(self) -> RefusedHead | None:
        """What is too large by now, of a head whose end has not come."""
        return HEAD_TOO_LARGE if self._raw_bytes > MAX_HEAD_BYTES else None

    def whole(self, http_version: str) -> RefusedHead | None:
        """What is wrong with a head that has ended."""
        if self._hosts > 1:
            return TWO_HOSTS
        if not self._hosts and http_version == "1.1":
            return NO_HOST
        return None

    def foreign(self, own_names: frozenset[str]) -> RefusedHead | None:
        """The refusal of a `Host` that is not ours: a page whose DNS name now points to this
        machine (rebinding) sends its own name.

        A request without `Host` passes: browsers always send one, so it is no page's.
        """
        if not self._hosts:
            return None
        name = re.sub(r":[0-9]*$", "", self._host.decode("latin-1")).lower()
        return None if name in own_names else FOREIGN_HOST

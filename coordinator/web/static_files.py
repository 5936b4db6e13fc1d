"""Files of the package as they are served: compressed once, revalidated at each use."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litestar import Response

from coordinator.web.http_request import header

_TYPES = {
    "js": "text/javascript",
    "ts": "text/javascript",
    "css": "text/css",
    "svg": "image/svg+xml",
    "png": "image/png",
    "html": "text/html",
    "json": "application/json",
}

_ZERO = re.compile(r"0(\.0*)?")


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file, plain and compressed; `etag` names both."""

    media_type: str
    plain: bytes
    gzipped: bytes
    etag: str

    @classmethod
    def of(cls, name: str, plain: bytes) -> StaticFile:
        """The file of that name; the ending of the name says what it is."""
        etag = hashlib.sha256(plain).hexdigest()[:32]
        media_type = _TYPES[name.rpartition(".")[2]]
        return cls(media_type, plain, gzip.compress(plain, mtime=0), f'"{etag}"')

    def answer(self, scope: Any, headers: Mapping[str, str]) -> Response[bytes]:
        """The file, or 304 where the caller has it."""
        headers = {
            **headers,
            "Cache-Control": "no-cache",
            "ETag": self.etag,
            "Vary": "Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
        }
        if names(header(scope, b"if-none-match"), self.etag):
            return Response(b"", status_code=304, headers=headers)
        body = self.plain
        if takes_gzip(header(scope, b"accept-encoding") or ""):
            headers["Content-Encoding"] = "gzip"
            body = self.gzipped
        return Response(body, headers=headers, media_type=self.media_type)


def takes_gzip(accept_encoding: str) -> bool:
    """True where gzip is asked for; a weight of 0 says that it is not (RFC 9110, section 12.4.2).
    """
    for each in accept_encoding.lower().replace(" ", "").split(","):
        coding, _, weight = each.partition(";q=")
        if coding == "gzip":
            return _ZERO.fullmatch(weight) is None
    return False


def names(if_none_match: str | None, etag: str) -> bool:
    """True where `If-None-Match` names this file; a weak ETag counts: proxies weaken what they
    compress.
    """
    offered = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in offered or "*" in offered

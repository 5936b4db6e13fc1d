"""The JavaScript client, as every node serves it: `/client/room.js` and its types beside it.

Browsers import it from any origin; each use asks whether it is still the same (ETag), so that the
client is always of the node's own version.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from litestar import Request, Response, route
from litestar.exceptions import NotFoundException

from coordinator.web.http_request import header

_NAMES = ("room.js", "room.d.ts")


@dataclass(frozen=True, slots=True)
class ClientFile:
    """A file of the client, plain and compressed; `etag` names both."""

    plain: bytes
    gzipped: bytes
    etag: str

    @classmethod
    def read(cls, name: str) -> ClientFile:
        plain = (files("coordinator") / "client" / name).read_bytes()
        etag = hashlib.sha256(plain).hexdigest()[:32]
        return cls(plain, gzip.compress(plain, mtime=0), f'"{etag}"')


_FILES = {name: ClientFile.read(name) for name in _NAMES}


@route(
    "/client/{name:str}",
    http_method=["GET", "HEAD"],
    summary="The JavaScript client and its types",
    tags=["client"],
    include_in_schema=False,
)
async def client_file(request: Request[Any, Any, Any], name: str) -> Response[bytes]:
    """`room.js` or `room.d.ts`; 304 where the caller has it."""
    file = _FILES.get(name)
    if file is None:
        raise NotFoundException
    headers = {
        "Access-Control-Allow-Origin": "*",
        "Cache-Control": "no-cache",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "ETag": file.etag,
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    if _names(header(request.scope, b"if-none-match"), file.etag):
        return Response(b"", status_code=304, headers=headers)
    body = file.plain
    if "gzip" in (header(request.scope, b"accept-encoding") or ""):
        headers["Content-Encoding"] = "gzip"
        body = file.gzipped
    return Response(body, headers=headers, media_type="text/javascript; charset=utf-8")


def _names(if_none_match: str | None, etag: str) -> bool:
    """True where a list of ETags (weak ones too: proxies weaken what they compress) has this."""
    offered = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in offered or "*" in offered


HANDLERS: list[Any] = [client_file]

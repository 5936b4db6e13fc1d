"""The JavaScript client, as every node serves it: `/client/room.js` and its types beside it.

Browsers import it from any origin; each use asks whether it is still the same (ETag), so that the
client is always of the node's own version.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from litestar import Request, Response, route
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from coordinator.web.static_files import StaticFile

CLIENT_FILES = {
    name: StaticFile.of(name, (files("coordinator") / "client" / name).read_bytes())
    for name in ("room.js", "room.d.ts")
}


@route(
    "/client/{name:str}",
    http_method=["GET", "HEAD"],
    summary="The JavaScript client and its types",
    tags=["client"],
    include_in_schema=False,
)
async def client_file(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """`room.js` or `room.d.ts`; 304 where the caller has it."""
    file = CLIENT_FILES.get(name)
    if file is None:
        raise NotFoundException
    headers = {
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    return file.answer(request.scope, headers)


HANDLERS: list[Any] = [client_file]

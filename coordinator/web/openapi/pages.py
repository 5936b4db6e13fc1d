"""The documentation as pages: `/schema` (Swagger UI) and `/schema/live` (the websockets' protocol).

Swagger UI's files come from the package litestar-offline-docs and are served from here; what they
show are `/schema/openapi.json` and `/schema/asyncapi.json`. The live protocol's page is our own
script: AsyncAPI's web component compiles code from strings, which no policy of ours allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from litestar import HttpMethod, Request, Response, Router, route
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.params import FromPath

from coordinator.domain.errors import NotFound
from coordinator.web.console_pages import VERSION
from coordinator.web.static_files import StaticFile

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
"""Swagger UI writes styles into its elements; no script but the files named here may run."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
GET_AND_HEAD = [HttpMethod.GET, HttpMethod.HEAD]

_SCRIPTS = {
    "schema": '<script src="/schema/assets/swagger-ui-bundle.js"></script>\n'
    '<link rel="stylesheet" href="/schema/assets/swagger-ui.css">\n',
    "protocol": "",
}
"""What a page loads beside its own script."""

_SWAGGER = ("swagger-ui-bundle.js", "swagger-ui.css")


@cache
def _swagger_file(name: str) -> StaticFile:
    """Read and compressed at its first use: the script has three megabytes."""
    return StaticFile.of(name, (files("litestar_offline_docs") / "static" / name).read_bytes())


@cache
def _page(name: str) -> StaticFile:
    text = (files("coordinator") / "console" / "schema.html").read_text(encoding="utf-8")
    html = (
        text.replace("{version}", VERSION)
        .replace("{script}", _SCRIPTS[name])
        .replace("{page}", name)
    )
    return StaticFile.of("page.html", html.encode())


class Swagger(OpenAPIRenderPlugin):
    """Litestar's own way to `/schema`, where it mounts whatever shows its document."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return _page("schema").plain


@route("/", http_method=[HttpMethod.HEAD])
async def schema_head(request: Request[Any, Any, Any]) -> Response[bytes]:
    """What GET would answer, which `Swagger` does, without the page."""
    return _page("schema").answer(request.scope, HEADERS)


@route("/assets/{name:str}", http_method=GET_AND_HEAD)
async def swagger_file(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """A file of Swagger UI."""
    if name not in _SWAGGER:
        raise NotFound
    return _swagger_file(name).answer(request.scope, HEADERS)


@route("/live", http_method=GET_AND_HEAD)
async def live_protocol(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The frames of the websockets, to read."""
    return _page("protocol").answer(request.scope, HEADERS)


async def _without_a_404_of_its_own(response: Response[Any]) -> Response[Any]:
    """Litestar has a page of its own for what it does not find here; ours is the API's answer.

    Raises:
        NotFound
    """
    if response.status_code == 404:
        raise NotFound
    return response


def router(guards: Sequence[Any]) -> Router:
    """Where Litestar mounts its document, with these pages around it."""
    return Router(
        "/schema",
        route_handlers=[schema_head, swagger_file, live_protocol],
        include_in_schema=False,
        guards=guards,
        after_request=_without_a_404_of_its_own,
        response_headers=HEADERS | {"X-Content-Type-Options": "nosniff"},
    )

"""The pages for people: `/`, `/console…`, `/join/…`, their scripts and styles, invitations' codes.

The files are those of `coordinator/console/`, served as they are; a page is one template with the
name of its script in it. Nothing is loaded from elsewhere, and the policy of the pages allows
nothing that these files do not do.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any
from urllib.parse import quote

import segno
from litestar import HttpMethod, Request, Response, get, route
from litestar.di import NamedDependency
from litestar.params import FromPath

from coordinator.domain.errors import NotFound
from coordinator.domain.ids import is_room_id
from coordinator.web.client_files import CLIENT_FILES
from coordinator.web.http_request import header
from coordinator.web.static_files import StaticFile

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": POLICY + "; require-trusted-types-for 'script'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
ASSET_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
PAGES = ("home", "rooms", "room", "interviews", "interview", "deployment", "join")
GET_AND_HEAD = [HttpMethod.GET, HttpMethod.HEAD]

QR_BORDER, QR_SCALE = 2, 8


def _read(folder: Traversable, before: str = "") -> dict[str, StaticFile]:
    found: dict[str, StaticFile] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            found |= _read(entry, f"{before}{entry.name}/")
        elif not entry.name.endswith(".html"):
            found[before + entry.name] = StaticFile.of(entry.name, entry.read_bytes())
    return found


ASSETS = _read(files("coordinator") / "console")
"""By their path below `/console/assets/`."""

_TEMPLATE = (files("coordinator") / "console" / "page.html").read_text(encoding="utf-8")
_SCHEMA_TEMPLATE = (files("coordinator") / "console" / "schema.html").read_text(encoding="utf-8")


def _version() -> str:
    """Another one where any file is another: open pages then say that they want to be reloaded."""
    digest = hashlib.sha256((_TEMPLATE + _SCHEMA_TEMPLATE).encode())
    for _, file in sorted([*ASSETS.items(), *CLIENT_FILES.items()]):
        digest.update(file.plain)
    return digest.hexdigest()[:16]


VERSION = _version()


@dataclass(frozen=True, slots=True)
class ConsolePages:
    """The pages of this deployment.

    Attributes:
        base_url: where people reach it; "" = wherever the page itself came from.
        has_wechat: whether the mini-program can confirm a sign-in.
        has_codes: whether WeChat can be asked for codes of the mini-program.
    """

    base_url: str
    has_wechat: bool
    has_codes: bool
    _pages: dict[str, StaticFile] = field(default_factory=dict)

    def page(self, name: str) -> StaticFile:
        """One of `PAGES`."""
        if name not in self._pages:
            html = (
                _TEMPLATE.replace("{version}", VERSION)
                .replace("{wechat}", "yes" if self.has_wechat else "no")
                .replace("{codes}", "yes" if self.has_codes else "no")
                .replace("{base}", escape(self.base_url))
                .replace("{page}", name)
            )
            self._pages[name] = StaticFile.of("page.html", html.encode())
        return self._pages[name]


def _page(name: str, *paths: str) -> Any:
    @route(list(paths), http_method=GET_AND_HEAD, include_in_schema=False, name=f"page {name}")
    async def page(
        request: Request[Any, Any, Any], console_pages: NamedDependency[ConsolePages]
    ) -> Response[bytes]:
        return console_pages.page(name).answer(request.scope, PAGE_HEADERS)

    return page


@route("/console/assets/{path:path}", http_method=GET_AND_HEAD, include_in_schema=False)
async def asset(request: Request[Any, Any, Any], path: FromPath[str]) -> Response[bytes]:
    """A script, a style or a picture of the pages."""
    file = ASSETS.get(str(path).lstrip("/"))
    if file is None:
        raise NotFound
    return file.answer(request.scope, ASSET_HEADERS)


@get("/console/version", include_in_schema=False, response_headers={"Cache-Control": "no-store"})
async def version() -> dict[str, str]:
    """Which pages this node serves: an open page of another version wants to be reloaded."""
    return {"version": VERSION}


@route("/join/{room_id:str}/qr.svg", http_method=GET_AND_HEAD, include_in_schema=False)
async def invitation_code(
    request: Request[Any, Any, Any],
    room_id: FromPath[str],
    console_pages: NamedDependency[ConsolePages],
) -> Response[bytes]:
    """The invitation link of a room as a picture."""
    if not is_room_id(room_id):
        raise NotFound
    base = console_pages.base_url or _origin(request.scope)
    picture = qr_svg(f"{base}/join/{quote(room_id)}")
    return StaticFile.of("qr.svg", picture).answer(request.scope, ASSET_HEADERS)


def qr_svg(text: str) -> bytes:
    """A QR code as an SVG of its own colours, whatever the page around it looks like."""
    svg = io.BytesIO()
    segno.make(text, error="m", micro=False).save(
        svg, kind="svg", scale=QR_SCALE, border=QR_BORDER, dark="#000", light="#fff", xmldecl=False,
        nl=False,
    )  # fmt: skip
    return svg.getvalue()


def _origin(scope: Any) -> str:
    return f"{scope['scheme']}://{header(scope, b'host') or 'localhost'}"


HANDLERS: list[Any] = [
    _page("home", "/"),
    _page("rooms", "/console"),
    _page("room", "/console/rooms/{room_id:str}"),
    _page("interviews", "/console/interviews"),
    _page("interview", "/console/interviews/{interview_id:str}"),
    _page("deployment", "/console/deployment"),
    _page("join", "/join/{room_id:str}"),
    asset,
    version,
    invitation_code,
]

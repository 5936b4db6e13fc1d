"""A page that stands in for the mini-program where WeChat's server is stood in for, too.

The codes of the stand-in lead here. A room's code goes on to the page where a browser joins that
room; a code of the console's sign-in is confirmed here, as the mini-program would do it, over the
documented calls alone. Production has no such page.
"""

from __future__ import annotations

import secrets
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from litestar import Request, Response, get
from litestar.response import Redirect

PATH = "/dev/mini-program"

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def is_wanted(wx_api_base: str) -> bool:
    """True where WeChat is played by something on this machine."""
    return urlsplit(wx_api_base).hostname in ("127.0.0.1", "localhost", "::1")


def routes() -> list[Any]:
    """The handler."""
    page = (files("coordinator.standins") / "mini_program.html").read_text(encoding="utf-8")

    @get(PATH, media_type="text/html", summary="小程序替身", include_in_schema=False)
    async def mini_program(request: Request[Any, Any, Any]) -> Response[Any]:
        scene = parse_qs(request.query_params.get("scene", "").lstrip("?"))
        if rooms := scene.get("roomId"):
            return Redirect(f"/join/{quote(rooms[0], safe='')}", status_code=302, headers=_HEADERS)
        # Nothing but this very script may run: what the page shows comes from other people.
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}';"
            " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return Response(
            page.replace("{nonce}", nonce),
            media_type="text/html",
            headers={**_HEADERS, "Content-Security-Policy": policy},
        )

    return [mini_program]

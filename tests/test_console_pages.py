"""The pages for people, as they are served: policy, versions, files, invitations' codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import coordinator
from tests.harness.node import Deployment
from tests.harness.people import Api, refusal

CONSOLE = Path(coordinator.__file__).parent / "console"
PATHS = [
    "/", "/console", "/console/", "/console/rooms/room_1", "/console/interviews",
    "/console/interviews/c123", "/console/deployment", "/join/room_1",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_a_page_may_load_and_do_nothing_that_is_not_its_own(a: Api, path: str) -> None:
    page = await a.get(path)

    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.split(" ", 1) for part in
                  page.headers["content-security-policy"].split("; "))  # fmt: skip
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' data:"
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert not re.search(r"<script[^>]*>[^<]|<style| on\w+=|style=", page.text)
    assert not re.search(r"(?:src|href)=\"(?!/console/assets/)", page.text)


@pytest.mark.parametrize("path", PATHS)
async def test_a_page_is_there_for_head_too_and_is_revalidated(a: Api, path: str) -> None:
    head = await a.http.head(path)
    assert (head.status_code, head.content) == (200, b"")

    again = await a.http.get(path, headers={"If-None-Match": head.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")


async def test_every_file_that_a_script_imports_is_served(a: Api) -> None:
    for file in CONSOLE.rglob("*.js"):
        path = file.relative_to(CONSOLE).as_posix()
        served = await a.get(f"/console/assets/{path}")
        assert served.content == file.read_bytes()
        assert served.headers["content-type"].startswith("text/javascript")
        for imported in re.findall(r'from "([^"]+)"', served.text):
            target = imported if imported.startswith("/") else served.url.join(imported).path
            assert (await a.get(target)).status_code == 200, f"{path} imports {imported}"


def test_no_script_makes_markup_of_text() -> None:
    for file in CONSOLE.rglob("*.js"):
        text = file.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


async def test_what_is_no_file_of_the_pages_is_not_found(a: Api) -> None:
    for path in ("nothing.js", "../page.html", "page.html", "lib", "..%2fpage.html"):
        assert refusal(await a.get(f"/console/assets/{path}"))[0] == 404, path


@pytest.mark.parametrize("path", ["/", "/console", "/join/room_1", "/schema", "/schema/live"])
async def test_a_page_names_the_version_that_the_node_serves(a: Api, path: str) -> None:
    version = (await a.get("/console/version")).json()["version"]

    assert f'name="coordinator-version" content="{version}"' in (await a.get(path)).text


async def test_the_code_of_an_invitation_is_a_picture_of_its_link(a: Api) -> None:
    picture = await a.get("/join/room_1/qr.svg")

    assert picture.headers["content-type"] == "image/svg+xml"
    assert picture.text.startswith("<svg")
    assert picture.content != (await a.get("/join/room_2/qr.svg")).content
    assert refusal(await a.get("/join/<script>/qr.svg")) == (404, "NOT_FOUND")


async def test_the_public_address_is_the_one_of_invitations(deployment: Deployment) -> None:
    api = Api(deployment.node(PUBLIC_BASE_URL="https://rooms.example.com"))
    page = await api.get("/console")
    await api.aclose()

    assert 'name="coordinator-base" content="https://rooms.example.com"' in page.text
    assert 'name="coordinator-wechat" content="no"' in page.text

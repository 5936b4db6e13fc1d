"""The JavaScript client as nodes serve it, and as the package ships it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest

from tests.harness.patience import patient
from tests.harness.people import Api

CLIENT = files("coordinator") / "client"
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["room.js", "room.d.ts"])
async def test_a_file_of_the_client_is_served_as_it_is(a: Api, name: str) -> None:
    answer = await a.http.get(f"/client/{name}", headers={"Origin": "https://elsewhere.example"})

    assert answer.status_code == 200
    assert answer.content == (CLIENT / name).read_bytes()
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    ("asked", "coding"),
    [("gzip", "gzip"), ("br, GZIP;q=0.1", "gzip"), ("gzip; q=0", None), ("gzip;q=0.000", None),
     ("identity", None), ("", None)],
)  # fmt: skip
async def test_it_is_compressed_for_who_asks_for_it(
    a: Api, asked: str, coding: str | None
) -> None:
    answer = await a.http.get("/client/room.js", headers={"Accept-Encoding": asked})

    assert answer.headers.get("content-encoding") == coding
    assert answer.content == (CLIENT / "room.js").read_bytes()


async def test_a_client_that_is_still_the_same_is_not_sent_again(a: Api, b: Api) -> None:
    etag = (await a.get("/client/room.js")).headers["etag"]

    again = await b.http.get("/client/room.js", headers={"If-None-Match": f'"other", W/{etag}'})
    other = await b.http.get("/client/room.js", headers={"If-None-Match": '"other"'})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == etag
    assert other.status_code == 200


async def test_nothing_else_of_the_folder_is_served(a: Api) -> None:
    for name in ("package.json", "..%2Fsettings.py", "room.css"):
        answer = await a.get(f"/client/{name}")
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


async def test_head_tells_the_same_headers(a: Api) -> None:
    answer = await a.http.head("/client/room.js")

    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["etag"]


def test_the_client_bears_the_version_of_the_package() -> None:
    package = json.loads((CLIENT / "package.json").read_text())

    assert package["name"] == "coordinator-client"
    assert package["type"] == "module"
    assert package["version"] == version("coordinator")


def test_the_wheel_has_the_client(tmp_path: Path) -> None:
    sources = tmp_path / "sources"  # a build leaves things behind
    sources.mkdir()
    for name in ("coordinator", "piccolo_migrations"):
        shutil.copytree(ROOT / name, sources / name)
    for name in ("pyproject.toml", "README.md", "LICENSE", "piccolo_conf.py"):
        shutil.copy(ROOT / name, sources)

    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(tmp_path), str(sources)],
        check=True, timeout=patient(80), cwd=tmp_path,
    )  # fmt: skip

    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()

    for name in ("room.js", "room.d.ts", "package.json", "README.md"):
        assert f"coordinator/client/{name}" in names

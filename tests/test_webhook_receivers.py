"""The receivers of `docs/webhooks.md`, as they are printed there, told by a real node."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from coordinator.store.database import Database
from tests.harness.databases import own_database
from tests.harness.node import Deployment, data
from tests.harness.node_runtime import NODE, needs_node
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host, bearer
from tests.harness.ports import free_port
from tests.harness.receiver import SETTINGS

PAGE = (Path(__file__).parent.parent / "docs" / "webhooks.md").read_text(encoding="utf-8")


def printed(language: str) -> str:
    """The page's program of that language."""
    (program,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(program)


def commands(folder: Path, port: int) -> dict[str, list[str]]:
    """How each program is started."""
    (folder / "receiver.py").write_text(printed("python"), encoding="utf-8")
    (folder / "receiver.js").write_text(printed("js"), encoding="utf-8")
    uvicorn = ["-m", "uvicorn", "receiver:app", "--port", str(port), "--log-level", "warning"]
    return {"python": [sys.executable, *uvicorn], "js": [str(NODE), "receiver.js"]}


class Program:
    """A receiver that runs, and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def prints(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(patient(30)):
            return (await self.process.stdout.readline()).decode().strip()


@pytest_asyncio.fixture(scope="module")
async def database() -> AsyncIterator[Database]:
    """Of this file's own: nodes that have another key would take the webhook, and not read it."""
    async with own_database("receivers") as opened:
        yield opened


@pytest_asyncio.fixture
async def api(database: Database, redis_url: str) -> AsyncIterator[Api]:
    with Deployment(database.url, redis_url, **SETTINGS) as sending:
        opened = Api(sending.node())
        yield opened
        await opened.aclose()


async def _listens(url: str) -> None:
    async with asyncio.timeout(patient(30)), httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                await http.post(url, content=b"{}")
            except httpx.TransportError:
                await asyncio.sleep(0.1)
            else:
                return


@pytest.mark.parametrize("language", ["python", pytest.param("js", marks=needs_node)])
async def test_a_printed_receiver_verifies_and_hears_each_event(
    language: str, tmp_path: Path, database: Database, api: Api
) -> None:
    admin, host = await Host.hired(database, api, "admin"), await Host.hired(database, api)
    port = free_port()
    url = f"http://127.0.0.1:{port}/hooks"
    added = data(
        await api.http.post("/api/webhooks", json={"url": url}, headers=bearer(admin.token))
    )
    process = await asyncio.create_subprocess_exec(
        *commands(tmp_path, port)[language], cwd=tmp_path, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PORT": str(port), "WEBHOOK_SECRET": added["secret"]},
    )  # fmt: skip
    program = Program(process)
    try:
        await _listens(url)
        room = await host.creates()
        await Guest(api).joins(room)

        assert await program.prints() == f"room_created {room} 1"
        assert await program.prints() == f"participant_joined {room} 2"
        unsigned = await api.http.post(url, json={"type": "room_ended", "data": {}})
        assert unsigned.status_code >= 400
    finally:
        process.kill()
        await process.wait()
        await api.http.delete(f"/api/webhooks/{added['id']}", headers=bearer(admin.token))

"""Clients of HTTP/1.0 get what they know: an answer with its length, and no interim ones."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Sequence

import pytest
from litestar import Litestar, get
from litestar.response import Stream

from coordinator.domain.errors import Unavailable
from coordinator.domain.job import Enterprise, Job
from coordinator.store.database import Database
from coordinator.store.jobs import write_jobs
from coordinator.web.whole_answers import WholeForHttp10
from tests.harness.http_server import serving
from tests.harness.patience import patient
from tests.harness.people import Api, Host


@get("/long")
async def long() -> Stream:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"a": ', b"1", b"}"):
            yield piece

    return Stream(pieces(), media_type="application/json")


@get("/broken")
async def broken() -> Stream:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"a": '
        raise Unavailable(retry_after=1)

    return Stream(pieces(), media_type="application/json")


@get("/empty", status_code=204)
async def empty() -> None:
    """Has no body, and so no length of one."""


APP = WholeForHttp10(Litestar([long, broken, empty], openapi_config=None, logging_config=None))


async def test_a_node_tells_a_large_page_so(a: Api, admin: Host, database: Database) -> None:
    """The page of jobs is sent a portion at a time."""
    owner = Enterprise(secrets.token_hex(8), "large")
    jobs = [
        Job(id=f"{owner.id}_{n}", title="x", enterprise=owner, description="y" * 200_000)
        for n in range(3)
    ]
    async with database.transaction() as connection:
        await write_jobs(connection, jobs)
    head, body = await asked(
        a.node.port,
        ["GET /api/open/jobs?pageSize=3 HTTP/1.0", f"Authorization: Bearer {admin.token}"],
    )

    assert len(json.loads(body)["data"]["list"]) == 3
    assert f"content-length: {len(body)}" in head


async def told(request: Sequence[str]) -> tuple[list[str], bytes]:
    """The lines of the head of what is answered, and all that comes after it."""
    async with serving(behind=APP) as (port, _, _):
        return await asked(port, request)


async def asked(port: int, request: Sequence[str]) -> tuple[list[str], bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("".join(f"{line}\r\n" for line in (*request, "")).encode())
    async with asyncio.timeout(patient(5)):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head.decode().lower().split("\r\n"), body


async def test_what_is_sent_by_and_by_has_its_length() -> None:
    head, body = await told(["GET /long HTTP/1.0"])

    assert json.loads(body) == {"a": 1}
    assert "content-length: 8" in head
    assert not any(line.startswith("transfer-encoding") for line in head)


async def test_others_get_it_in_chunks() -> None:
    head, body = await told(["GET /long HTTP/1.1", "Host: x", "Connection: close"])

    assert "transfer-encoding: chunked" in head
    assert body.endswith(b"0\r\n\r\n")


async def test_what_breaks_on_the_way_is_a_failure_in_the_apis_words() -> None:
    head, body = await told(["GET /broken HTTP/1.0"])

    assert head[0].startswith("http/1.1 503")
    assert "retry-after: 1" in head
    assert json.loads(body)["code"] == "SERVICE_UNAVAILABLE"


async def test_an_answer_without_a_body_stays_so() -> None:
    head, body = await told(["GET /empty HTTP/1.0"])

    assert (head[0], body) == ("http/1.1 204 no content", b"")
    assert not any(line.startswith("content-length") for line in head)


@pytest.mark.parametrize("path", ["/hot", "/prompt"])
async def test_nobody_says_continue_to_them(path: str) -> None:
    head, _ = await told([f"POST {path} HTTP/1.0", "Expect: 100-continue", "Content-Length: 0"])

    assert head[0] == "http/1.1 200 ok"

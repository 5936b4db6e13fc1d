"""Requests without a task: they are answered as all others, whatever comes beside them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any

import pytest

from coordinator.web import http_protocol
from coordinator.web.bodies import MAX_BODY_BYTES
from tests.harness.http_server import CLOSE, answered, get, serving
from tests.harness.patience import patient

PROMPT = "/prompt without a task"


def post(body: bytes, more: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"POST /prompt HTTP/%b\r\nhost: x\r\ncontent-length: %d\r\n%b\r\n%b" % (
        version, len(body), more, body,
    )  # fmt: skip


def paths(bodies: list[dict[str, Any]]) -> list[str]:
    """What each answer names: the path that was asked, or the code of a refusal."""
    return [str(body.get("path", body.get("code"))) for body in bodies]


async def test_it_is_answered_and_the_connection_is_used_again() -> None:
    async with serving() as (port, state, _):
        bodies = await answered(port, post(b"0") + post(b"0.01") + post(b"0", CLOSE))
    assert [body["size"] for body in bodies] == [1, 4, 1]
    assert bodies[0]["path"] == PROMPT
    assert not state.tasks
    assert state.total_requests == 3


async def test_pipelined_requests_of_both_kinds_are_answered_in_order() -> None:
    requests = [post(b"0.05"), get(1), post(b"0"), get(2, query=b"?0.05"), post(b"0.01")]
    async with serving() as (port, _, _):
        bodies = await answered(port, b"".join(requests * 40) + get(9, CLOSE))
    first = [PROMPT, "/hot/1", "/prompt", "/hot/2", "/prompt"]  # behind another: with a task
    assert paths(bodies[:5]) == first
    kinds = ["prompt", "hot/1", "prompt", "hot/2", "prompt"] * 40
    assert [path[1:].split()[0] for path in paths(bodies)] == [*kinds, "hot/9"]


SPECIAL = {
    "HTTP/1.0": post(b"0", version=b"1.0"),
    "another protocol": post(b"0", b"connection: upgrade\r\nupgrade: h2c\r\n"),
    "chunks": b"POST /prompt HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
    + CLOSE + b"\r\n1\r\n0\r\n0\r\n\r\n",
    "a query": post(b"0", CLOSE).replace(b"/prompt", b"/prompt?0"),
}  # fmt: skip


@pytest.mark.parametrize("request_bytes", SPECIAL.values(), ids=SPECIAL.keys())
async def test_what_is_special_goes_the_way_of_all_others(request_bytes: bytes) -> None:
    async with serving() as (port, _, _):
        assert paths(await answered(port, request_bytes)) == ["/prompt"]


async def test_who_waits_to_be_told_to_go_on_is_told_so() -> None:
    async with serving() as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head, body = post(b"0", b"expect: 100-continue\r\n" + CLOSE)[:-1], b"0"
        writer.write(head)
        async with asyncio.timeout(patient(5)):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert b'"/prompt"' in await reader.read()
        writer.close()


async def test_a_body_too_long_is_413() -> None:
    async with serving() as (port, _, _):
        bodies = await answered(port, post(b"0" * (MAX_BODY_BYTES + 1), CLOSE))
    assert paths(bodies) == ["PAYLOAD_TOO_LARGE"]


async def test_what_nobody_foresaw_is_told_with_an_id() -> None:
    async with serving() as (port, _, _):
        failed, after = await answered(port, post(b"no number") + post(b"0", CLOSE))
    assert failed["code"] == "INTERNAL_ERROR"
    assert failed["requestId"]
    assert after["size"] == 1


async def test_the_answer_comes_before_the_refusal_of_what_follows() -> None:
    async with serving() as (port, _, _):
        slow, bad = await answered(port, post(b"0.1") + b"nonsense\r\n\r\n")
    assert slow["path"] == PROMPT
    assert bad["code"] == "INVALID_PARAMS"


@pytest.mark.parametrize("seen", [post(b"0.2"), post(b"0.2")[:-2]], ids=["waiting", "half a body"])
async def test_who_hangs_up_is_forgotten(seen: bytes) -> None:
    async with serving() as (port, state, protocols):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(seen)
        await asyncio.sleep(0.05)
        writer.transport.abort()
        async with asyncio.timeout(patient(5)):
            while protocols or state.connections:
                await asyncio.sleep(0.05)
                gc.collect()


async def test_a_body_that_drips_in_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "REQUEST_SECONDS", 0.6)
    async with serving() as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /prompt HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(200):
            writer.write(b"0")
            await asyncio.sleep(0.05)
            if reader.at_eof():
                break
        with contextlib.suppress(ConnectionResetError):  # of what came after
            assert await reader.read() == b""
        writer.close()


async def test_an_answer_however_late_comes_on_a_connection_that_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_protocol, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(http_protocol, "IDLE_SECONDS", 1.0)
    async with serving() as (port, _, _):
        bodies = await answered(port, post(b"1.5") + get(1, CLOSE), silence=10)
    assert paths(bodies) == [PROMPT, "/hot/1"]

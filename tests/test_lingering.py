"""An answer that ends its connection reaches a client that is still sending."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator

import pytest

from tests.harness.http_server import serving
from tests.harness.node import Deployment
from tests.harness.patience import patient
from tests.harness.people import Api

LARGE = 20_000_000


def chunked(size_bytes: int) -> Iterator[bytes]:
    for _ in range(size_bytes // 50_000):
        yield b"c350\r\n" + b"x" * 50_000 + b"\r\n"
    yield b"0\r\n\r\n"


def plain(size_bytes: int) -> Iterator[bytes]:
    return (b"x" * 50_000 for _ in range(size_bytes // 50_000))


def sends_all_then_reads(port: int, head: bytes, body: Iterator[bytes]) -> bytes:
    """The answer that a client gets which looks for none before it has said everything.

    Raises:
        OSError: it was cut off.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=30) as there:
        there.sendall(head)
        for part in body:
            there.sendall(part)
        answer = b""
        while part := there.recv(65536):
            answer += part
        return answer


ANSWERED = {
    "a fast path": ("/api/interview/guest/join", 413),
    "Litestar's way": ("/api/interview/guest/leave", 413),
    "before the body is looked at": ("/api/interview/create-room", 401),
}


async def asks_again(port: int, head: bytes, body: Iterator[bytes]) -> tuple[bytes, bytes]:
    """The status lines of two answers on one connection: that of a request with this body, which is
    sent before anything is read, and that of another one.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    for part in body:
        writer.write(part)
        await writer.drain()
    first = await reader.readuntil(b"\r\n\r\n")
    size = int(first.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    await reader.readexactly(size)
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    second = await reader.read()
    writer.close()
    return first.split(b"\r\n")[0], second.split(b"\r\n")[0]


@pytest.mark.parametrize(("path", "status"), ANSWERED.values(), ids=ANSWERED.keys())
async def test_who_sends_too_much_and_keeps_its_connection_may_go_on(
    a: Api, path: str, status: int
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n".encode()

    first, second = await asks_again(a.node.port, head, plain(LARGE))

    assert first.startswith(b"HTTP/1.1 %d " % status)
    assert second == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize(("path", "status"), ANSWERED.values(), ids=ANSWERED.keys())
@pytest.mark.parametrize("is_chunked", [True, False], ids=["chunked", "of a told length"])
async def test_who_sends_too_much_on_its_last_request_reads_why(
    a: Api, path: str, status: int, is_chunked: bool
) -> None:
    """As Python's urllib does it, and proxies that do not keep their connections."""
    told = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {LARGE}"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{told}\r\n\r\n".encode()
    body = chunked(LARGE) if is_chunked else plain(LARGE)

    answer = await asyncio.to_thread(sends_all_then_reads, a.node.port, head, body)

    told_head, _, content = answer.partition(b"\r\n\r\n")
    assert told_head.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in told_head
    assert json.loads(content)["success"] is False


async def test_who_speaks_http_1_0_and_sends_too_much_reads_why() -> None:
    async with serving() as (port, _, protocols):
        head = f"POST /hot HTTP/1.0\r\nContent-Length: {LARGE}\r\n\r\n".encode()

        answer = await asyncio.to_thread(sends_all_then_reads, port, head, plain(LARGE))

        assert answer.startswith(b"HTTP/1.1 413 ")
        await asyncio.sleep(0.1)
        assert not protocols, "each is gone without the garbage collector"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_who_goes_on_sending_does_not_keep_a_node_from_ending(
    deployment: Deployment, version: str
) -> None:
    node = await asyncio.to_thread(deployment.node, DRAIN_SECONDS="0")
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    head = f"POST /api/interview/guest/leave HTTP/{version}\r\nHost: x\r\n"
    writer.write(f"{head}Content-Length: 99999999\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")

    assert await asyncio.to_thread(node.stop) == 0

    assert "shutdown exceeded" not in node.logs()  # uvicorn's patience, which is an error
    writer.close()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_who_goes_on_sending_is_hung_up_on(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """Also where its connection was to be kept."""
    monkeypatch.setattr("coordinator.web.http_protocol.REQUEST_SECONDS", 0.3)
    async with serving() as (port, state, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /hot HTTP/{version}\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
        writer.write(head.encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")

        async with asyncio.timeout(patient(5)):
            while state.connections:
                writer.write(b"x" * 1000)
                await asyncio.sleep(0.02)

        writer.close()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_who_sends_far_too_much_hears_that_nobody_listens(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """And has a moment to read the answer, whatever it still sends."""
    monkeypatch.setattr("coordinator.web.http_parsing.MOST_UNWANTED_BYTES", 1_000_000)
    async with serving() as (port, state, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /hot HTTP/{version}\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
        writer.write(head.encode())
        for part in plain(2_000_000):
            writer.write(part)
        answer = await asyncio.wait_for(reader.read(), patient(3))
        assert answer.startswith(b"HTTP/1.1 413 ")

        async with asyncio.timeout(patient(5)):
            while state.connections:
                writer.write(b"x" * 1000)
                await asyncio.sleep(0.02)
        writer.close()

"""HTTP connections on which nothing happens, or too little."""

from __future__ import annotations

import asyncio
import socket

import pytest

from coordinator.web import http_protocol
from tests.harness.http_server import CLOSE, ends, get, serving
from tests.harness.patience import long_enough, patient

HEAD = b"GET /hot/1 HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines that a test can wait for."""
    monkeypatch.setattr(http_protocol, "REQUEST_SECONDS", 0.6)
    monkeypatch.setattr(http_protocol, "IDLE_SECONDS", 1.0)
    monkeypatch.setattr(http_protocol, "UNREAD_SECONDS", 0.8)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("drip", [b"", b"\r\n", b"\n"], ids=["nothing", "CRLF", "LF"])
async def test_an_idle_connection_ends_whatever_it_drips(drip: bytes) -> None:
    async with serving() as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get(1))
        await reader.readuntil(b"}")
        dripping = asyncio.create_task(_drip(writer, drip))
        assert await ends(reader, 5) < 4
        dripping.cancel()
        writer.close()


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("start", "drip"),
    [
        (b"", b"\r\n"),
        (b"GET /hot/1 HTT", b""),
        (HEAD, b"x: y\r\n"),
        (b"POST /hot HTTP/1.1\r\nhost: x\r\ncontent-length: 10000\r\n\r\n", b"z"),
        (b"POST /hot HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nz\r\n"),
    ],
    ids=["CRLF", "half a line", "headers", "a body", "chunks"],
)
async def test_a_request_that_drips_in_is_not_waited_for(start: bytes, drip: bytes) -> None:
    async with serving() as (port, state, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(start)
        dripping = asyncio.create_task(_drip(writer, drip))
        assert await ends(reader, 5) < 4
        dripping.cancel()
        writer.close()
        assert not state.tasks


async def _drip(writer: asyncio.StreamWriter, drip: bytes) -> None:
    while True:
        writer.write(drip)
        await asyncio.sleep(0.05)


async def test_a_connection_in_use_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = long_enough(0.75)
    monkeypatch.setattr(http_protocol, "REQUEST_SECONDS", idle / 2)
    monkeypatch.setattr(http_protocol, "IDLE_SECONDS", idle)
    async with serving() as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(4):
            writer.write(get(1))
            await reader.readuntil(b"}")
            await asyncio.sleep(idle / 3)
        late = b"?%.2f" % (idle * 1.5)  # however long an endpoint takes
        writer.write(get(2, query=late, more=CLOSE))
        assert b"/hot/2" in await reader.read()
        writer.close()


@pytest.mark.usefixtures("short")
async def test_a_client_that_reads_no_answers_is_hung_up_on() -> None:
    async with serving() as (port, state, _):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        request = (b"GET /hot/" + b"x" * 4000 + b" HTTP/1.1\r\nhost: x\r\n\r\n") * 50
        async with asyncio.timeout(patient(40)):
            while state.connections or not state.total_requests:
                try:
                    sock.send(request)
                except BlockingIOError:
                    pass
                except (ConnectionResetError, BrokenPipeError):
                    break
                await asyncio.sleep(0.02)
        sock.close()

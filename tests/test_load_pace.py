"""How the load tests keep a pace."""

from __future__ import annotations

import asyncio
import contextlib

from loadtest.http import Drive
from tests.harness.http_lines import Lines
from tests.harness.wire import Address

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


async def test_at_an_even_pace_the_lines_take_turns() -> None:
    """A server may hang up on a connection that is never used; ours does after 10 s."""
    asked: dict[asyncio.StreamWriter, int] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked[writer] = 0
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(REQUEST):
                asked[writer] += 1
                writer.write(ANSWER)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        lines = Lines([Address(*server.sockets[0].getsockname())])
        idle = await lines.grow(4)
        driven = await Drive(lambda _: REQUEST).open(idle, per_second=100, seconds=0.2)
        lines.close()

    assert driven.done == 20
    assert len(asked) == 4
    assert all(asked.values())

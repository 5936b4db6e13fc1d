"""A websocket as bytes, for clients that do harm."""

from __future__ import annotations

import asyncio
import socket

from tests.harness.node import NodeProcess
from tests.harness.wire import upgrade

RawSocket = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def raw_socket(node: NodeProcess, room: str, token: str | None) -> RawSocket:
    """A websocket as bytes, upgraded; with a small receive buffer."""
    reader, writer = await asks_for_upgrade(node, room, token)
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def asks_for_upgrade(node: NodeProcess, room: str, token: str | None) -> RawSocket:
    """The same, before the node has answered."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", node.port))
    reader, writer = await asyncio.open_connection(sock=small)
    headers = () if token is None else (f"Authorization: Bearer {token}",)
    path = f"/api/interview/room/{room}/live"
    writer.write(upgrade(f"127.0.0.1:{node.port}", path, headers))
    return reader, writer


async def has_ended(reader: asyncio.StreamReader, *, within: float) -> bool:
    """True where the other side has hung up."""
    try:
        async with asyncio.timeout(within):
            return await reader.read(100) == b""
    except TimeoutError:
        return False
    except OSError:
        return True

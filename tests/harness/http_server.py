"""The product's HTTP protocol on a port of its own, in this process and without a database."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from coordinator.live.websocket import LiveSocket
from coordinator.web.fast_path import FastPath
from coordinator.web.http_protocol import http_protocol
from coordinator.web.http_request import Meter
from coordinator.web.prompt import Begun
from coordinator.web.tcp_connections import TcpConnections
from tests.harness.patience import patient
from tests.harness.ports import free_port


class Handler:
    """Accepts every websocket, and hands it to `accept`."""

    def __init__(self, accept: Callable[[LiveSocket], None]) -> None:
        self.accept = accept

    def is_moving(self) -> bool:
        return False

    def matches(self, path: str) -> bool:
        return path.startswith("/live")

    def choose(self, offered: list[str]) -> str | None:
        return None


async def _echo(scope: Any, body: bytes) -> dict[str, Any]:
    if delay := scope["query_string"]:
        await asyncio.sleep(float(delay))
    return {"path": scope["path"], "size": len(body)}


def _prompt(scope: Any, body: bytes) -> Begun:
    """Answers after as many seconds as the body says; what is no number is nobody's to foresee."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[int] = loop.create_future()
    loop.call_later(float(body or 0), done.set_result, len(body))
    return done, lambda size: {"path": "/prompt without a task", "size": size}


def hot_app(behind: Any = None) -> FastPath:
    """Two hot endpoints and a prompt one; what else is asked for goes to the application `behind`.
    """
    return FastPath(
        behind, Meter(), posts={"/hot": _echo, "/prompt": _echo}, gets={"/hot/": _echo},
        prompts={"/prompt": _prompt},
    )  # fmt: skip


@asynccontextmanager
async def serving(
    accept: Callable[[LiveSocket], None] = lambda socket: None,
    connections: TcpConnections | None = None,
    behind: Any = None,
) -> AsyncIterator[tuple[int, ServerState, weakref.WeakSet[Any]]]:
    """A port, uvicorn's state of it, and the protocols that are alive.

    Args:
        behind: the application that is asked for what `hot_app` does not know.
    """
    app = hot_app(behind)
    slots = connections or TcpConnections(most=1000, per_address=0, trusted=())
    protocol = http_protocol(Handler(accept), slots, app.prompts)
    config = uvicorn.Config(
        app, http=protocol, log_config=None, access_log=False, ws="websockets-sansio"
    )
    config.load()
    state = ServerState()
    protocols: weakref.WeakSet[Any] = weakref.WeakSet()

    def made() -> Any:
        new = protocol(config, state, {})
        protocols.add(new)
        return new

    port = free_port()
    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", port)
    yield port, state, protocols
    for connection in list(state.connections):
        connection.transport.abort()
    server.close()


async def upgraded(
    port: int, target: str = "/live"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {target} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    return reader, writer


async def answered(port: int, request: bytes, *, silence: float = 1.0) -> list[dict[str, Any]]:
    """The JSON bodies of all answers until the server hangs up.

    Args:
        silence: seconds without an answer (of a quiet machine) after which no more is waited for.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    bodies = []
    try:
        while True:
            async with asyncio.timeout(patient(silence)):
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                bodies.append(json.loads(await reader.readexactly(size)))
    except (asyncio.IncompleteReadError, TimeoutError):
        pass
    writer.close()
    return bodies


def get(number: int, more: bytes = b"", version: bytes = b"1.1", query: bytes = b"") -> bytes:
    return b"GET /hot/%d%b HTTP/%b\r\nhost: x\r\n%b\r\n" % (number, query, version, more)


CLOSE = b"connection: close\r\n"


async def ends(reader: asyncio.StreamReader, within: float) -> float:
    """How long until the server hangs up."""
    started = time.monotonic()
    async with asyncio.timeout(patient(within)):
        while True:
            try:
                if not await reader.read(65536):
                    break
            except ConnectionResetError:
                break
    return time.monotonic() - started

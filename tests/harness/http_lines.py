"""Keep-alive HTTP/1.1 connections, cheap enough to drive a server to its limit.

`HttpLine` is one connection with one request at a time; its answers go to a callback, since a
future per request would cost as much as the request. `Lines.ask` is the comfortable way for the
rest.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

import msgspec

from tests.harness.wire import Address


class Answered(Exception):
    """The server answered with something else than was asked for.

    Attributes:
        status: HTTP status. code: the `code` of the answer, where it has one.
    """

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        try:
            self.code = str(msgspec.json.decode(body).get("code", ""))
        except (msgspec.DecodeError, AttributeError):
            self.code = ""
        super().__init__(f"HTTP {status} {self.code}: {body[:300].decode('utf-8', 'replace')}")


Then = Callable[[int, bytes], None]
"""Gets the status and the body; status 0: the connection was lost."""


class HttpLine(asyncio.Protocol):
    """One connection. It is `idle` until `send`, and again when its callback is called."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.then: Then | None = None
        self.buffer = b""

    @classmethod
    async def open(cls, address: Address) -> HttpLine:
        context = ssl.create_default_context() if address.tls else None
        _, line = await asyncio.get_running_loop().create_connection(
            cls, address.host, address.port, ssl=context
        )
        return line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._answer(0, str(error or "closed").encode())

    @property
    def is_open(self) -> bool:
        return self.transport is not None

    def send(self, request: bytes, then: Then) -> None:
        """Sends a request; `then` is called once, with the answer or with status 0."""
        self.then = then
        if self.transport is None:
            self._answer(0, b"the connection is closed")
        else:
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer + data if self.buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            self.buffer = buffer
            return
        size = _content_length(buffer[:end])
        if len(buffer) < end + 4 + size:
            self.buffer = buffer
            return
        self.buffer = b""
        self._answer(int(buffer[9:12]), buffer[end + 4 : end + 4 + size])

    def _answer(self, status: int, body: bytes) -> None:
        then, self.then = self.then, None
        if then is not None:
            then(status, body)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


def _content_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"content-length:")
    if at < 0:
        return 0
    end = lower.find(b"\r\n", at)
    return int(lower[at + 15 : end if end > 0 else None])


class Lines:
    """A few connections to some nodes, and plain calls over them."""

    def __init__(self, addresses: list[Address]) -> None:
        self.addresses = addresses
        self.all: list[HttpLine] = []
        self._asking: asyncio.Lock = asyncio.Lock()

    async def grow(self, count: int) -> list[HttpLine]:
        """At least `count` open connections, the nodes in turn; returns that many."""
        self.all = [line for line in self.all if line.is_open]
        while len(self.all) < count:
            address = self.addresses[len(self.all) % len(self.addresses)]
            self.all.append(await HttpLine.open(address))
        return self.all[:count]

    def request(self, method: str, path: str, body: Any = None, token: str | None = None) -> bytes:
        """The bytes of a request."""
        raw = msgspec.json.encode(body) if body is not None else b""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.addresses[0].host}"]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(raw)}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + raw

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = None
    ) -> Any:
        """The `data` of the answer.

        Raises:
            Answered: the status was not 200. OSError: the connection was lost.
        """
        async with self._asking:
            (line,) = await self.grow(1)
            status, answer = await exchange(line, self.request(method, path, body, token))
        if status == 0:
            raise OSError(answer.decode())
        if status != 200:
            raise Answered(status, answer)
        return msgspec.json.decode(answer).get("data")

    def close(self) -> None:
        for line in self.all:
            line.close()
        self.all = []


async def exchange(line: HttpLine, request: bytes, *, within: float = 30.0) -> tuple[int, bytes]:
    """One request and its answer, status 0 where the connection was lost."""
    done: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def then(status: int, body: bytes) -> None:
        if not done.done():
            done.set_result((status, body))

    line.send(request, then)
    return await asyncio.wait_for(done, within)

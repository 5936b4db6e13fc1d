"""A back end that is told, and misbehaves by plan: a real HTTP server of a few lines.

It keeps every delivery that it has read whole, in order, whatever it answers. `plan` says what it
does with each: a status to answer, or what may go wrong with a receiver.
"""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from standardwebhooks import Webhook

from tests.harness.patience import patient

HANG = "hang"
"""Reads, and never answers."""
CLOSE = "close"
"""Reads, and closes without an answer."""
DIE = "die"
"""Says 200 and closes in the middle of the answer."""
NOISE = "noise"
"""Answers what is not HTTP."""
FLOOD = "flood"
"""Answers 200 with a body that does not end."""

Deed = int | str | bytes | tuple[int, dict[str, str]]
"""A status, a word of the above, the very bytes of an answer, or a status with headers."""


@dataclass(slots=True)
class Delivery:
    """One request as it came.

    Attributes:
        at, answered_at: when it had been read, and when its answer was written or it was hung up
            on: seconds of the wall clock.
    """

    headers: dict[str, str]
    raw: bytes
    at: float = field(default_factory=time.time)
    answered_at: float = math.inf

    @property
    def sent_at(self) -> int:
        """When the node sent it, by the clock that the node goes by: whole seconds, rounded down.
        """
        return int(self.headers["webhook-timestamp"])

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def type(self) -> str:
        return str(self.body["type"])

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def data(self) -> Any:
        return self.body["data"]

    @property
    def feed(self) -> str:
        return str(self.data.get("roomId") or self.data.get("interviewId"))

    @property
    def seq(self) -> int:
        return int(self.data["seq"])

    def is_signed_by(self, secret: str) -> bool:
        """True where the library takes the signature; it raises where it does not."""
        return bool(Webhook(secret).verify(self.raw, self.headers) == self.body)


class Receiver:
    """Listens on a port of its own while it is entered.

    Attributes:
        plan: what to do with a delivery; 200 for all at first.
        delivered: all that came, in order; `taken` those answered with 2xx.
        connections: how many were accepted.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.plan: Callable[[Delivery], Deed] = lambda _: 200
        self.delivered: list[Delivery] = []
        self.taken: list[Delivery] = []
        self.connections = 0
        self.under_way = 0
        self.most_under_way = 0
        self._news = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            while await self._answer_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()
            async with self._news:
                self._news.notify_all()

    async def _answer_one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        delivery = await _request(reader)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        deed = self.plan(delivery)
        self.delivered.append(delivery)
        try:
            goes_on = await self._do(deed, writer)
        finally:
            self.under_way -= 1
            delivery.answered_at = time.time()
        if deed == DIE or _status(deed) // 100 == 2:
            self.taken.append(delivery)
        async with self._news:
            self._news.notify_all()
        return goes_on

    async def _do(self, deed: Deed, writer: asyncio.StreamWriter) -> bool:
        if deed == HANG:
            async with self._news:
                self._news.notify_all()
            await asyncio.sleep(60)
        elif deed == DIE:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of i")
        elif deed == NOISE:
            writer.write(b"what?\r\n\r\n")
        elif deed == FLOOD:
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(1000):
                writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                await writer.drain()
        elif isinstance(deed, bytes):
            writer.write(deed)
            await writer.drain()
            return True
        elif deed != CLOSE:
            headers = deed[1] if isinstance(deed, tuple) else {}
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            head = f"HTTP/1.1 {_status(deed)} Whatever\r\n{lines}content-length: 2\r\n\r\nok"
            writer.write(head.encode())
            await writer.drain()
            return True
        return False

    async def until(self, holds: Callable[[], bool], patience: float = 15.0) -> None:
        """Waits until something is true of what has been delivered."""
        try:
            async with asyncio.timeout(patient(patience)), self._news:
                await self._news.wait_for(holds)
        except TimeoutError:
            told = [(d.type, d.feed, d.seq) for d in self.delivered if d.type != "ping"][-20:]
            raise AssertionError(f"never came true; delivered: {told}") from None

    async def is_left_with(self, connections: int) -> None:
        """Waits until so many are open."""
        async with asyncio.timeout(patient(10)), self._news:
            await self._news.wait_for(lambda: len(self._open) == connections)

    async def has(self, feed: str, *seqs: int, patience: float = 15.0) -> list[Delivery]:
        """Waits until all these events of a log were taken; what was taken of it."""
        await self.until(lambda: set(seqs) <= {d.seq for d in self.of(feed)}, patience)
        return self.of(feed)

    def of(self, feed: str) -> list[Delivery]:
        """What was taken of a log, in order."""
        return [d for d in self.taken if d.type != "ping" and d.feed == feed]


def _status(deed: Deed) -> int:
    if isinstance(deed, tuple):
        return deed[0]
    return deed if isinstance(deed, int) else 0


async def _request(reader: asyncio.StreamReader) -> Delivery:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    request, *lines = head.split("\r\n")
    assert request.startswith("POST "), request
    headers = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Delivery(headers, await reader.readexactly(int(headers["content-length"])))


DATA_KEY = b64encode(b"k" * 32).decode()
SETTINGS = {"DATA_KEYS": DATA_KEY, "WEBHOOK_ALLOW_PRIVATE": "127.0.0.0/8"}
"""What nodes need to send to a receiver on this machine."""


def once(deed: Deed) -> Callable[[Delivery], Deed]:
    """A plan that does something to the first delivery, and takes the others."""
    left = [deed]
    return lambda _: left.pop() if left else 200

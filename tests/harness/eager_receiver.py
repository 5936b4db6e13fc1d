"""A back end that takes every webhook at once: for runs that count more than they check."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

import msgspec

from tests.harness.histogram import Histogram

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class _Sent(msgspec.Struct):
    """What of a body is looked at."""

    timestamp: str
    type: str


_decode = msgspec.json.Decoder(_Sent).decode


class EagerReceiver:
    """A back end that takes everything at once, and notes when it came.

    Attributes:
        ids: of everything that came; a repetition is in `repeated`.
        lateness: from the event's time to its coming; milliseconds are all that a timestamp tells.
    """

    def __init__(self) -> None:
        self.ids: set[bytes] = set()
        self.repeated = 0
        self.lateness = Histogram()
        self.first_at = 0.0
        self.last_at = 0.0
        self._server: asyncio.Server | None = None

    async def listen(self) -> str:
        """Starts; the URL."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Request(self), "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    def forget(self) -> None:
        """What has come so far is of another window."""
        self.ids.clear()
        self.repeated = 0
        self.lateness = Histogram()
        self.first_at = 0.0

    def take(self, message: bytes, body: bytes) -> None:
        now = time.time()
        if message in self.ids:
            self.repeated += 1
        self.ids.add(message)
        self.first_at = self.first_at or now
        self.last_at = now
        committed = datetime.fromisoformat(_decode(body).timestamp).timestamp()
        self.lateness.add(max(1, int((now - committed) * 1e9)))

    async def has(self, count: int, *, seconds: float) -> None:
        """Waits until so many different events have come.

        Raises:
            TimeoutError: they did not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while len(self.ids) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.ids)} of {count} events came")
            await asyncio.sleep(0.05)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


class _Request(asyncio.Protocol):
    """Just enough HTTP: a head, and a body of `content-length`."""

    def __init__(self, receiver: EagerReceiver) -> None:
        self._receiver = receiver
        self._transport: Any = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            size = end + 4 + int(_header(head, b"content-length: "))
            if len(self._buffer) < size:
                return
            self._receiver.take(_header(head, b"webhook-id: "), self._buffer[end + 4 : size])
            self._buffer = self._buffer[size:]
            self._transport.write(_OK)


def _header(head: bytes, name: bytes) -> bytes:
    return head.partition(name)[2].partition(b"\r\n")[0]

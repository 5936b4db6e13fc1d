"""One live connection that understands every frame: for runs that check more than they count."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

import msgspec

from tests.harness.wire import CLOSE, PING, PONG, TEXT, Address, frame, frames, upgrade

Frame = dict[str, Any]


class LiveClient(asyncio.Protocol):
    """A connection to a room's feed.

    Attributes:
        on_frame: called with each frame, decoded. on_end: called once, when the connection is gone.
    """

    def __init__(
        self, request: bytes, on_frame: Callable[[Frame], None], on_end: Callable[[], None]
    ) -> None:
        self._request = request
        self._on_frame = on_frame
        self._on_end = on_end
        self._rest = b""
        self._upgraded = False
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(
        cls,
        address: Address,
        path: str,
        token: str,
        on_frame: Callable[[Frame], None],
        on_end: Callable[[], None],
    ) -> LiveClient:
        """Connects; the welcome comes as the first frame."""
        request = upgrade(
            f"{address.host}:{address.port}", path, (f"Authorization: Bearer {token}",)
        )
        _, one = await asyncio.get_running_loop().create_connection(
            lambda: cls(request, on_frame, on_end), address.host, address.port,
            ssl=ssl.create_default_context() if address.tls else None,
        )  # fmt: skip
        return one

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._on_end()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self._upgraded:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.cut()
                return
            self._upgraded = True
        whole, taken = frames(data)
        self._rest = data[taken:]
        for opcode, payload in whole:
            self._take(opcode, payload)

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            self._on_frame(msgspec.json.decode(payload))
        elif opcode == PING:
            self._write(frame(PONG, payload))
        elif opcode == CLOSE:
            self.close()

    def send(self, message: Frame) -> None:
        """Sends one text frame; nothing where the connection is gone."""
        self._write(frame(TEXT, msgspec.json.encode(message)))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Closes the TCP connection in order."""
        if self._transport is not None:
            self._transport.close()

    def cut(self) -> None:
        """Drops the connection at once, as a lost network does."""
        if self._transport is not None:
            self._transport.abort()

"""TCP proxies that can be cut: a node reaches a server through one, and a test does harm to it.

`whole` carries bytes both ways. `hung` is a network that swallows everything and says nothing: the
connections stand, new ones are accepted, no byte moves. `cut` resets what stands and refuses what
comes. A proxy that is mended carries what waited in it, as a network does.
"""

from __future__ import annotations

import asyncio
from typing import cast

WHOLE, HUNG, CUT = "whole", "hung", "cut"


class _End(asyncio.Protocol):
    """One of the two connections of a pair; what it reads is written to the other."""

    def __init__(self, proxy: TcpProxy, other: _End | None = None) -> None:
        self.proxy = proxy
        self.other = other
        self.transport: asyncio.Transport | None = None
        self.waiting: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.proxy.ends.add(self)
        if self.other is None:
            self.proxy.accept(self)
        else:
            self.other.other = self
            for data in self.other.waiting:
                self.transport.write(data)
            self.other.waiting.clear()

    def data_received(self, data: bytes) -> None:
        if self.proxy.delay_seconds:
            # Later ones are never earlier: the delay is the same for all.
            loop = asyncio.get_running_loop()
            loop.call_later(self.proxy.delay_seconds, self.carry, data)
        else:
            self.carry(data)

    def carry(self, data: bytes) -> None:
        """To the other end, or kept until there is one."""
        if self.other is None or self.other.transport is None:
            self.waiting.append(data)
        else:
            self.other.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.proxy.ends.discard(self)
        self.transport = None
        other, self.other = self.other, None
        if other is not None and other.transport is not None:
            other.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class TcpProxy:
    """A way to a server at `port` on this machine.

    Attributes:
        port: where the proxy's near end listens, once started.
        state: `whole`, `hung` or `cut`.
        delay_seconds: how long each byte takes, each way.
    """

    def __init__(self, to_port: int, *, delay_seconds: float = 0.0) -> None:
        self.to_port = to_port
        self.delay_seconds = delay_seconds
        self.port = 0
        self.state = WHOLE
        self.ends: set[_End] = set()
        self._server: asyncio.Server | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self._mended = asyncio.Event()
        self._mended.set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _End(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def accept(self, near: _End) -> None:
        """A node connects: the far end is connected when the proxy is whole."""
        if self.state == CUT:
            near.abort()
            return
        task = asyncio.get_running_loop().create_task(self._connect(near))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, near: _End) -> None:
        await self._mended.wait()
        if near.transport is None:
            return
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: _End(self, near), "127.0.0.1", self.to_port
            )
        except OSError:
            near.abort()
        if self.state == CUT:
            near.abort()

    def hang(self) -> None:
        """No byte moves, nobody is told."""
        self.state = HUNG
        self._mended.clear()
        for end in self.ends:
            if end.transport is not None:
                end.transport.pause_reading()

    def cut(self) -> None:
        """Resets every connection and refuses new ones."""
        self.state = CUT
        for end in list(self.ends):
            end.abort()

    def lead_to(self, port: int) -> None:
        """The name means another server from now on: what stands is reset."""
        self.to_port = port
        for end in list(self.ends):
            end.abort()

    def mend(self) -> None:
        """Carries again, also what waited."""
        was, self.state = self.state, WHOLE
        self._mended.set()
        if was == HUNG:
            for end in self.ends:
                if end.transport is not None and not end.transport.is_closing():
                    end.transport.resume_reading()

    async def close(self) -> None:
        """Ends everything."""
        self.mend()
        for end in list(self.ends):
            end.abort()
        for task in list(self._connecting):
            task.cancel()
        if self._server is not None:
            self._server.close()

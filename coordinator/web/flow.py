"""The two directions of an HTTP connection: writes that are joined, reading that is held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl


class JoinedWrites:
    """A transport that joins what is written in one turn of the loop.

    uvicorn writes an answer's head and its body by themselves, and uvloop makes a system call of
    each; together they are one. Everything else goes to the transport as it is.

    Attributes:
        lingers: asked at `close`; True where the connection is not to be ended at once, since its
            client still sends. Whoever says so ends it.
    """

    __slots__ = ("_held", "_is_closed", "_loop", "lingers", "plain")

    def __init__(self, plain: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.plain = plain
        self.lingers: Callable[[], bool] | None = None
        self._loop = loop
        self._held = b""
        self._is_closed = False

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held += data

    def flush(self) -> None:
        held, self._held = self._held, b""
        if held and not self.is_closing():
            self.plain.write(held)

    def write_at_once(self, data: bytes) -> None:
        """Writes bytes to which nothing will be joined."""
        if self._held:
            self.flush()
        if not self.is_closing():
            self.plain.write(data)

    def is_closing(self) -> bool:
        closing: bool = self._is_closed or self.plain.is_closing()
        return closing

    def close(self) -> None:
        """Nothing is written any more; what has been is sent, and the connection ended."""
        if self.is_closing():
            return
        self.flush()
        self._is_closed = True
        if self.lingers is None or not self.lingers():
            self.plain.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


class HeldFlow(FlowControl):
    """uvicorn's flow control, which nobody can make read on while requests are held back."""

    is_held = False

    def hold(self, is_held: bool) -> None:
        """Whether what has been read waits for its turn."""
        if is_held == self.is_held:
            return
        self.is_held = is_held
        self.pause_reading() if is_held else self.resume_reading()

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()

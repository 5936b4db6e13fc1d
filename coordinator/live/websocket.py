"""Websockets under uvicorn: from bytes to frames, and frames straight to the socket.

uvicorn accepts the TCP connection and reads the upgrade request; then the connection is ours,
without an ASGI task parked on it. RFC 6455 itself is left to the sans-I/O protocol of `websockets`.
What this module adds is what keeps a node alive among slow and hostile clients: small kernel
buffers, pings, a bound on unsent bytes, and closes that end for certain.
"""

from __future__ import annotations

import asyncio
import logging
import socket as sockets
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Protocol

from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, State
from websockets.protocol import Protocol as FrameProtocol
from websockets.utils import accept_key

from coordinator.live.allowance import RATE, FrameAllowance, FrameVerdict
from coordinator.live.beat import Beat
from coordinator.live.upgrade import KEY, RequestHeaders, offered_subprotocols

MAX_MESSAGE_BYTES = 16 * 1024
"""The protocol closes (1009) on a larger message; its fragments count together."""
MAX_FRAGMENTS = 64
PING_SECONDS = 20.0
"""Pace of protocol pings; a peer that says nothing until the next one is dead."""
CLOSE_SECONDS = 2.0
"""How long a peer may take to answer our close; then the connection is aborted."""
MOST_UNSENT = 2**31 - 1
"""Bytes: uvloop counts them so far."""
SEND_BUFFER = 128 * 1024
RECEIVE_BUFFER = 16 * 1024
ERRORS_PER_READ = 32
"""How many refusals answer one read; the rest of a flood is dropped without a word."""
PAUSE_SECONDS = 0.1, 1.0
"""The shortest and the longest pause in reading from a client that is over its rate."""

_PING = b"\x89\x00"
_quiet = logging.getLogger("coordinator.websockets")
_quiet.setLevel(logging.CRITICAL)
_quiet.propagate = False


class Refused(Enum):
    """Why a message or a control frame is not heard."""

    BINARY = auto()
    FRAGMENTS = auto()
    TOO_FAST = auto()
    """A text message, or a part of one, beyond the rate."""
    CONTROL_TOO_FAST = auto()
    """Anything else beyond the rate: a ping, a pong that answers nothing, a binary frame."""
    FLOOD = auto()
    """It has been beyond the rate for so long that the connection has to end."""


Heard = bytes | Refused
"""What a client says: a text message, or why it is not heard."""


class SocketReceiver(Protocol):
    """Who hears what a socket brings. Nothing here may await or raise."""

    def on_text(self, text: bytes) -> None:
        """A whole text message of at most `MAX_MESSAGE_BYTES`, valid UTF-8."""

    def on_refused(self, why: Refused) -> None:
        """A message or a control frame came, and is refused."""

    def on_slow(self) -> None:
        """More is unsent than the peer may leave unread."""

    def on_lost(self) -> None:
        """The TCP connection is gone; nothing comes after."""


class TcpSlot(Protocol):
    """What a TCP connection holds of its node's room for connections."""

    def authenticated(self) -> None:
        """It does not count against its address any more."""

    def leave(self) -> None:
        """It has ended."""


_NO_HEADERS = RequestHeaders(())


class LiveSocket(asyncio.Protocol):
    """One websocket. `path`, `query` and `headers` are those of its upgrade request."""

    __slots__ = (
        "_allowance",
        "_awaits_pong",
        "_close_timer",
        "_excess",
        "_fragments",
        "_frames",
        "_heard",
        "_is_binary",
        "_is_refused",
        "_ping_place",
        "_pings",
        "_server_state",
        "headers",
        "is_closing",
        "is_lost",
        "loop",
        "path",
        "peer",
        "query",
        "receiver",
        "slot",
        "transport",
        "unsent_limit",
    )

    def __init__(
        self,
        transport: Any,
        server_state: Any,
        *,
        path: str,
        query: str,
        slot: TcpSlot,
        pings: Beat,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport = transport
        self._server_state = server_state
        self.receiver: SocketReceiver | None = None
        self.headers = _NO_HEADERS
        self.path, self.query = path, query
        self.slot = slot
        peer = transport.get_extra_info("peername")
        self.peer: str = peer[0] if isinstance(peer, tuple) else ""
        self.is_closing = False
        self.is_lost = False
        self.unsent_limit = 0
        self._frames = FrameProtocol(
            SERVER, state=State.OPEN, max_size=MAX_MESSAGE_BYTES, logger=_quiet
        )
        self._allowance = FrameAllowance(self.loop.time())
        self._excess = 0
        """Frames beyond the rate in what is being read."""
        self._fragments: list[bytes] = []
        self._is_binary = self._is_refused = False
        """Of the message whose fragments are arriving."""
        self._heard, self._awaits_pong = True, False
        self._pings = pings
        self._ping_place = -1
        self._close_timer: asyncio.TimerHandle | None = None
        server_state.connections.add(self)

    def open(self, headers: RequestHeaders, choose: Callable[[list[str]], str | None]) -> None:
        """Answers the upgrade request (RFC 6455, section 4.2), which `is_handshake`."""
        self.headers = headers
        subprotocol = choose(offered_subprotocols(headers))
        chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
        self.transport.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept_key(headers.get(KEY) or '')}\r\n{chosen}\r\n".encode()
        )
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, SEND_BUFFER // 2)
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, RECEIVE_BUFFER // 2)
        self._ping_place = self._pings.join(self)

    def limit_unsent(self, size_bytes: int) -> None:
        """The peer is told too slow (`on_slow`) when more than this is unsent."""
        if self.is_closing:
            return  # a closed transport would raise
        self.unsent_limit = size_bytes
        high = min(size_bytes, MOST_UNSENT)
        self.transport.set_write_buffer_limits(high=high, low=high // 2)

    @property
    def unsent_bytes(self) -> int:
        size: int = self.transport.get_write_buffer_size()
        return size

    @property
    def writer(self) -> Callable[[bytes], None]:
        """The transport's own `write`, for callers that stop using it at `on_lost` and `close`."""
        write: Callable[[bytes], None] = self.transport.write
        return write

    def write(self, frames: bytes) -> None:
        """Sends whole frames; nothing after a close."""
        if not self.is_closing:
            self.transport.write(frames)

    def write_pieces(self, pieces: list[bytes]) -> None:
        """Sends frames that come in pieces, which are not copied; nothing after a close."""
        if not self.is_closing:
            self.transport.writelines(pieces)

    def close(self, code: int, reason: str, last: bytes = b"") -> None:
        """Sends `last` and a close frame; the connection is gone within `CLOSE_SECONDS`.

        What the peer still sends is read and dropped: a connection that is ended with bytes unread
        is reset, and the peer would lose what it was told last.
        """
        if self.is_closing:
            return
        self._resume()
        self.is_closing = True
        if self._frames.state is State.OPEN:
            self._frames.send_close(code, reason)
        self.transport.write(last + b"".join(self._frames.data_to_send()))
        self._end_soon()

    def abort(self) -> None:
        """Ends the TCP connection at once."""
        self.is_closing = True
        self.transport.abort()
        self._lose()

    def pause(self, seconds: float) -> None:
        """Reads nothing for a while: a flood waits in the kernel."""
        if not self.is_closing:
            self.transport.pause_reading()
            self.loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        if not self.is_lost and not self.transport.is_closing():
            self.transport.resume_reading()

    def _end_soon(self) -> None:
        if self._close_timer is None:
            self._close_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def on_beat(self) -> None:
        """A protocol ping is due, and the answer to the one before it."""
        if not self._heard:
            self.abort()
            return
        self._heard, self._awaits_pong = False, True
        if not self.is_closing:
            self.transport.write(_PING)

    def on_late(self) -> None:
        """Its peer has time to answer all the same: the next beat is put off."""

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._heard, self._excess = True, 0
        frames = self._frames
        frames.receive_data(data)
        for event in frames.events_received():
            if isinstance(event, Frame):
                self._on_frame(event)
        self._answer()
        if self._excess:
            least, most = PAUSE_SECONDS
            self.pause(min(most, max(least, self._excess / RATE)))

    def _answer(self) -> None:
        """Sends what the protocol wants sent by itself: pongs, the echo of a close, the end."""
        for chunk in self._frames.data_to_send():
            if chunk:
                self.transport.write(chunk)
            else:
                self.transport.close()
        if self._frames.state is not State.OPEN:
            if not self.is_closing:
                self.is_closing = True
                self._lose()  # the peer closes: nothing may follow our answer to it
            self._end_soon()

    def _on_frame(self, frame: Frame) -> None:
        """Every frame counts, but the answer to our ping and the close."""
        opcode = frame.opcode
        if opcode is Opcode.CLOSE:
            return
        if opcode is Opcode.PONG and self._awaits_pong:
            self._awaits_pong = False
            return
        verdict = self._allowance.take(self.loop.time())
        if opcode is Opcode.PING or opcode is Opcode.PONG:
            if verdict is not FrameVerdict.READ:
                self._refuse_excess(verdict, Refused.CONTROL_TOO_FAST)
            return
        if opcode is not Opcode.CONT:
            self._is_binary, self._is_refused = opcode is Opcode.BINARY, False
            self._fragments.clear()
        self._on_fragment(frame, verdict)

    def _on_fragment(self, frame: Frame, verdict: FrameVerdict) -> None:
        """A message is heard whole or not at all, and refused once."""
        if verdict is not FrameVerdict.READ:
            is_first = not self._is_refused
            self._drop_message()
            why = Refused.CONTROL_TOO_FAST if self._is_binary else Refused.TOO_FAST
            self._refuse_excess(verdict, why, is_told=is_first)
        elif self._is_refused:
            return
        elif len(self._fragments) == MAX_FRAGMENTS:
            self._drop_message()
            self._refuse(Refused.FRAGMENTS)
        else:
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                message = b"".join(self._fragments)
                self._fragments.clear()
                self._on_message(message)

    def _drop_message(self) -> None:
        self._is_refused = True
        self._fragments.clear()

    def _refuse_excess(self, verdict: FrameVerdict, why: Refused, *, is_told: bool = True) -> None:
        self._excess += 1
        if verdict is FrameVerdict.FLOOD:
            self._refuse(Refused.FLOOD)
        elif is_told and self._excess <= ERRORS_PER_READ:
            self._refuse(why)

    def _refuse(self, why: Refused) -> None:
        if self.receiver is not None and not self.is_closing:
            self.receiver.on_refused(why)

    def _on_message(self, message: bytes) -> None:
        if self._is_binary:
            self._refuse(Refused.BINARY)
        elif not message.isascii() and not _is_utf8(message):
            self._frames.fail(1007, "invalid UTF-8")
        elif self.receiver is not None and not self.is_closing:
            self.receiver.on_text(message)

    def pause_writing(self) -> None:
        if self.receiver is not None and not self.is_closing:
            self.receiver.on_slow()

    def resume_writing(self) -> None:
        """Nothing to resume: a slow client's connection is closed."""

    def eof_received(self) -> None:
        """The peer has ended its half: it is lost at once. By itself the event loop would wait
        until the peer has read all that it was sent.
        """
        self.is_closing = True
        self._lose()
        self._end_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = self.is_closing = True
        self.slot.leave()
        self._server_state.connections.discard(self)
        self._pings.leave(self._ping_place, self)
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        self._lose()

    def _lose(self) -> None:
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.on_lost()

    def shutdown(self) -> None:
        """uvicorn ends what the drain has left open."""
        self.abort()


class UpgradeHandler(Protocol):
    """Decides about new websockets. Its methods must not block or raise."""

    def is_moving(self) -> bool:
        """True where clients are better off on another node."""

    def matches(self, path: str) -> bool:
        """True where a path is a live endpoint; others are answered by HTTP."""

    def choose(self, offered: list[str]) -> str | None:
        """The subprotocol to answer."""

    def accept(self, socket: LiveSocket) -> None:
        """A websocket is open: sets its `receiver`."""


def _is_utf8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True

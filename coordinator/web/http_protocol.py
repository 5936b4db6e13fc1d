"""HTTP/1.1 under uvicorn: limits on what a client may send and hold, and one write per answer.

uvicorn parses requests and runs the ASGI application. An upgrade request never reaches it: the
connection is handed to `live/websocket.py`, without an ASGI task parked on it.

    a connection opens      a seat (`web/tcp_connections.py`), and 10 s for the head of a request
    its head has come       10 s for its body, if it has one
    its body has come       no limit but that of the endpoint
    its answer has gone     75 s for the whole of the next request; nothing less counts

A client that leaves an answer unread for 30 s is hung up on. Of pipelined requests a few KiB are
parsed at a time; the rest waits until those are answered.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from coordinator.live.upgrade import RequestHeaders
from coordinator.live.websocket import LiveSocket, UpgradeHandler
from coordinator.logging import RareWarning
from coordinator.metrics import REFUSED_REQUESTS
from coordinator.web.errors import is_open_api
from coordinator.web.request_head import MALFORMED, NO_UPGRADE, RefusedHead, RequestHead
from coordinator.web.tcp_connections import Seat, TcpConnections

REQUEST_SECONDS = 10.0
"""How long a client may take to send the head of a request, and again for its body."""
IDLE_SECONDS = 75.0
"""How long a connection may go from an answer to the next whole request."""
UNREAD_SECONDS = 30.0
"""How long a client may leave an answer unread."""
LINGER_SECONDS = 1.0
"""How long what a refused client still sends is thrown away, so that it can read why."""
PARSED_AT_ONCE = 4096
"""Bytes given to the parser before it is seen whether requests wait for their turn."""

_malformed = RareWarning("malformed_requests")

Headers = Iterable[tuple[bytes, bytes]]
ANSWER = "coordinator.answer"
"""The ASGI extension by which `web/fast_path.py` answers: called with scope, status, headers and
body."""


class JoinedWrites:
    """A transport that joins what is written in one turn of the loop.

    uvicorn writes an answer's head and its body by themselves, and uvloop makes a system call of
    each; together they are one. Everything else goes to the transport as it is.
    """

    __slots__ = ("_held", "_loop", "plain")

    def __init__(self, plain: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.plain = plain
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held += data

    def flush(self) -> None:
        held, self._held = self._held, b""
        if held and not self.plain.is_closing():
            self.plain.write(held)

    def write_at_once(self, data: bytes) -> None:
        """What nothing will be joined to."""
        self.flush()
        if not self.plain.is_closing():
            self.plain.write(data)

    def close(self) -> None:
        self.flush()
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


class CoordinatorProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with our limits; made for one server by `http_protocol`.

    Attributes:
        deadline: on the loop's clock, when the connection is ended; None while a request is served.
        head: counts the head that is arriving; None while none is.
    """

    handler: UpgradeHandler
    tcp_connections: TcpConnections
    host_names: frozenset[str]

    seat: Seat | None = None
    deadline: float | None = None
    unread_deadline: float | None = None
    watch: asyncio.TimerHandle | None = None
    head: RequestHead | None = None
    refusal: RefusedHead | None = None
    unparsed = b""

    # -- the connection -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = transport.get_extra_info("peername")
        self.seat = self.tcp_connections.admit(peer[0] if isinstance(peer, tuple) else "")
        if self.seat is None:
            transport.abort()
            return
        super().connection_made(transport)
        joined: Any = JoinedWrites(transport, self.loop)
        self.transport = joined
        self.flow = HeldFlow(transport)
        self.deadline = self.loop.time() + REQUEST_SECONDS
        self.watch = self.loop.call_later(REQUEST_SECONDS, self._watch)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.seat is None:
            return
        self.seat.leave()
        self._watch_no_more()
        self._forget_scope()
        super().connection_lost(exc)

    def _forget_scope(self) -> None:
        """It names this protocol: the two would wait for the garbage collector."""
        if self.scope is not None:
            self.scope.pop("extensions", None)

    def _watch(self) -> None:
        # One timer per connection looks by and by: arming one per request costs more than the
        # parsing of it.
        due = min(self.deadline or _NEVER, self.unread_deadline or _NEVER)
        now = self.loop.time()
        if now >= due:
            self.transport.abort()
            return
        self.watch = self.loop.call_at(min(due, now + REQUEST_SECONDS), self._watch)

    def _watch_no_more(self) -> None:
        if self.watch is not None:
            self.watch.cancel()
            self.watch = None

    def pause_writing(self) -> None:
        self.unread_deadline = self.loop.time() + UNREAD_SECONDS
        super().pause_writing()

    def resume_writing(self) -> None:
        self.unread_deadline = None
        super().resume_writing()

    # -- a request ------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.refusal is None:
            self._parse(self.unparsed + data if self.unparsed else data)

    def _parse(self, data: bytes) -> None:
        """Gives the parser what has come, as far as no request waits for its turn."""
        rest = memoryview(data)
        while rest and not self.pipeline and self.refusal is None:
            head_before = self.head
            part, rest = rest[:PARSED_AT_ONCE], rest[PARSED_AT_ONCE:]
            if not self._feed(part):
                return
            if self.head is not None and self.head is head_before:
                self.head.add_raw(len(part))
                if over := self.head.raw_over():
                    self.refuse(over)
        self.unparsed = bytes(rest) if self.refusal is None else b""
        held: Any = self.flow
        held.hold(self.unparsed != b"")

    def _feed(self, part: memoryview) -> bool:
        """False where nothing after it is for this parser."""
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserUpgrade:
            self._upgrade()
            return False
        except httptools.HttpParserError:
            self.refuse(self.refusal or MALFORMED)
            return False
        return True

    def on_message_begin(self) -> None:
        self.head = RequestHead()
        self._expect_within(REQUEST_SECONDS)
        super().on_message_begin()

    def _expect_within(self, seconds: float) -> None:
        """Never later than what stands: bytes of a request do not put off an idle connection."""
        due = self.loop.time() + seconds
        self.deadline = due if self.deadline is None else min(due, self.deadline)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if self.head is not None:
            self.head.add_target(len(url))
            self._stop_at(self.head.over())

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if self.head is not None:
            self.head.add_header(self.headers[-1][0], value)
            self._stop_at(self.head.over())

    def on_headers_complete(self) -> None:
        if self.head is not None:
            self._stop_at(self.head.whole(self.parser.get_http_version()))
            self._stop_at(self.head.foreign(self.host_names))
            self.head = None
        if self._is_wrong_upgrade():
            self._stop_at(NO_UPGRADE)
        super().on_headers_complete()
        self.deadline = self.loop.time() + REQUEST_SECONDS
        extensions: dict[str, Any] = {ANSWER: self.answer}
        self.scope["extensions"] = extensions
        if self.handler.is_moving() and not self.parser.should_upgrade():
            # A proxy that keeps this connection would use it until the very end.
            self.cycle.keep_alive = False

    def _stop_at(self, refusal: RefusedHead | None) -> None:
        """Stops the parser, where there is something to refuse."""
        if refusal is not None:
            self.refusal = refusal
            raise _Stop

    def on_message_complete(self) -> None:
        super().on_message_complete()
        cycle = self.cycle
        if cycle is not None and cycle.response_complete:
            self.deadline = self.loop.time() + IDLE_SECONDS
        else:
            self.deadline = None

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self.refusal is not None:
            self._send_refusal(self.refusal)
        else:
            self.deadline = self.loop.time() + IDLE_SECONDS
            if self.unparsed:
                self.loop.call_soon(self._parse_rest)

    def _parse_rest(self) -> None:
        if self.parser is not None and self.refusal is None and not self.transport.is_closing():
            self._parse(self.unparsed)

    def answer(self, scope: Any, status: int, headers: Headers, body: bytes) -> bool:
        """Sends a whole answer by one write; False where `send` has to do it by and by."""
        cycle = self.cycle
        if cycle.scope is not scope or self.flow.write_paused:
            return False
        if cycle.disconnected:
            return True
        cycle.response_started = cycle.response_complete = True
        lines = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        lines.append(body)
        joined: Any = self.transport
        joined.write_at_once(b"".join(lines))
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True

    # -- what is no request ---------------------------------------------------------------------

    def _is_wrong_upgrade(self) -> bool:
        if not (self.parser.should_upgrade() and self._should_upgrade()):
            return False
        return self.parser.get_method() != b"GET" or self.parser.get_http_version() != "1.1"

    def _upgrade(self) -> None:
        if self._should_upgrade():
            self.handle_websocket_upgrade()
        elif self.cycle is not None:
            # Another protocol is not offered: the request is answered as it is, and the
            # connection, whose rest might be of that protocol, ends with it.
            self.cycle.keep_alive = False
            self.unparsed = b""

    def handle_websocket_upgrade(self) -> None:
        target = httptools.parse_url(self.url)  # also http://host/path (RFC 9112, section 3.2.2)
        path = unquote((target.path or b"/").decode("latin-1"))
        if not self.handler.matches(path):
            self.refuse(_NOT_FOUND)
            return
        self._watch_no_more()
        self._forget_scope()
        self.connections.discard(self)
        joined: Any = self.transport
        plain = joined.plain
        query = (target.query or b"").decode("latin-1")
        assert self.seat is not None, "it was admitted"
        live = LiveSocket(plain, self.server_state, path=path, query=query, seat=self.seat)
        plain.set_protocol(live)
        if live.open(RequestHeaders(self.scope["headers"]), self.handler.choose):
            self.handler.accept(live)
        self.parser = None  # type: ignore[assignment]  # the cycle would outlive us for long

    def refuse(self, refusal: RefusedHead) -> None:
        """Answers what never became a request, after those that did, and hangs up."""
        self.refusal = refusal
        self.unparsed = b""
        REFUSED_REQUESTS.labels(refusal.reason).inc()
        if refusal is MALFORMED:
            _malformed(address=self.client[0] if self.client else "")
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._send_refusal(refusal)
        elif cycle.more_body:  # it is the request that is being served whose body is broken
            cycle.disconnected = True
            cycle.message_event.set()
            self._send_refusal(refusal)

    def _send_refusal(self, refusal: RefusedHead) -> None:
        # What the client still sends is thrown away for a moment: closing with bytes unread would
        # take the answer from it (RFC 9112, section 9.6).
        if self.transport.is_closing():
            return
        self.transport.write(_refusal_bytes(refusal, self.url))
        joined: Any = self.transport
        joined.flush()
        joined.write_eof()
        self.flow.resume_reading()
        self.deadline = self.loop.time() + LINGER_SECONDS
        self._watch_no_more()
        self.watch = self.loop.call_later(LINGER_SECONDS, self._watch)

    def eof_received(self) -> None:
        if self.refusal is not None:
            self.transport.close()


_NEVER = float("inf")
_ANY: frozenset[str] = frozenset()
_NOT_FOUND = RefusedHead(404, "资源不存在", "not_found")


class _Stop(Exception):
    """Ends the parsing from inside a callback of the parser."""


def _refusal_bytes(refusal: RefusedHead, target: bytes) -> bytes:
    """The whole answer, in the shape of the API that was called."""
    path = target.partition(b"?")[0].decode("latin-1")
    body = {
        "success": False,
        "error" if is_open_api(path) else "message": refusal.message,
        "code": {403: "FORBIDDEN", 404: "NOT_FOUND"}.get(refusal.status, "INVALID_PARAMS"),
    }
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    head = b"%bcontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return head % (STATUS_LINE[refusal.status], len(content)) + content


def http_protocol(
    handler: UpgradeHandler, tcp_connections: TcpConnections, host_names: frozenset[str] = _ANY
) -> type[CoordinatorProtocol]:
    """The protocol class of one server: websockets go to `handler`. No `host_names`: any."""
    members = {"handler": handler, "tcp_connections": tcp_connections, "host_names": host_names}
    return type("ServerProtocol", (CoordinatorProtocol,), members)

"""HTTP/1.1 under uvicorn: a time limit for requests, and one write per answer.

uvicorn parses requests and runs the ASGI application. An upgrade request never reaches it: the
connection is handed to `live/websocket.py`, without an ASGI task parked on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from coordinator.live.websocket import LiveSocket, RequestHeaders, UpgradeHandler

REQUEST_SECONDS = 10.0
"""How long a client may take to send the head of a request, and again for its body."""
_NOT_FOUND = '{"success":false,"message":"资源不存在","code":"NOT_FOUND"}'.encode()
_MALFORMED = '{"success":false,"message":"请求格式错误","code":"INVALID_PARAMS"}'.encode()

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


def http_protocol(handler: UpgradeHandler) -> type[HttpToolsProtocol]:
    """uvicorn's HTTP protocol: websockets go to `handler`, requests have a time limit."""

    class CoordinatorProtocol(HttpToolsProtocol):
        expected_by: float | None = None
        watch: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            joined: Any = JoinedWrites(transport, self.loop)
            self.transport = joined
            self._expect_more()
            self.watch = self.loop.call_later(REQUEST_SECONDS, self._watch)

        def connection_lost(self, exc: Exception | None) -> None:
            self._watch_no_more()
            self._forget_scope()
            super().connection_lost(exc)

        def _forget_scope(self) -> None:
            """It names this protocol: the two would wait for the garbage collector."""
            if self.scope is not None:
                self.scope.pop("extensions", None)

        def on_message_begin(self) -> None:
            self._expect_more()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._expect_more()
            super().on_headers_complete()
            extensions: dict[str, Any] = {ANSWER: self.answer}
            self.scope["extensions"] = extensions
            if handler.is_moving() and not self.parser.should_upgrade():
                # A proxy that keeps this connection would use it until the very end.
                self.headers.append((b"connection", b"close"))
                self.cycle.keep_alive = False

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

        def on_message_complete(self) -> None:
            self.expected_by = None
            super().on_message_complete()

        def _expect_more(self) -> None:
            self.expected_by = self.loop.time() + REQUEST_SECONDS

        def _watch(self) -> None:
            # One timer per connection looks by and by: arming one per request costs more than
            # the parsing of it.
            if self.expected_by is not None and self.loop.time() >= self.expected_by:
                self.transport.abort()
                return
            due = self.expected_by or self.loop.time() + REQUEST_SECONDS
            self.watch = self.loop.call_at(due, self._watch)

        def _watch_no_more(self) -> None:
            if self.watch is not None:
                self.watch.cancel()
                self.watch = None

        def handle_websocket_upgrade(self) -> None:
            raw_path, _, query = self.url.decode("latin-1").partition("?")
            path = unquote(raw_path)
            if not handler.matches(path):
                self.send_refusal(404, _NOT_FOUND)
                return
            self._watch_no_more()
            self._forget_scope()
            self.connections.discard(self)
            joined: Any = self.transport
            plain = joined.plain
            live = LiveSocket(plain, self.server_state, path=path, query=query)
            plain.set_protocol(live)
            if live.open(RequestHeaders(self.scope["headers"]), handler.choose):
                handler.accept(live)
            self.parser = None  # type: ignore[assignment]  # the cycle would outlive us for long

        def send_400_response(self, msg: str) -> None:
            self.send_refusal(400, _MALFORMED)

        def send_refusal(self, status: int, body: bytes) -> None:
            """Answers what never became a request, and hangs up."""
            phrase = {400: b"Bad Request", 404: b"Not Found"}[status]
            self.transport.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%b" % (status, phrase, len(body), body)
            )
            self.transport.close()

    return CoordinatorProtocol

"""HTTP/1.1 under uvicorn: limits on what a client may send and hold, and one write per answer.

uvicorn parses requests and runs the ASGI application. Two kinds of requests never reach it: an
upgrade, whose connection is handed to `live/websocket.py`, and a prompt request (`prompt.py`).
Neither has a task.

    a connection opens      a slot (`web/tcp_connections.py`), and 10 s for the head of a request
    its head has come       10 s for its body, if it has one
    its body has come       no limit but that of the endpoint
    its answer has gone     10 s, and 64 MiB, for what is left of its body, if something is
    and its body has come   75 s for the whole of the next request; nothing less counts

Of pipelined requests a few KiB are parsed at a time (`http_parsing.py`). An answer unread for 30 s
ends a connection.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httptools

from coordinator.live import websocket
from coordinator.live.beat import Beat
from coordinator.live.upgrade import RequestHeaders, is_handshake
from coordinator.live.websocket import LiveSocket, UpgradeHandler
from coordinator.logging import RareWarning
from coordinator.metrics import REFUSED_REQUESTS
from coordinator.web import request_head
from coordinator.web.flow import HeldFlow, JoinedWrites
from coordinator.web.http_parsing import LimitedParsing
from coordinator.web.json_answer import Headers, Outcome, answer_bytes
from coordinator.web.prompt import PromptRequest, Prompts, is_plain
from coordinator.web.request_head import RefusedHead, RequestHead
from coordinator.web.tcp_connections import Slot, TcpConnections

REQUEST_SECONDS = 10.0
"""How long a client may take to send the head of a request, and again for its body."""
IDLE_SECONDS = 75.0
"""How long a connection may go from an answer to the next whole request."""
UNREAD_SECONDS = 30.0
"""How long a client may leave an answer unread."""
COMING_SECONDS = 1.0
"""How long a node that ends waits for the request of a client that has just connected, and for one
that goes on sending after its answer."""
LINGER_SECONDS = 1.0
"""How long what a refused client still sends is thrown away, so that it can read why. (A body that
nobody wants any more is for as long as one may take, and up to `MOST_UNWANTED_BYTES`.)"""

_malformed = RareWarning("malformed_requests")

ANSWER = "coordinator.answer"
"""The ASGI extension by which `web/fast_path.py` answers, with scope, status, headers and body."""


class CoordinatorProtocol(LimitedParsing):
    """uvicorn's HTTP protocol with our limits; made for one server by `http_protocol`.

    Attributes:
        deadline: on the loop's clock, when the connection is ended; None while a request is served.
    """

    handler: UpgradeHandler
    tcp_connections: TcpConnections
    host_names: frozenset[str]
    prompts: Prompts
    pings: Beat

    cycle: Any = None  # uvicorn's, or a `PromptRequest`
    slot: Slot | None = None
    deadline: float | None = None
    unread_deadline: float | None = None
    watch: asyncio.TimerHandle | None = None
    has_hung_up = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = transport.get_extra_info("peername")
        self.slot = self.tcp_connections.admit(peer[0] if isinstance(peer, tuple) else "")
        if self.slot is None:
            transport.abort()
            return
        super().connection_made(transport)
        joined: Any = JoinedWrites(transport, self.loop)
        joined.lingers = self._lingers
        self.transport = joined
        self.flow = HeldFlow(transport)
        self.deadline = self.loop.time() + REQUEST_SECONDS
        self.watch = self.loop.call_later(REQUEST_SECONDS, self._watch)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.slot is None:
            return
        self.slot.leave()
        self._watch_no_more()
        self._forget_itself()
        super().connection_lost(exc)

    def _forget_itself(self) -> None:
        """What names this protocol, and is named by it, would wait for the garbage collector."""
        joined: Any = self.transport
        joined.lingers = None
        if self.scope is not None:
            self.scope.pop("extensions", None)

    def _watch(self) -> None:
        # One timer per connection looks by and by: one per request costs more than parsing it.
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

    def shutdown(self) -> None:
        # A new one has asked nothing yet: a proxy connects for a request, which is on its way.
        is_new = self.cycle is None
        if not is_new:
            super().shutdown()
        # One that closes has its answer, and may still be sending.
        if self.deadline is not None and (is_new or self.transport.is_closing()):
            self.deadline = min(self.deadline, self.loop.time() + COMING_SECONDS)
            self._watch_no_more()
            self._watch()

    def pause_writing(self) -> None:
        self.unread_deadline = self.loop.time() + UNREAD_SECONDS
        super().pause_writing()

    def resume_writing(self) -> None:
        self.unread_deadline = None
        super().resume_writing()

    # -- a request ------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.head = RequestHead()
        due = self.loop.time() + REQUEST_SECONDS
        if self.deadline is None or due < self.deadline:
            self.deadline = due  # bytes of a request do not put off the end of an idle connection
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        head = self.head
        if head is not None:
            if wrong := head.whole(self.parser.get_http_version()):
                self._stop_at(wrong)
            if self.host_names and (wrong := head.foreign(self.host_names)):
                self._stop_at(wrong)
            self.head = None
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # it would not understand (RFC 9110, section 10.1.1)
        if self.parser.should_upgrade() and self._is_wrong_upgrade():
            self._stop_at(request_head.NO_UPGRADE)
        request = self._prompt_request()
        if request is not None:
            self.cycle = request
        else:
            self._begin_cycle()
        self.deadline = self.loop.time() + REQUEST_SECONDS
        if self.handler.is_moving() and not self.parser.should_upgrade():
            # A proxy that keeps this connection would use it until the very end.
            self.cycle.keep_alive = False

    def _begin_cycle(self) -> None:
        """uvicorn's way: an ASGI scope, and a task or a place in the pipeline."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.trailers = RequestHead()  # the head of a first chunk may follow
        self.headers += headers  # the scope has this very list
        self.url, self.expect_100_continue = url, expects
        super().on_headers_complete()
        request_head.keep_encoded_slashes(self.scope, url)
        extensions: dict[str, Any] = {ANSWER: self.answer}
        self.scope["extensions"] = extensions

    def on_body(self, body: bytes) -> None:
        self.trailers = None
        if type(self.cycle) is PromptRequest:
            self.cycle.body += body
        elif self.cycle.response_complete:
            self.unwanted_bytes += len(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.has_unread_body():
            return
        cycle, self.trailers, self.unwanted_bytes = self.cycle, None, 0
        if type(cycle) is PromptRequest:
            self.deadline = None
            cycle.more_body = False
            self.prompts.start(cycle, self._tell)
            return
        super().on_message_complete()
        if cycle is not None and cycle.response_complete:
            self.deadline = self.loop.time() + IDLE_SECONDS
        else:
            self.deadline = None

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self.refusal is not None:
            self._send_refusal(self.refusal)
        else:
            rests = REQUEST_SECONDS if self.cycle.more_body else IDLE_SECONDS
            self.deadline = self.loop.time() + rests
        if self.unparsed and not self.pipeline:  # the last one's body may be in it
            self.loop.call_soon(self._parse_rest)

    def _parse_rest(self) -> None:
        if self.parser is not None and self.refusal is None and not self.transport.is_closing():
            self._parse(self.unparsed)

    def answer(self, scope: Any, status: int, headers: Headers, body: bytes) -> bool:
        """Sends a whole answer by one write; False where that is left to uvicorn's `send`."""
        cycle = self.cycle
        if cycle.scope is not scope or self.flow.write_paused:
            return False
        if cycle.disconnected:
            return True
        cycle.response_started = cycle.response_complete = True
        self._write(status, headers, body, keep_alive=cycle.keep_alive)
        cycle.on_response()
        return True

    def _write(self, status: int, headers: Headers, body: bytes, *, keep_alive: bool) -> None:
        """A whole answer by one write."""
        joined: Any = self.transport
        all_headers = (*self.server_state.default_headers, *headers)
        joined.write_at_once(answer_bytes(status, all_headers, body, keep_alive=keep_alive))
        if not keep_alive:
            self.transport.close()

    def _prompt_request(self) -> PromptRequest | None:
        """The request whose head has come, where it is one that is answered so.

        That is where nothing is special about it: no other one before it waits for its answer, and
        the client reads.
        """
        begin = self.prompts.find(self.url)
        if begin is None or self.pipeline or self.flow.write_paused:
            return None
        if self.cycle is not None and not self.cycle.response_complete:
            return None
        parser = self.parser
        is_post = parser.get_method() == b"POST" and parser.get_http_version() == "1.1"
        if not is_post or parser.should_upgrade() or not is_plain(self.headers):
            return None
        scope = {
            "type": "http", "method": "POST", "path": self.prompts.path(self.url),
            "headers": self.headers, "client": self.client,
        }  # fmt: skip
        return PromptRequest(begin, scope, parser.should_keep_alive(), time.perf_counter())

    def _tell(self, request: PromptRequest, outcome: Outcome) -> None:
        """Its outcome is there; a client that has hung up meanwhile is not told."""
        request.response_complete = True
        if not self.transport.is_closing():
            self._write(*outcome, keep_alive=request.keep_alive)
        self.on_response_complete()

    def _is_wrong_upgrade(self) -> bool:
        is_good = self.parser.get_method() == b"GET" and self.parser.get_http_version() == "1.1"
        # The answer of an earlier request would come among the frames, and a body as frames.
        is_first = self.cycle is None or self.cycle.response_complete
        is_bare = not self.has_unread_body()
        return not (is_good and is_first and is_bare) and self._should_upgrade()

    def begin_websocket(self, early: bytes) -> None:
        try:
            path, query = request_head.target_parts(self.url)
        except httptools.HttpParserInvalidURLError:
            self.refuse(request_head.MALFORMED)
            return
        if not self.handler.matches(path):
            self.refuse(request_head.NO_PATH)
            return
        if not is_handshake(headers := RequestHeaders(self.scope["headers"])):
            self.refuse(request_head.NO_HANDSHAKE)
            return
        self._watch_no_more()
        self._forget_itself()
        self.connections.discard(self)
        joined: Any = self.transport
        joined.flush()
        held: Any = self.flow
        held.hold(False)
        assert self.slot is not None, "it was admitted"
        live = LiveSocket(
            joined.plain, self.server_state, path=path, query=query, slot=self.slot,
            pings=self.pings,
        )  # fmt: skip
        joined.set_protocol(live)
        live.open(headers, self.handler.choose)
        self.handler.accept(live)
        self.parser = None  # type: ignore[assignment]  # the cycle would outlive us for long
        if early:
            live.data_received(early)

    def refuse(self, refusal: RefusedHead) -> None:
        """Answers what never became a request, after those that did, and hangs up."""
        self.refusal = refusal
        self.unparsed = b""
        REFUSED_REQUESTS.labels(refusal.reason).inc()
        if refusal is request_head.MALFORMED:
            _malformed(address=self.client[0] if self.client else "")
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._send_refusal(refusal)
        elif self.pipeline:
            if cycle.more_body:  # it waits, and will not be whole: it is what is refused
                self.pipeline.popleft()
        elif cycle.more_body:  # it is the request that is being served whose body is broken
            cycle.disconnected = True
            cycle.message_event.set()
            self._send_refusal(refusal)

    def _send_refusal(self, refusal: RefusedHead) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(refusal.answer(self.url))
        self._linger(LINGER_SECONDS)

    def hang_up(self) -> None:
        if not self.has_hung_up:
            self.has_hung_up, self.is_over, self.unparsed = True, True, b""
            self._linger(LINGER_SECONDS)

    def _lingers(self) -> bool:
        """True where the last answer goes to a client that is still sending its request's body."""
        cycle = self.cycle
        if cycle is None or not cycle.more_body or self.refusal is not None:
            return False
        self.is_over, self.unparsed = True, b""
        self._linger(REQUEST_SECONDS)
        return True

    def _linger(self, seconds: float) -> None:
        """Ends the connection for the client, and throws away for a while what it still sends.

        Closing with bytes unread would take the answer from it (RFC 9112, section 9.6).
        """
        joined: Any = self.transport
        joined.flush()
        joined.write_eof()
        held: Any = self.flow
        held.hold(False)
        self.flow.resume_reading()
        self.deadline = self.loop.time() + seconds
        self._watch_no_more()
        self.watch = self.loop.call_later(seconds, self._watch)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio looks at it
        """True keeps the connection: a client that has said all it had to say may still listen."""
        joined: Any = self.transport
        joined.flush()  # an answer of this turn, while the connection can still be written to
        cycle = self.cycle
        is_served = cycle is not None and not (cycle.response_complete or cycle.more_body)
        if is_served and self.refusal is None:
            cycle.keep_alive = False
        return bool(is_served)  # where a refusal follows, it is sent after that answer


_NEVER = float("inf")
_ANY: frozenset[str] = frozenset()


def http_protocol(
    handler: UpgradeHandler,
    tcp_connections: TcpConnections,
    prompts: Prompts,
    *,
    host_names: frozenset[str] = _ANY,
) -> type[CoordinatorProtocol]:
    """The protocol class of one server: websockets go to `handler`. No `host_names`: any."""
    members = {
        "handler": handler,
        "tcp_connections": tcp_connections,
        "prompts": prompts,
        "host_names": host_names,
        "pings": Beat(websocket.PING_SECONDS),
    }
    return type("ServerProtocol", (CoordinatorProtocol,), members)

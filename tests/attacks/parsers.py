"""Bytes that nobody should send, given to the HTTP protocol and to the websocket's frames.

    python -m tests.attacks.parsers --inputs 100000

Each input is a connection of its own, made by hypothesis: requests and frames, whole or broken, cut
anywhere. No socket is used and time is virtual, so an input costs a millisecond. Whatever comes:

- nothing raises, and no task or timer does,
- what is answered is HTTP, and no more answers than requests were sent,
- every frame is counted, as an account of its own says that knows only what was sent,
- a connection that has ended leaves nothing: no seat, no task, no object.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import socket
import weakref
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import structlog
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from coordinator.live.allowance import FrameAllowance, FrameVerdict
from coordinator.live.websocket import MAX_MESSAGE_BYTES, LiveSocket, Refused
from coordinator.web.http_protocol import http_protocol
from coordinator.web.tcp_connections import TcpConnections
from tests.harness.http_server import Handler, hot_app
from tests.simulation.virtual_time import VirtualLoop

SEED = 20261126
LONGER_THAN_ANY_DEADLINE = 200.0
"""Seconds (virtual ones) until whatever a connection left behind has run out."""

# -- what is sent ----------------------------------------------------------------------------------

Chunks = Sequence[bytes]

_TARGETS = st.sampled_from(
    [b"/hot/1", b"/hot/1?0.01", b"/prompt", b"/prompt?0.01", b"/live", b"/live?since=1", b"/", b"*",
     b"//", b"http://x/live", b"http://", b"http://x", b"http://x:99999/live", b"x:443",
     b"/%zz\xff", b"/api/open/%00", b""]
)  # fmt: skip
_METHODS = st.sampled_from([b"GET", b"POST", b"HEAD", b"CONNECT", b"PATCH", b"get", b"\x00"])
_VERSIONS = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1x", b""])
_UPGRADE = (
    b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
_HEADER_LINES = st.sampled_from(
    [b"host: x\r\n", b"host: x\r\n", b"host: x\r\n", b"Host: y\r\n", b"connection: close\r\n",
     b"connection: keep-alive, Upgrade\r\n", b"content-length: 3\r\n", b"content-length: 5\r\n",
     b"content-length: 99999999999999999999\r\n", b"content-length: -1\r\n",
     b"transfer-encoding: chunked\r\n", b"transfer-encoding: gzip\r\n",
     b"expect: 100-continue\r\n", b"upgrade: h2c\r\n", b": empty\r\n", b"x y: z\r\n",
     b"folded: a\r\n b\r\n", b"x: \x00\xff\r\n", b"\n", b"x: " + b"y" * 3000 + b"\r\n", _UPGRADE]
)  # fmt: skip
_BODIES = st.sampled_from(
    [b"", b"", b"0.1", b"0.1", b"abc", b"abcde", b"3\r\nabc\r\n0\r\n\r\n",
     b"ffffffffffffffffff\r\n", b"-1\r\n", b"0;x=y\r\nt: u\r\n\r\n"]
)  # fmt: skip


def _request(parts: tuple[bytes, bytes, bytes, list[bytes], bytes]) -> bytes:
    method, target, version, lines, body = parts
    return b"%b %b %b\r\n%b\r\n%b" % (method, target, version, b"".join(lines), body)


REQUESTS = st.one_of(
    st.tuples(
        st.one_of(st.just(b"GET"), st.just(b"POST"), _METHODS), _TARGETS,
        st.one_of(st.just(b"HTTP/1.1"), _VERSIONS), st.lists(_HEADER_LINES, max_size=4), _BODIES,
    ).map(_request),
    _TARGETS.map(lambda at: b"GET %b HTTP/1.1\r\nhost: x\r\n%b\r\n" % (at, _UPGRADE)),
    st.sampled_from(
        [b"GET /hot/1 HTTP/1.1\r\nhost: x\r\n\r\n",
         b"POST /prompt HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n0.1"]
    ),
    st.binary(max_size=40),
)  # fmt: skip

TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


@cache
def frame(kind: int, *, is_last: bool, payload: bytes, mask: bytes = b"\x01\x02\x03\x04") -> bytes:
    """A client's frame as RFC 6455 has it, its length in as few bytes as possible."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return bytes((0x80 * is_last | kind,)) + length + mask + masked


Made = tuple[int, bool, bytes]
"""Kind, whether it is the last of its message, payload."""

_SIZES = st.sampled_from([0, 0, 1, 5, 125, 126, 4096, MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES + 1])
FRAMES: st.SearchStrategy[Made] = st.one_of(
    st.tuples(st.sampled_from([TEXT, BINARY, CONT, CONT]), st.booleans(), _SIZES).map(
        lambda made: (made[0], made[1], b"a" * made[2])
    ),
    st.tuples(st.sampled_from([PING, PONG]), st.just(True), st.sampled_from([b"", b"x" * 125])),
    st.just((CLOSE, True, b"\x03\xe8")),
)  # fmt: skip
_PIECES = st.tuples(st.lists(FRAMES, max_size=12), st.sampled_from([1, 1, 1, 20, 60]))


def accounted(frames: Sequence[Made]) -> int:
    """How many of these frames count: until one ends the connection, all but the close."""
    count, size, is_open = 0, 0, False
    for kind, is_last, payload in frames:
        if kind == CLOSE:
            break
        if kind in (TEXT, BINARY, CONT):
            if (kind == CONT) != is_open:
                break
            size = size + len(payload) if is_open else len(payload)
            if size > MAX_MESSAGE_BYTES:
                break
            is_open = not is_last
        elif is_open and size + len(payload) > MAX_MESSAGE_BYTES:
            break  # `websockets` gives a ping no more room than its message has left
        count += 1
    return count


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The same in pieces, as a network may deliver it."""
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(marks)]


CUTS = st.lists(st.integers(0, 2000), max_size=4)

# -- who receives it -------------------------------------------------------------------------------


class Wire:
    """A transport that keeps what is written to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.written = bytearray()
        self.protocol: Any = None
        self._loop = loop
        self._is_closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": self.getpeername(), "socket": self}.get(name, default)

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 80

    def getpeername(self) -> tuple[str, int]:
        return "203.0.113.7", 4711

    def setsockopt(self, level: int, name: int, value: int) -> None:
        assert level == socket.SOL_SOCKET
        assert (name, value) != (0, 0)

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def write(self, data: bytes) -> None:
        assert not self._is_closing, "written after the end"
        self.written += data

    def writelines(self, pieces: Sequence[bytes]) -> None:
        self.write(b"".join(pieces))

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self._lose)

    abort = close

    def _lose(self) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connection_lost(None)

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


class Counting(FrameAllowance):
    """Notes when it is asked. Its socket alone holds it: it lives as long."""

    __slots__ = ("__weakref__", "_asked")

    def __init__(self, now: float, asked: list[float]) -> None:
        super().__init__(now)
        self._asked = asked

    def take(self, now: float) -> FrameVerdict:
        self._asked.append(now)
        return super().take(now)


class Deaf:
    """Hears everything, and remembers nothing."""

    def on_text(self, text: bytes) -> None:
        text.decode()

    def on_refused(self, why: Refused) -> None:
        assert isinstance(why, Refused)

    def on_slow(self) -> None:
        pass

    def on_lost(self) -> None:
        pass


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body of whatever is asked for elsewhere, and answers that it is not there."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


_APP = hot_app(_nothing)


def _config() -> uvicorn.Config:
    config = uvicorn.Config(
        _APP, log_config=None, access_log=False, ws="websockets-sansio", proxy_headers=False
    )
    config.load()
    return config


class Attacked:
    """A server without sockets for one connection, and what went wrong in it.

    Attributes:
        counted: when frames of websockets were counted.
    """

    def __init__(self, loop: VirtualLoop, config: uvicorn.Config) -> None:
        self.loop = loop
        self.wrong: list[dict[str, Any]] = []
        self.counted: list[float] = []
        self._alive: list[weakref.ref[Any]] = []
        self.seats = TcpConnections(most=10, per_address=0, trusted=())
        self.state = ServerState()
        self._protocol = http_protocol(Handler(self._accept), self.seats, _APP.prompts)
        self._config = config
        loop.set_exception_handler(lambda _, context: self.wrong.append(context))

    def _accept(self, live: LiveSocket) -> None:
        live._allowance = Counting(self.loop.time(), self.counted)
        self._alive.append(weakref.ref(live._allowance))
        live.receiver = Deaf()

    async def receives(self, chunks: Chunks, *, says_goodbye: bool) -> bytes:
        """What is answered to a connection's bytes; all of it has ended when this returns."""
        wire = Wire(self.loop)
        protocol = self._protocol(self._config, self.state, {})
        wire.protocol = protocol
        self._alive.append(weakref.ref(protocol))
        protocol.connection_made(wire)  # type: ignore[arg-type]
        del protocol
        for chunk in chunks:
            if wire.protocol is None or wire.is_closing():
                break
            wire.protocol.data_received(chunk)
            await asyncio.sleep(0)
        if says_goodbye and wire.protocol is not None and not wire.is_closing():
            wire.protocol.eof_received()
            wire.close()
        if isinstance(wire.protocol, LiveSocket):
            await asyncio.sleep(0.5)
            wire.abort()
        await asyncio.sleep(LONGER_THAN_ANY_DEADLINE)
        assert wire.protocol is None, "it outlives every deadline"
        assert self.wrong == []
        assert (self.seats.open, self.state.connections, self.state.tasks) == (0, set(), set())
        self._leaves_nothing()
        return bytes(wire.written)

    def _leaves_nothing(self) -> None:
        if any(each() is not None for each in self._alive):
            gc.collect()  # a refusal's exception and its frames hold each other
        assert [each for each in self._alive if each() is not None] == [], "an object is left"


# -- the attacks -----------------------------------------------------------------------------------


def attack_http(inputs: int, told: Callable[[int], None]) -> None:
    """Connections of requests and of what looks like some."""
    loop, config = VirtualLoop(), _config()

    @_many(inputs)
    @given(st.lists(REQUESTS, max_size=4), CUTS, st.booleans())
    def attack(requests: list[bytes], places: list[int], says_goodbye: bool) -> None:
        chunks = cut(b"".join(requests), places)
        server = Attacked(loop, config)
        answer = loop.run_until_complete(server.receives(chunks, says_goodbye=says_goodbye))
        assert answer == b"" or answer.startswith(b"HTTP/1.1 "), answer
        assert answer.count(b"HTTP/1.1 ") <= b"".join(requests).count(b"\n") + 1
        told(1)

    try:
        attack()
    finally:
        loop.close()


def attack_frames(inputs: int, told: Callable[[int], None]) -> None:
    """Websockets that send frames, and now and then something else at the end."""
    loop, config = VirtualLoop(), _config()
    hello = b"GET /live HTTP/1.1\r\nhost: x\r\n" + _UPGRADE + b"\r\n"

    @_many(inputs)
    @given(_PIECES, st.one_of(st.just(b""), st.binary(max_size=30)), CUTS)
    def attack(pieces: tuple[list[Made], int], garbage: bytes, places: list[int]) -> None:
        frames = pieces[0] * pieces[1]
        sent = b"".join(frame(k, is_last=last, payload=load) for k, last, load in frames)
        chunks = [hello, *cut(sent + garbage, places)]
        server = Attacked(loop, config)
        answer = loop.run_until_complete(server.receives(chunks, says_goodbye=False))
        assert answer.startswith(b"HTTP/1.1 101 ")
        expected, counted = accounted(frames), len(server.counted)
        most = expected + (len(garbage) if expected == len(frames) else 0)
        assert expected <= counted <= most, (expected, counted)
        told(1)

    try:
        attack()
    finally:
        loop.close()


def _many(inputs: int) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """So many inputs, the same ones each time; one that fails is made small and printed."""

    def decorated(attack: Callable[[], None]) -> Callable[[], None]:
        chosen = settings(
            max_examples=inputs, deadline=None, database=None, print_blob=True,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
        )  # fmt: skip
        return seed(SEED)(chosen(attack))

    return decorated


def _main(inputs: int) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    gc.freeze()  # what is there already is not looked at each time
    for name, attack in (("HTTP", attack_http), ("frames", attack_frames)):
        counts: list[int] = []
        attack(inputs, counts.append)
        print(  # noqa: T201
            f"{name}: {len(counts)} inputs; nothing raised, was left, or went uncounted"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tests.attacks.parsers")
    parser.add_argument("--inputs", type=int, default=100_000, help="of each of the two")
    _main(parser.parse_args().inputs)

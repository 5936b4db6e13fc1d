"""Websocket frames as a client sends and receives them (RFC 6455, section 5), without I/O.

`Reader.read` says what a chunk of received bytes holds. All connections of a room receive the same
bytes, cut in different places: `Stream` reads them once, and for each further connection compares
them. That is what keeps a client of a thousand connections cheaper than the server that feeds it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
NAME = "load-"
"""Every name that a load test gives to a guest: `load-<number>-<nanoseconds when it was sent>`."""

_REMEMBERED = 512  # chunks; more than one turn of the loop ever shares
_LONGEST_STREAM = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node listens."""

    host: str
    port: int
    tls: bool = False


class WireError(Exception):
    """The server sent what no websocket server may send; the message says what."""


def frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame. Its mask is zero, which is a legal mask and leaves the payload as it is."""
    size = len(payload)
    if size < 126:
        header = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        header = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        header = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    return header + bytes(4) + payload


def upgrade(host: str, path: str, headers: tuple[str, ...] = ()) -> bytes:
    """The request that opens a websocket. The nonce is fixed: nobody caches on this way."""
    lines = (
        f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: bG9hZHRlc3QtbG9hZHRlcw==", *headers,
    )  # fmt: skip
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def frames(data: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """The whole frames at the start of `data`, and how many bytes they take."""
    found, at, end = [], 0, len(data)
    while end - at >= 2:
        size, head = data[at + 1], 2
        if size == 126:
            size, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        elif size == 127:
            size, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
        if at + head + size > end:
            break
        if not data[at] & 0x80:
            raise WireError("the server sent a fragment, which ours never does")
        found.append((data[at] & 15, data[at + head : at + head + size]))
        at += head + size
    return found, at


class Person(msgspec.Struct, rename="camel", frozen=True):
    """As much of an event's participant as is looked at."""

    user_name: str = ""


class Frame(msgspec.Struct, rename="camel", frozen=True):
    """As much of any server frame as is looked at."""

    type: str
    seq: int = 0
    code: int = 0
    resumed: bool = False
    participant: Person | None = None


_decode = msgspec.json.Decoder(Frame).decode
_NOT_EVENTS = frozenset(("welcome", "ping", "pong", "error", "bye", "refreshed"))


@dataclass(slots=True)
class Reading:
    """What a chunk of received bytes says.

    Attributes:
        first, last: seq of its first and last event; 0 where it has none.
        events: how many.
        gapless: each is the one before plus 1.
        sent: when the joins among them were sent, in nanoseconds of the monotonic clock.
        welcome: seq of the welcome in it, None where there is none.
        bye: the close code that a `bye` names, else 0.
        answer: what the client must send back (pongs).
        closed: it ends with a close frame.
        taken: bytes that belong to whole frames; the rest waits for more.
    """

    first: int = 0
    last: int = 0
    events: int = 0
    gapless: bool = True
    sent: list[int] = field(default_factory=list)
    welcome: int | None = None
    bye: int = 0
    answer: bytes = b""
    closed: bool = False
    taken: int = 0

    def add_event(self, seq: int, name: str) -> None:
        if not self.events:
            self.first = seq
        elif seq != self.last + 1:
            self.gapless = False
        self.last = seq
        self.events += 1
        if name.startswith(NAME):
            self.sent.append(int(name.rsplit("-", 1)[1]))


Dialect = Callable[[bytes, Reading], None]
"""Reads one text frame into a `Reading`."""


def live(text: bytes, reading: Reading) -> None:
    """The product's frames."""
    said = _decode(text)
    if said.type not in _NOT_EVENTS:
        reading.add_event(said.seq, said.participant.user_name if said.participant else "")
    elif said.type == "welcome":
        reading.welcome = said.seq
    elif said.type == "bye":
        reading.bye = said.code


def socketio(text: bytes, reading: Reading) -> None:
    """Socket.IO 4 over Engine.IO 4, without binary attachments.

    `0{…}` opens (answered `40`), `2` asks for a `3`, `42["live",{…}]` is one emitted message.
    """
    if text.startswith(b'42["live",'):
        live(text[len(b'42["live",') : -1], reading)
    elif text.startswith(b"0{"):
        reading.answer += frame(TEXT, b"40")
    elif text == b"2":
        reading.answer += frame(TEXT, b"3")


DIALECTS: dict[str, Dialect] = {"live": live, "socketio": socketio}


class Reader:
    """Reads chunks in one dialect, the same chunk only once."""

    def __init__(self, dialect: str) -> None:
        self._dialect = DIALECTS[dialect]
        self._known: dict[bytes, Reading] = {}

    def read(self, data: bytes) -> Reading:
        """What `data`, which starts with a frame, says."""
        known = self._known.get(data)
        if known is None:
            known = self._parse(data)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[data] = known
        return known

    def _parse(self, data: bytes) -> Reading:
        found, taken = frames(data)
        reading = Reading(taken=taken)
        for opcode, payload in found:
            if opcode == TEXT:
                self._dialect(payload, reading)
            elif opcode == PING:
                reading.answer += frame(PONG, payload)
            elif opcode == CLOSE:
                reading.closed = True
        return reading


class Stream:
    """What all connections of a room receive, as far as one of them has received it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._text = bytearray()
        self._ends: list[int] = []
        self._before = 0

    def read(self, seq: int, data: bytes) -> Reading:
        """What `data` says to a connection that has had every event up to `seq`."""
        return self._follow(seq, data) or self._reader.read(data)

    def _follow(self, seq: int, data: bytes) -> Reading | None:
        """None where it is not the stream that everybody receives."""
        had = seq - self._before
        if had > len(self._ends) or not self._ends or len(self._text) > _LONGEST_STREAM:
            self._text.clear()  # it is begun anew, here
            self._ends.clear()
            self._before, had = seq, 0
        if had < 0:
            return None
        start = self._ends[had - 1] if had else 0
        known = len(self._text) - start
        if len(data) <= known:
            is_same = self._text.startswith(data, start)
        else:
            is_same = data.startswith(self._text[start:]) and self._lengthen(data[known:])
        if not is_same:
            return None
        got = bisect_right(self._ends, start + len(data))
        if got <= had:
            return None
        return Reading(
            first=seq + 1, last=self._before + got, events=got - had,
            taken=self._ends[got - 1] - start,
        )  # fmt: skip

    def _lengthen(self, data: bytes) -> bool:
        """Takes the events that follow; False where anything else is among them."""
        found = self._reader.read(data)
        expected = self._before + len(self._ends) + 1
        whole, _ = frames(data)
        if not found.gapless or found.events != len(whole) or (whole and found.first != expected):
            return False
        at = len(self._text)
        self._text += data[: found.taken]
        for _, payload in whole:
            at += len(payload) + (2 if len(payload) < 126 else 4 if len(payload) < 65536 else 10)
            self._ends.append(at)
        return True

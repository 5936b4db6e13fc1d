"""Keep-alive HTTP/1.1 connections, cheap enough to drive a server to its limit.

`Line` is one connection with one request at a time; its answers go to a callback, since a future
per request would cost as much as the request. `Lines.ask` is the comfortable way for the rest.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from loadtest.figures import Histogram
from loadtest.watch import SLOT_NS
from tests.harness.wire import Address


class Answered(Exception):
    """The server answered with something else than was asked for.

    Attributes:
        status: HTTP status. code: the `code` of the answer, where it has one.
    """

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        try:
            self.code = str(msgspec.json.decode(body).get("code", ""))
        except (msgspec.DecodeError, AttributeError):
            self.code = ""
        super().__init__(f"HTTP {status} {self.code}: {body[:300].decode('utf-8', 'replace')}")


Then = Callable[[int, bytes], None]
"""Gets the status and the body; status 0: the connection was lost."""


class Line(asyncio.Protocol):
    """One connection. It is `idle` until `send`, and again when its callback is called."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.then: Then | None = None
        self.buffer = b""

    @classmethod
    async def open(cls, address: Address) -> Line:
        context = ssl.create_default_context() if address.tls else None
        _, line = await asyncio.get_running_loop().create_connection(
            cls, address.host, address.port, ssl=context
        )
        return line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._answer(0, str(error or "closed").encode())

    @property
    def is_open(self) -> bool:
        return self.transport is not None

    def send(self, request: bytes, then: Then) -> None:
        """Sends a request; `then` is called once, with the answer or with status 0."""
        self.then = then
        if self.transport is None:
            self._answer(0, b"the connection is closed")
        else:
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer + data if self.buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            self.buffer = buffer
            return
        size = _content_length(buffer[:end])
        if len(buffer) < end + 4 + size:
            self.buffer = buffer
            return
        self.buffer = b""
        self._answer(int(buffer[9:12]), buffer[end + 4 : end + 4 + size])

    def _answer(self, status: int, body: bytes) -> None:
        then, self.then = self.then, None
        if then is not None:
            then(status, body)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


def _content_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"content-length:")
    if at < 0:
        return 0
    end = lower.find(b"\r\n", at)
    return int(lower[at + 15 : end if end > 0 else None])


class Lines:
    """A few connections to some nodes, and plain calls over them."""

    def __init__(self, addresses: list[Address]) -> None:
        self.addresses = addresses
        self.all: list[Line] = []
        self._asking: asyncio.Lock = asyncio.Lock()

    async def grow(self, count: int) -> list[Line]:
        """At least `count` open connections, the nodes in turn; returns that many."""
        self.all = [line for line in self.all if line.is_open]
        while len(self.all) < count:
            address = self.addresses[len(self.all) % len(self.addresses)]
            self.all.append(await Line.open(address))
        return self.all[:count]

    def request(self, method: str, path: str, body: Any = None, token: str | None = None) -> bytes:
        """The bytes of a request."""
        raw = msgspec.json.encode(body) if body is not None else b""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.addresses[0].host}"]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(raw)}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + raw

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = None
    ) -> Any:
        """The `data` of the answer.

        Raises:
            Answered: the status was not 200. OSError: the connection was lost.
        """
        async with self._asking:
            (line,) = await self.grow(1)
            status, answer = await exchange(line, self.request(method, path, body, token))
        if status == 0:
            raise OSError(answer.decode())
        if status != 200:
            raise Answered(status, answer)
        return msgspec.json.decode(answer).get("data")

    def close(self) -> None:
        for line in self.all:
            line.close()
        self.all = []


async def exchange(line: Line, request: bytes) -> tuple[int, bytes]:
    """One request and its answer."""
    done: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def then(status: int, body: bytes) -> None:
        if not done.done():
            done.set_result((status, body))

    line.send(request, then)
    return await asyncio.wait_for(done, 30)


@dataclass(slots=True)
class Driven:
    """What came of a drive.

    Attributes:
        done: requests answered 200.
        failed: `HTTP <status> <code>` -> how many.
        slots: time slot -> answers.
        last_seq: room -> the highest `seq` that an answer named, where `rooms` were given.
    """

    done: int = 0
    first_ns: int = 0
    last_ns: int = 0
    latency: Histogram = field(default_factory=Histogram)
    failed: dict[str, int] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)
    last_seq: dict[str, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        return self.done / max((self.last_ns - self.first_ns) / 1e9, 1e-9)


class _Joined(msgspec.Struct, rename="camel"):
    room_id: str = ""
    seq: int = 0


class _JoinAnswer(msgspec.Struct):
    data: _Joined


_joined = msgspec.json.Decoder(_JoinAnswer).decode


class Drive:
    """Sends requests as fast as answers come (`closed`), or at a given pace (`open`).

    `requests(sent_ns)` makes the next request, or None where there are no more; `joins`:
    the answers are those of joins, whose seq is kept.
    """

    def __init__(self, requests: Callable[[int], bytes | None], *, joins: bool = False) -> None:
        self._requests = requests
        self._joins = joins
        self.driven = Driven()
        self._under_way = 0
        self._finished: asyncio.Future[None] | None = None
        self._until_ns = 0

    async def closed(self, lines: list[Line], *, seconds: float, at_most: float = 120) -> Driven:
        """One request after the other on each line, for `seconds` or until there are no more.

        Raises:
            TimeoutError: answers are missing after `at_most` seconds.
        """
        self._finished = asyncio.get_running_loop().create_future()
        self.driven.first_ns = time.monotonic_ns()
        self._until_ns = self.driven.first_ns + int(seconds * 1e9)
        self._under_way = len(lines)
        for line in lines:
            self._next(line)
        await asyncio.wait_for(self._finished, at_most)
        return self.driven

    def _next(self, line: Line) -> None:
        now = time.monotonic_ns()
        request = self._requests(now) if now < self._until_ns and line.is_open else None
        if request is None:
            self._one_less()
            return

        def then(status: int, body: bytes) -> None:
            self._take(status, body, now)
            self._next(line)

        line.send(request, then)

    def _one_less(self) -> None:
        self._under_way -= 1
        if not self._under_way and self._finished is not None and not self._finished.done():
            self._finished.set_result(None)

    def _take(self, status: int, body: bytes, sent_ns: int) -> None:
        now, driven = time.monotonic_ns(), self.driven
        driven.last_ns = now
        if status != 200:
            why = str(Answered(status, body))[:160] if status else "connection lost"
            driven.failed[why] = driven.failed.get(why, 0) + 1
            return
        driven.done += 1
        driven.latency.add(now - sent_ns)
        slot = now // SLOT_NS
        driven.slots[slot] = driven.slots.get(slot, 0) + 1
        if self._joins:
            joined = _joined(body).data
            if joined.seq > driven.last_seq.get(joined.room_id, 0):
                driven.last_seq[joined.room_id] = joined.seq

    async def open(self, lines: list[Line], *, per_second: float, seconds: float) -> Driven:
        """Sends `per_second` requests, evenly; latency counts from when each was due.

        A request that finds no idle line waits for one, and that wait is part of its latency.
        """
        idle, late = list(lines), list[int]()
        loop = asyncio.get_running_loop()
        start = time.monotonic_ns()
        self.driven.first_ns = start

        def send(due: int) -> None:
            if not idle:
                late.append(due)
                return
            line = idle.pop()
            request = self._requests(due)
            if request is None:
                return
            self._under_way += 1
            line.send(request, lambda status, body: answered(line, due, status, body))

        def answered(line: Line, due: int, status: int, body: bytes) -> None:
            self._under_way -= 1
            self._take(status, body, due)
            idle.append(line)
            if late:
                send(late.pop(0))

        began = loop.time()
        for number in range(int(per_second * seconds)):
            loop.call_at(began + number / per_second, send, start + int(number / per_second * 1e9))
        await asyncio.sleep(seconds)
        for _ in range(3000):
            if not self._under_way and not late:
                break
            await asyncio.sleep(0.01)
        return self.driven


def joins(lines: Lines, rooms: list[str], numbers: Iterator[int]) -> Callable[[int], bytes | None]:
    """Requests that join the rooms in turn, each under a name that tells when it was sent."""
    head = (
        f"POST /api/interview/guest/join HTTP/1.1\r\nHost: {lines.addresses[0].host}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    )

    def request(sent_ns: int) -> bytes | None:
        number = next(numbers, None)
        if number is None:
            return None
        body = (
            f'{{"roomId":"{rooms[number % len(rooms)]}","userName":"load-{number}-{sent_ns}",'
            '"identity":"candidate"}'
        )
        return f"{head}{len(body)}\r\n\r\n{body}".encode()

    return request

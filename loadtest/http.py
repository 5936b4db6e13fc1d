"""Drives a server with requests: as fast as answers come, or at an even pace."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from tests.harness.histogram import Histogram
from tests.harness.http_lines import Answered, HttpLine, Lines
from tests.harness.watch import SLOT_NS


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
    failed: Counter[str] = field(default_factory=Counter)
    slots: Counter[int] = field(default_factory=Counter)
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

    async def closed(
        self, lines: list[HttpLine], *, seconds: float, at_most: float = 120
    ) -> Driven:
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

    def _next(self, line: HttpLine) -> None:
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
            driven.failed[why] += 1
            return
        driven.done += 1
        driven.latency.add(now - sent_ns)
        driven.slots[now // SLOT_NS] += 1
        if self._joins:
            joined = _joined(body).data
            if joined.seq > driven.last_seq.get(joined.room_id, 0):
                driven.last_seq[joined.room_id] = joined.seq

    async def open(self, lines: list[HttpLine], *, per_second: float, seconds: float) -> Driven:
        """Sends `per_second` requests, evenly; latency counts from when each was due.

        A request that finds no idle line waits for one, and that wait is part of its latency.
        The lines take turns: a server may hang up on one that is never used.
        """
        idle, late = deque(lines), deque[int]()
        loop = asyncio.get_running_loop()
        start = time.monotonic_ns()
        self.driven.first_ns = start

        def send(due: int) -> None:
            if not idle:
                late.append(due)
                return
            line = idle.popleft()
            request = self._requests(due)
            if request is None:
                return
            self._under_way += 1
            line.send(request, lambda status, body: answered(line, due, status, body))

        def answered(line: HttpLine, due: int, status: int, body: bytes) -> None:
            self._under_way -= 1
            self._take(status, body, due)
            idle.append(line)
            if late:
                send(late.popleft())

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

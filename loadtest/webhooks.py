"""`webhooks`: how late a back end is told, how fast it catches up, and what it costs."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from base64 import b64encode
from datetime import datetime
from typing import Any

import msgspec

from loadtest.figures import Result, median
from loadtest.http import Drive, Driven, joins
from loadtest.measure import Bench, CannotMeasure, Run, describe
from loadtest.usage import Usage
from tests.harness.histogram import Histogram
from tests.harness.http_lines import Lines

ROOMS = 200
PACE_PER_SECOND = 50.0
IN_FLIGHT = 16
PATIENCE_SECONDS = 600.0
TURNS = 5
SETTLE_SECONDS = 3.0
"""Until every node knows that there is a webhook, or none."""
SETTINGS = {
    "DATA_KEYS": b64encode(bytes(32)).decode(),
    "WEBHOOK_ALLOW_PRIVATE": "127.0.0.0/8",
}
_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class _Sent(msgspec.Struct):
    """What of a body is looked at."""

    timestamp: str
    type: str


_decode = msgspec.json.Decoder(_Sent).decode


class Receiver:
    """A back end that takes everything at once, and notes when it came.

    Attributes:
        ids: of everything that came; a repetition is in `repeated`.
        lateness: from the event's time to its coming; milliseconds are all that a timestamp tells.
    """

    def __init__(self) -> None:
        self.ids: set[bytes] = set()
        self.repeated = 0
        self.lateness = Histogram()
        self.first_at = 0.0
        self.last_at = 0.0
        self._server: asyncio.Server | None = None

    async def listen(self) -> str:
        """Starts; the URL."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Request(self), "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    def forget(self) -> None:
        """What has come so far is of another window."""
        self.ids.clear()
        self.repeated = 0
        self.lateness = Histogram()
        self.first_at = 0.0

    def take(self, message: bytes, body: bytes) -> None:
        now = time.time()
        if message in self.ids:
            self.repeated += 1
        self.ids.add(message)
        self.first_at = self.first_at or now
        self.last_at = now
        committed = datetime.fromisoformat(_decode(body).timestamp).timestamp()
        self.lateness.add(max(1, int((now - committed) * 1e9)))

    async def has(self, count: int) -> None:
        """Waits until so many different events have come.

        Raises:
            CannotMeasure: they did not within ten minutes.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self.ids) < count:
            if time.monotonic() > deadline:
                raise CannotMeasure(f"{len(self.ids)} of {count} events came")
            await asyncio.sleep(0.05)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


class _Request(asyncio.Protocol):
    """Just enough HTTP: a head, and a body of `content-length`."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: Any = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            size = end + 4 + int(_header(head, b"content-length: "))
            if len(self._buffer) < size:
                return
            self._receiver.take(_header(head, b"webhook-id: "), self._buffer[end + 4 : size])
            self._buffer = self._buffer[size:]
            self._transport.write(_OK)


def _header(head: bytes, name: bytes) -> bytes:
    return head.partition(name)[2].partition(b"\r\n")[0]


async def webhooks(bench: Bench, *, seconds: float, backlog: int) -> Result:
    """Told at an even pace; a backlog caught up; joins with and without a webhook."""
    if bench.urls:
        raise CannotMeasure("this scenario starts what it measures: leave --url out")
    result = Result(
        "webhooks",
        f"A back end on this machine that takes everything at once is told of joins into {ROOMS}"
        f" rooms: {PACE_PER_SECOND:g} a second for {seconds:g} s; then {backlog:,} events that"
        " happened while it was disabled. At last joins as fast as answers come, without and with"
        " a webhook in turn: what it costs a node that commits.",
        {"seconds": seconds, "backlog": backlog, "rooms": ROOMS},
    )
    with bench.run(nodes=1, **SETTINGS) as run:
        describe(run, result)
        await _sending(run, result, seconds, backlog)
    with bench.run(nodes=2, **SETTINGS) as run:
        await _costs(run, result, seconds)
    return result


async def _sending(run: Run, result: Result, seconds: float, backlog: int) -> None:
    receiver = Receiver()
    url = await receiver.listen()
    async with run.rooms(ROOMS) as (lines, rooms):
        webhook = await _ask(run, lines, "POST", "", {"url": url, "name": "loadtest"})
        path = f"/{webhook['id']}"
        async with run.screen.step("an even pace"):
            await _even_pace(run, result, receiver, lines, rooms, seconds)
        await _ask(run, lines, "PATCH", path, {"enabled": False})
        async with run.screen.step(f"{backlog:,} events while it is disabled"):
            made = await _join(run, lines, rooms, count=backlog, seconds=PATIENCE_SECONDS)
        receiver.forget()
        async with run.screen.step("catching up", lambda: {"events": len(receiver.ids)}):
            before = run.deployment.parties.now()
            await _ask(run, lines, "PATCH", path, {"enabled": True})
            await receiver.has(made.done)
            usage = Usage.between(before, run.deployment.parties.now())
        took = receiver.last_at - receiver.first_at
        result.add("catching up", made.done / took, "events/s",
                   whose=usage.whose(run.deployment.cores), note=usage.text())  # fmt: skip
        result.add("catching up: server CPU", usage.server_seconds * 1e6 / made.done,
                   "µs per event")  # fmt: skip
        result.checked.append(f"each of {made.done:,} events came")
        result.add("sent twice", receiver.repeated, "events")
        await _ask(run, lines, "DELETE", path)
    receiver.close()


async def _even_pace(
    run: Run, result: Result, receiver: Receiver, lines: Lines, rooms: list[str], seconds: float
) -> None:
    drive = Drive(joins(lines, rooms, run.numbers), joins=True)
    open_lines = await lines.grow(IN_FLIGHT)
    await drive.open(open_lines, per_second=PACE_PER_SECOND, seconds=2)
    await asyncio.sleep(3)
    receiver.forget()
    driven = await Drive(joins(lines, rooms, run.numbers), joins=True).open(
        open_lines, per_second=PACE_PER_SECOND, seconds=seconds
    )
    await receiver.has(driven.done)
    result.latencies["commit → told"] = receiver.lateness
    p50, p99 = receiver.lateness.percentile(0.5), receiver.lateness.percentile(0.99)
    result.add("commit → told, median", p50, "ms")
    result.add("commit → told, p99", p99, "ms")
    if p50 > 200:
        result.broken.append(f"the median from commit to sending is {p50:.0f} ms, more than 200")


async def _costs(run: Run, result: Result, seconds: float) -> None:
    """CPU per join of a node that commits, without and with a webhook, in turn.

    The webhook asks for what does not happen, so that nothing is sent meanwhile: the two nodes
    share a core, and sending would be in the way of the joins.
    """
    receiver = Receiver()
    url = await receiver.listen()
    costs: dict[bool, list[float]] = {False: [], True: []}
    async with run.rooms(ROOMS, run.deployment.addresses[:1]) as (lines, rooms):
        await _join(run, lines, rooms, seconds=1)
        body = {"url": url, "name": "loadtest", "events": ["interview_cancelled"]}
        webhook = await _ask(run, lines, "POST", "", body)
        for turn in range(2 * TURNS):
            enabled = bool(turn % 2)
            await _ask(run, lines, "PATCH", f"/{webhook['id']}", {"enabled": enabled})
            await asyncio.sleep(SETTLE_SECONDS)
            what = "with" if enabled else "without"
            async with run.screen.step(f"joins {what} a webhook ({turn // 2 + 1} of {TURNS})"):
                costs[enabled].append(await _cost(run, lines, rooms, seconds))
        await _ask(run, lines, "DELETE", f"/{webhook['id']}")
    receiver.close()
    without, told = median(costs[False]), median(costs[True])
    result.add("join without a webhook: CPU of its node", without, "µs", note=_all(costs[False]))
    result.add("join with one: CPU of its node", told, "µs", note=_all(costs[True]))
    result.add(
        "the write path costs more by", (told / without - 1) * 100, "%",
        note=f"medians of {TURNS} windows each, in turn",
    )  # fmt: skip


def _all(costs: list[float]) -> str:
    return "windows: " + ", ".join(f"{cost:.1f}" for cost in costs)


async def _cost(run: Run, lines: Lines, rooms: list[str], seconds: float) -> float:
    parties = run.deployment.parties
    before = parties.now()
    driven = await _join(run, lines, rooms, seconds=seconds)
    usage = Usage.between(before, parties.now())
    return usage.servers[0] * usage.seconds * 1e6 / max(driven.done, 1)


async def _join(
    run: Run, lines: Lines, rooms: list[str], *, seconds: float, count: int | None = None
) -> Driven:
    """Joins as fast as answers come; at most `count`."""
    run.deployment.parties.clients = [os.getpid()]
    requests = joins(lines, rooms, itertools.islice(run.numbers, count))
    return await Drive(requests, joins=True).closed(
        await lines.grow(IN_FLIGHT), seconds=seconds, at_most=PATIENCE_SECONDS
    )


async def _ask(run: Run, lines: Lines, method: str, path: str, body: Any = None) -> Any:
    """A call about webhooks, by an admin."""
    token = run.deployment.watch_token
    return await lines.ask(method, f"/api/webhooks{path}", body, token=token)

"""`rest`: the documented endpoints, each with 1, 8, 16 and 64 requests under way.

`--beside-fastify`: the two hottest of them alone, in turn with Fastify and pg, whose joins are as
durable, and with the least that Python does for them (`peers`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import msgspec

from loadtest.deployment import OPEN_API_KEY
from loadtest.figures import Result
from loadtest.http import Drive, Driven
from loadtest.measure import Bench, Run, describe, not_let_in
from loadtest.peers.start import node_peer, python_peer
from loadtest.usage import Usage
from tests.harness.http_lines import Answered, HttpLine, Lines, exchange

Requests = Callable[[int], bytes | None]

READ_ROOMS, READ_PEOPLE, JOIN_ROOMS = 50, 4, 500
USED_UP_PER_SECOND = 8000  # guests that leave, rooms that are ended: as many as may be needed
MOST_LEAVERS, MOST_ENDED = 40_000, 6_000  # a room takes four times as long to make as a guest
WARM_SECONDS = 0.5
HEAD = (
    "endpoint", "in flight", "requests/s", "p50 ms", "p99 ms", "server µs", "Postgres µs", "limit",
)  # fmt: skip
HOT = 2
"""The first so many endpoints are asked of others, too."""


@dataclass(frozen=True, slots=True)
class MeasuredEndpoint:
    """A line of the table: what is asked, and how each request is made.

    Attributes:
        fill: makes what the requests use up, before each window.
        most: how much of that is made at most; a window that uses up more is shorter.
    """

    name: str
    requests: Requests
    fill: Callable[[int], Awaitable[None]] | None = None
    most: int = 0

    def used_up(self, seconds: float) -> int:
        """How much is made for so many seconds of requests."""
        return min(self.most, round(seconds * USED_UP_PER_SECOND))


async def rest(
    bench: Bench, *, seconds: float, in_flight: list[int], beside_fastify: bool = False
) -> Result:
    """One endpoint after the other."""
    result = Result(
        "rest",
        f"Each endpoint alone, {', '.join(map(str, in_flight))} requests under way at any time,"
        f" {seconds:g} s each.",
        {"seconds": seconds, "in flight": in_flight},
        table=[[*HEAD]],
    )
    with ExitStack() as stack:
        run = stack.enter_context(bench.run())
        runs = {"": run}
        if beside_fastify:
            fastify = node_peer(bench.cores, "fastify_server.js", keeps=True)
            bare = python_peer(bench.cores, "bare_server", keeps=True)
            for name, peer in (("Fastify + pg: ", fastify), ("bare Python: ", bare)):
                runs[name] = replace(run, deployment=stack.enter_context(peer))
        describe(run, result)
        await _measure(runs, result, seconds, in_flight)
    return result


async def _measure(
    runs: dict[str, Run], result: Result, seconds: float, in_flight: list[int]
) -> None:
    works: dict[str, Work] = {}
    for name, run in runs.items():
        async with run.screen.step(f"{name}making rooms and guests"):
            works[name] = await Work.prepare(run, Lines(run.deployment.addresses))
    hot = HOT if len(runs) > 1 else None
    endpoints = {name: work.endpoints()[:hot] for name, work in works.items()}
    for number in range(len(endpoints[""])):
        for count in in_flight:
            for name, work in works.items():
                endpoint = endpoints[name][number]
                told = replace(endpoint, name=name + endpoint.name)
                async with work.run.screen.step(f"{told.name}, {count} in flight"):
                    await _one(work.run, result, work.lines, told, count, seconds)
    for name, work in works.items():
        async with work.run.screen.step(f"{name}ending the rooms"):
            await work.end()
        work.lines.close()


async def _one(
    run: Run, result: Result, lines: Lines, endpoint: MeasuredEndpoint, count: int, seconds: float
) -> None:
    parties = run.deployment.parties
    parties.clients = [os.getpid()]
    warm = min(WARM_SECONDS, seconds)
    if endpoint.fill is not None:
        await endpoint.fill(endpoint.used_up(warm + seconds))
    open_lines = await lines.grow(count)
    await Drive(endpoint.requests).closed(open_lines, seconds=warm)
    before = parties.now()
    driven = await Drive(endpoint.requests).closed(open_lines, seconds=seconds)
    usage = Usage.between(before, parties.now())
    whose = usage.whose(run.deployment.cores)
    name = f"{endpoint.name}, {count} in flight"
    result.add(name, driven.per_second, "requests/s", whose=whose, note=usage.text())
    result.latencies[name] = driven.latency
    result.table.append(_row(endpoint.name, count, driven, usage, whose))
    result.broken += [f"{name}: {n} × {why}" for why, n in driven.failed.items()]


def _row(name: str, count: int, driven: Driven, usage: Usage, whose: str) -> list[str]:
    cost = usage.server_seconds * 1e6 / max(driven.done, 1)
    stored = usage.postgres * usage.seconds * 1e6 / max(driven.done, 1)
    return [
        name, str(count), f"{driven.per_second:,.0f}",
        f"{driven.latency.percentile(0.5):.2f}", f"{driven.latency.percentile(0.99):.2f}",
        f"{cost:.0f}" if usage.servers else "-", f"{stored:.0f}" if usage.servers else "-", whose,
    ]  # fmt: skip


class Work:
    """Rooms and guests to ask about, and the requests that ask."""

    def __init__(self, run: Run, lines: Lines) -> None:
        self.run = run
        self.lines = lines
        self.token = run.deployment.token
        self.read_rooms = run.room_names(READ_ROOMS)
        self.join_rooms = [f"{name}_j" for name in run.room_names(JOIN_ROOMS)]
        self.members: list[tuple[str, str]] = []  # of the read rooms: (room, guest)
        self.leavers: Iterator[tuple[str, str]] = iter(())
        self.created: list[str] = []
        self.to_end: list[str] = []

    @classmethod
    async def prepare(cls, run: Run, lines: Lines) -> Work:
        """50 rooms of four guests to read, and then, on a node that has worked, 500 to join."""
        work = cls(run, lines)
        await work._create(work.read_rooms)
        work.members = await work._join([r for r in work.read_rooms for _ in range(READ_PEOPLE)])
        await work._create(work.join_rooms)
        return work

    async def _all(self, requests: list[bytes]) -> list[dict[str, str]]:
        """Sends them over 32 connections; the `data` of each, in any order."""
        found: list[dict[str, str]] = []
        todo = iter(requests)

        async def one_after_the_other(line: HttpLine) -> None:
            for request in todo:
                status, raw = await exchange(line, request)
                if status != 200:
                    raise not_let_in(Answered(status, raw))
                found.append(msgspec.json.decode(raw)["data"])

        await asyncio.gather(*map(one_after_the_other, await self.lines.grow(32)))
        return found

    async def _join(self, rooms: list[str]) -> list[tuple[str, str]]:
        joined = await self._all([
            self._post("/interview/guest/join", {"roomId": room, "userName": "guest"})
            for room in rooms
        ])  # fmt: skip
        return [(one["roomId"], one["guestId"]) for one in joined]

    async def _create(self, rooms: list[str]) -> None:
        await self._all([self._creation(room) for room in rooms])

    def _creation(self, room: str) -> bytes:
        body = {"roomId": room, "roomName": "Load test", "hostName": "Load test"}
        return self._post("/interview/create-room", body, self.token)

    async def _fill_leavers(self, count: int) -> None:
        rooms = [self.join_rooms[i % JOIN_ROOMS] for i in range(count)]
        self.leavers = iter(await self._join(rooms))

    async def _fill_to_end(self, count: int) -> None:
        names = [f"{name}_e" for name in self.run.room_names(count)]
        await self._create(names)
        self.created += names
        self.to_end = names[:]

    def _post(self, path: str, body: object, token: str | None = None) -> bytes:
        return self.lines.request("POST", f"/api{path}", body, token)

    def endpoints(self) -> list[MeasuredEndpoint]:
        """In the order of the document; what needs a running deployment's secrets is left out."""
        found = [
            MeasuredEndpoint("GET room", self._in_turn(self._read("/interview/room/{room}"))),
            MeasuredEndpoint("POST guest/join", self._join_one),
            MeasuredEndpoint("POST guest/leave", self._leave_one, self._fill_leavers, MOST_LEAVERS),
            MeasuredEndpoint("POST create-room", self._create_one),
            MeasuredEndpoint("POST room/end", self._end_one, self._fill_to_end, MOST_ENDED),
            MeasuredEndpoint("GET rooms", self._in_turn([self._get("/interview/rooms")])),
            MeasuredEndpoint(
                "GET room/events", self._in_turn(self._read("/interview/room/{room}/events"))
            ),
        ]
        if self.run.deployment.is_started_here:
            found.append(MeasuredEndpoint("POST zego/generate-token", self._in_turn(self._zego())))
            found.append(MeasuredEndpoint("GET open/jobs", self._in_turn([_open_request("/jobs")])))
        return found

    @staticmethod
    def _in_turn(requests: list[bytes]) -> Requests:
        count = 0

        def request(_: int) -> bytes:
            nonlocal count
            count += 1
            return requests[count % len(requests)]

        return request

    def _get(self, path: str) -> bytes:
        return self.lines.request("GET", f"/api{path}", token=self.token)

    def _read(self, path: str) -> list[bytes]:
        return [self._get(path.replace("{room}", room)) for room in self.read_rooms]

    def _zego(self) -> list[bytes]:
        return [
            self._post("/zego/generate-token", {"userId": who, "userName": "guest", "roomId": room})
            for room, who in self.members
        ]

    def _join_one(self, _: int) -> bytes:
        number = next(self.run.numbers)
        room = self.join_rooms[number % JOIN_ROOMS]
        body = {"roomId": room, "userName": f"Visitor {number}", "identity": "candidate"}
        return self._post("/interview/guest/join", body)

    def _leave_one(self, _: int) -> bytes | None:
        one = next(self.leavers, None)
        if one is None:
            return None
        return self._post("/interview/guest/leave", {"roomId": one[0], "guestId": one[1]})

    def _create_one(self, _: int) -> bytes:
        self.created.append(f"{self.read_rooms[0]}_{next(self.run.numbers)}")
        return self._creation(self.created[-1])

    def _end_one(self, _: int) -> bytes | None:
        if not self.to_end:
            return None
        return self._post(f"/interview/room/{self.to_end.pop()}/end", {}, self.token)

    async def end(self) -> None:
        """No room of ours goes on; on a deployment of our own there is nothing to tidy."""
        if not self.run.deployment.is_started_here:
            rooms = [*self.read_rooms, *self.join_rooms, *self.created]
            await self.run.deployment.end_rooms(self.lines, rooms)


def _open_request(path: str) -> bytes:
    return (
        f"GET /api/open{path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {OPEN_API_KEY}\r\n\r\n"
    ).encode()

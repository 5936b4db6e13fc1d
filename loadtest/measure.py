"""What the scenarios share: a run's surroundings, seats to watch from, and one measured window."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import msgspec

from loadtest.deployment import MeasuredDeployment, given, started_here
from loadtest.figures import Result, rates
from loadtest.http import Drive, Driven, joins
from loadtest.usage import Cores, Usage, machine
from tests.harness.held import Heard, Opened, Place
from tests.harness.http_lines import Answered, HttpLine, Lines, exchange
from tests.harness.node import pin
from tests.harness.screen import Screen
from tests.harness.watch import SLOT_NS
from tests.harness.watchers import Watchers
from tests.harness.wire import Address

QUIET_SECONDS = 20.0
"""How long after the last answer everybody may take to get their last events."""


class CannotMeasure(Exception):
    """The deployment does not let itself be measured so; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What the command line says, for every scenario alike.

    Attributes:
        urls, token, watch_token: of a deployment that runs; without URLs one is started here.
        seed: all that is random about a run comes from it.
        processes: how many watching processes share the connections.
    """

    screen: Screen
    urls: tuple[str, ...] = ()
    token: str = ""
    watch_token: str = ""
    seed: int = 1
    processes: int = 1
    cores: Cores = field(default_factory=Cores.split)

    @contextmanager
    def run(self, *, nodes: int = 1, **settings: str) -> Iterator[Run]:
        """The given deployment, or one of `nodes` nodes that lives as long as the block."""
        pin(self.cores.others)
        source = (
            given(self.urls, self.token, self.watch_token, self.cores)
            if self.urls
            else started_here(count=nodes, cores=self.cores, **settings)
        )
        with source as deployment:
            yield Run(deployment, self.screen, self.seed, self.processes)


@dataclass(frozen=True, slots=True)
class Run:
    """One deployment that a scenario measures."""

    deployment: MeasuredDeployment
    screen: Screen
    seed: int
    processes: int
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def room_names(self, count: int) -> list[str]:
        """Names that no deployment has: they hold the time."""
        stamp = f"{time.time_ns() // 1000:x}"
        return [f"load_{stamp}_{i}" for i in range(count)]

    @asynccontextmanager
    async def rooms(
        self, count: int, addresses: list[Address] | None = None
    ) -> AsyncIterator[tuple[Lines, list[str]]]:
        """Fresh rooms and lines to talk about them; no room goes on when the block is left.

        `addresses`: nodes to talk to, None = all.
        """
        lines = Lines(addresses or self.deployment.addresses)
        names = self.room_names(count)
        try:
            await self.deployment.make_rooms(lines, names)
            yield lines, names
        finally:
            await self.deployment.end_rooms(lines, names)
            lines.close()

    def watchers(self, dialect: str = "live") -> Watchers:
        addresses, cores = self.deployment.addresses, self.deployment.cores.others
        return Watchers(addresses, processes=self.processes, cores=cores, dialect=dialect)


@dataclass(frozen=True, slots=True)
class Window:
    """What was sent, what was heard, and who was how busy meanwhile."""

    driven: Driven
    heard: Heard
    usage: Usage
    whose: str

    @property
    def deliveries_per_second(self) -> float:
        """From the first request to the last delivery."""
        seconds = (self.heard.last_ns - self.driven.first_ns) / 1e9
        return self.heard.deliveries / seconds if seconds > 0 else 0.0

    @property
    def server_us_per_delivery(self) -> float:
        """All of the server's CPU, shared out over the deliveries; 0 where it is unknown."""
        return self.usage.server_seconds * 1e6 / max(self.heard.deliveries, 1)

    def faults(self, what: str) -> list[str]:
        """What did not hold, in words."""
        found = [f"{what}: {count} × {why}" for why, count in self.heard.wrong.items()]
        return found + [
            f"{what}: {n} requests failed: {why}" for why, n in self.driven.failed.items()
        ]

    def timeline(self) -> list[tuple[float, float]]:
        return rates(dict(self.heard.slots), SLOT_NS)


def refusals(opened: Opened, wanted: int) -> None:
    """Raises `CannotMeasure` where not every connection was let in."""
    if opened.ready == wanted:
        return
    why = ", ".join(f"{count} × {reason}" for reason, count in opened.refused.items())
    raise CannotMeasure(
        f"only {opened.ready} of {wanted} connections were let in ({why}). For a load test the node"
        " needs RATE_LIMITS=off (or live=off), LIVE_MAX_CONNECTIONS and an open-file limit above it"
    )


async def seats(run: Run, lines: Lines, rooms: list[str], per_room: int) -> list[Place]:
    """`per_room` places to watch each room from: an admin's, who is on no roster; where there is no
    such token, those of guests, who join first.
    """
    deployment = run.deployment
    nodes = len(deployment.urls)
    if token := deployment.watch_token:
        return [
            deployment.place(room, token, node=i % nodes) for room in rooms for i in range(per_room)
        ]
    tokens = await guests(run, lines, rooms, per_room)
    return [deployment.place(room, token, node=i % nodes) for i, (room, token) in enumerate(tokens)]


@asynccontextmanager
async def watched(
    run: Run, lines: Lines, rooms: list[str], per_room: int
) -> AsyncIterator[Watchers]:
    """Each room has `per_room` connections that watch it, as long as the block lasts."""
    with run.watchers() as watchers:
        async with run.screen.step("connecting", lambda: {"connections": watchers.ready}):
            places = await seats(run, lines, rooms, per_room)
            refusals(await watchers.open(places), len(places))
        yield watchers
        await watchers.leave()


async def guests(run: Run, lines: Lines, rooms: list[str], per_room: int) -> list[tuple[str, str]]:
    """Lets `per_room` guests join each room; (room, guestToken) of each.

    Raises:
        CannotMeasure: joins were refused.
    """
    wanted = [room for room in rooms for _ in range(per_room)]
    found: list[tuple[str, str]] = []
    todo = iter(wanted)

    async def one_after_the_other(line: HttpLine) -> None:
        for room in todo:
            body = {"roomId": room, "userName": f"watcher-{next(run.numbers)}"}
            status, raw = await exchange(
                line, lines.request("POST", "/api/interview/guest/join", body)
            )
            if status != 200:
                raise not_let_in(Answered(status, raw))
            found.append((room, msgspec.json.decode(raw)["data"]["guestToken"]))

    await asyncio.gather(*map(one_after_the_other, await lines.grow(min(32, len(wanted)))))
    return sorted(found)


def not_let_in(error: Answered) -> CannotMeasure:
    """Says which setting stands in the way of a load test."""
    advice = {
        "RATE_LIMITED": "start the nodes with RATE_LIMITS=off (or join=off)",
        "ROOM_FULL": "start the nodes with a ROOM_CAPACITY above the people of the test",
    }
    return CannotMeasure(f"{advice.get(error.code, 'a join was refused')}: {error}")


async def window(
    run: Run,
    watchers: Watchers,
    lines: Lines,
    rooms: list[str],
    *,
    in_flight: int,
    seconds: float,
    count: int | None = None,
    per_second: float | None = None,
    nap: float = 0.0,
) -> Window:
    """Joins people into `rooms` while the watchers watch them, until all have seen all of it.

    Args:
        in_flight: joins that are under way at once. count: at most so many joins.
        per_second: an even pace instead of as many as answers allow.
        nap: between two looks of the watchers, in seconds (see `watch`).
    """
    deployment = run.deployment
    open_lines = await lines.grow(in_flight)
    numbers = itertools.islice(run.numbers, count)
    drive = Drive(joins(lines, rooms, numbers), joins=True)
    await watchers.listen(nap=nap)
    parties = deployment.parties
    parties.clients = [os.getpid(), *watchers.pids]
    before = parties.now()
    if per_second is None:
        driven = await drive.closed(open_lines, seconds=seconds)
    else:
        driven = await drive.open(open_lines, per_second=per_second, seconds=seconds)
    heard = await watchers.until(driven.last_seq, seconds=QUIET_SECONDS)
    usage = Usage.between(before, parties.now())
    if not driven.done and driven.failed:
        raise CannotMeasure(f"no join was let in: {next(iter(driven.failed))}")
    return Window(driven, heard, usage, usage.whose(deployment.cores))


def describe(run: Run, result: Result) -> None:
    """Writes down where a result was measured."""
    result.where = {"deployment": run.deployment.where, **machine()}

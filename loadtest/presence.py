"""`presence`: rooms full of people who join, connect, drop, return and leave, by a seeded plan.

The people are those of `tests.chaos`, with nothing broken around them. Everything that a client is
promised is checked by each of them, and when it is over each room's log, every history and every
node's answer are held together by the same verdict.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass

from loadtest.deployment import address
from loadtest.figures import Result
from loadtest.measure import Bench, CannotMeasure, Run, describe
from loadtest.usage import Usage, memory_kib
from tests.chaos.client import Observations
from tests.chaos.population import Population
from tests.chaos.run import end_states
from tests.chaos.verdict import judge
from tests.harness.wire import Address

SHORT_GRACE = "3"
SETTLE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class ReachedNode:
    """A node as the people reach it."""

    number: int
    url: str
    address: Address


@dataclass(slots=True)
class Reached:
    """The deployment of a run as the people see it."""

    nodes: list[ReachedNode]
    grace: float
    token: str
    admin_token: str


async def presence(
    bench: Bench, *, rooms: int, people: int, seconds: float, grace: float
) -> Result:
    """`rooms` × `people`, everybody busy for `seconds`, then quiet, then the checks.

    `grace`: that of a deployment that runs already, in seconds.
    """
    result = Result(
        "presence",
        f"{people} people in each of {rooms} rooms join over REST, connect, drop, return and leave"
        f" for {seconds:g} s; each checks everything that it is told.",
        {"rooms": rooms, "people per room": people, "seconds": seconds, "seed": bench.seed},
    )
    with bench.run(PRESENCE_GRACE=SHORT_GRACE) as run:
        describe(run, result)
        observed = Observations()
        own = run.deployment.grace if run.deployment.is_started_here else grace
        d = run.deployment
        nodes = [ReachedNode(i, url, address(url)) for i, url in enumerate(d.urls)]
        reached = Reached(nodes, own, d.token, d.watch_token or d.token)
        name = run.room_names(1)[0]
        population = Population(reached, observed, run.seed, rooms, people, name=name)
        try:
            await _live(run, result, population, seconds)
            async with run.screen.step("the grace passes, then everything is checked"):
                await asyncio.sleep(reached.grace + SETTLE_SECONDS)
                states = await end_states(reached, population)
            result.broken += judge(states, observed, reached.grace, lambda *_: True, [])
        finally:
            await population.end_rooms()
            await population.close()
    _report(result, observed)
    return result


async def _live(run: Run, result: Result, population: Population, seconds: float) -> None:
    parties, observed = run.deployment.parties, population.observed
    parties.clients = [os.getpid()]
    await population.start()
    before, start = parties.now(), time.monotonic()
    async with run.screen.step("people come and go", lambda: dict(observed.did)):
        await asyncio.sleep(seconds)
        await population.stop()
    lasted = time.monotonic() - start
    usage = Usage.between(before, parties.now())
    if not observed.joins:
        raise CannotMeasure(f"nobody was let in: {dict(observed.did)}")
    for name, count in sorted(observed.did.items()):
        result.add(name, count / lasted, "/s", note=f"{count:,} in {lasted:.1f} s")
    if usage.servers:
        memory = sum(map(memory_kib, parties.servers))
        result.add("server CPU", sum(usage.servers) * 100, "% of a core", note=usage.text())
        result.add("server memory", memory / 1024, "MiB")
    result.notes.append(usage.text())
    if usage.clients and max(usage.clients) > 0.9:
        result.notes.append("The client was full: latencies are its own, not the server's.")


def _report(result: Result, observed: Observations) -> None:
    result.latencies["event → seen by those who were connected"] = observed.late
    if not result.broken:
        result.checked += [
            "everybody's history is gapless, each event once and in order",
            "every snapshot and every node's answer equals the replay of the room's log",
            "nobody is online without a connection, nobody connected is away",
        ]

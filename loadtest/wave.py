"""`wave`: everybody in one large room loses the connection and comes back at once.

The worst of it is not the connecting: each return is told to all who are back already, so of n
people there are n²/2 deliveries, and each is greeted with a snapshot of all.
"""

from __future__ import annotations

import asyncio
import time

from loadtest.figures import Result
from loadtest.measure import Bench, Run, describe, guests, refusals
from loadtest.storm import log_ends
from loadtest.usage import Usage
from tests.harness.http_lines import Lines

LONGEST_SECONDS = 540.0
"""How long a step may take."""
GRACE = "300"
"""Nobody is put out meanwhile."""


async def wave(bench: Bench, *, people: int) -> Result:
    """One wave of `people` in one room of one node."""
    result = Result(
        "wave",
        f"{people:,} people are connected to one room; all lose their connections, and come back"
        " at once.",
        {"people": people, "watching processes": bench.processes},
    )
    with bench.run(PRESENCE_GRACE=GRACE) as run:
        describe(run, result)
        async with run.rooms(1) as (lines, rooms):
            await _wave(run, result, lines, rooms, people)
    return result


async def _wave(run: Run, result: Result, lines: Lines, rooms: list[str], people: int) -> None:
    deployment = run.deployment
    (room,) = rooms
    with run.watchers() as watchers:
        async with run.screen.step("connecting", lambda: {"connections": watchers.ready}):
            tokens = await guests(run, lines, rooms, people)
            places = [deployment.place(room, token, node=0) for _, token in tokens]
            refusals(await watchers.open(places, seconds=LONGEST_SECONDS), people)
        async with run.screen.step("everybody is cut off"):
            before = (await log_ends(run, lines, rooms))[room]
            await watchers.drop()
            await _until(run, lines, room, before + people)
        deployment.parties.clients = watchers.pids
        usage, started = deployment.parties.now(), time.monotonic()
        async with run.screen.step("everybody returns", lambda: {"connections": watchers.ready}):
            await watchers.listen(nap=0)
            back = await watchers.reopen(
                deployment.addresses, in_flight=256, seconds=LONGEST_SECONDS
            )
            refusals(back, people)
            heard = await watchers.until(
                await log_ends(run, lines, rooms), seconds=LONGEST_SECONDS
            )
        seconds = time.monotonic() - started
        used = Usage.between(usage, deployment.parties.now())
        await watchers.leave()
    result.broken += [f"{count} × {why}" for why, count in heard.wrong.items()]
    if not heard.reached:
        result.broken.append("not everybody was told of everybody's return")
    if not result.broken:
        result.checked.append("everybody came back and was told of every later return, in order")
    whose = used.whose(deployment.cores)
    result.add("all are back and know of each other after", seconds, "s", whose=whose)
    result.add("deliveries", heard.deliveries / seconds, "deliveries/s", whose=whose)
    result.add(
        "server CPU per return", used.server_seconds * 1e3 / people, "ms", note=used.text()
    )
    result.latencies["connect → welcome"] = back.took


async def _until(run: Run, lines: Lines, room: str, seq: int) -> None:
    """Everybody's going stands in the log."""
    async with asyncio.timeout(LONGEST_SECONDS):
        while (await log_ends(run, lines, [room]))[room] < seq:  # noqa: ASYNC110
            await asyncio.sleep(0.2)

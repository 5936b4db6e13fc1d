"""`webhooks`: how late a back end is told, how fast it catches up, and what it costs."""

from __future__ import annotations

import asyncio
import itertools
import os
from base64 import b64encode
from typing import Any

from loadtest.figures import Result, median
from loadtest.http import Drive, Driven, joins
from loadtest.measure import Bench, CannotMeasure, Run, describe
from loadtest.usage import Usage
from tests.harness.eager_receiver import EagerReceiver
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
    receiver = EagerReceiver()
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
            await receiver.has(made.done, seconds=PATIENCE_SECONDS)
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
    run: Run, result: Result, receiver: EagerReceiver, lines: Lines, rooms: list[str],
    seconds: float,
) -> None:  # fmt: skip
    drive = Drive(joins(lines, rooms, run.numbers), joins=True)
    open_lines = await lines.grow(IN_FLIGHT)
    await drive.open(open_lines, per_second=PACE_PER_SECOND, seconds=2)
    await asyncio.sleep(3)
    receiver.forget()
    driven = await Drive(joins(lines, rooms, run.numbers), joins=True).open(
        open_lines, per_second=PACE_PER_SECOND, seconds=seconds
    )
    await receiver.has(driven.done, seconds=PATIENCE_SECONDS)
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
    receiver = EagerReceiver()
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

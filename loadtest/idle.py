"""`idle`: what connections cost that nothing happens on: memory, CPU, and the connecting itself;
and whether an event in a large room beside them is late.
"""

from __future__ import annotations

import asyncio
import os

from loadtest.figures import Result
from loadtest.measure import Bench, Run, describe, guests, refusals, watched, window
from loadtest.usage import Usage, memory_kib
from tests.harness.held import Place
from tests.harness.http_lines import Lines

PER_ROOM = 10
PER_SOURCE = 20_000
"""Connections from one loopback address; beyond it 127.0.0.2 and so on join in."""

LARGE_ROOM = 1000
EVENTS_PER_SECOND = 5.0

WARM_CONNECTIONS = 50
SETTLE_SECONDS = 3.0


async def idle(bench: Bench, *, connections: int, seconds: float) -> Result:
    """People connect to rooms of ten, then nobody does anything for `seconds`."""
    result = Result(
        "idle",
        f"{connections:,} guests connect to rooms of {PER_ROOM} and stay; then nothing happens for"
        f" {seconds:g} s but pings.",
        {"connections": connections, "seconds": seconds, "watching processes": bench.processes},
    )
    with bench.run() as run:
        describe(run, result)
        await _measure(run, result, connections, seconds)
    return result


async def _measure(run: Run, result: Result, connections: int, seconds: float) -> None:
    async with run.rooms(max(1, connections // PER_ROOM)) as (lines, rooms):
        await _hold(run, result, lines, rooms, seconds)


async def _hold(run: Run, result: Result, lines: Lines, rooms: list[str], seconds: float) -> None:
    deployment, parties = run.deployment, run.deployment.parties
    with run.watchers() as watchers:
        async with run.screen.step(f"{len(rooms) * PER_ROOM:,} guests join over REST"):
            tokens = await guests(run, lines, rooms, PER_ROOM)
        places = [_place(run, i, *one) for i, one in enumerate(tokens)]
        warm, rest = places[:WARM_CONNECTIONS], places[WARM_CONNECTIONS:]
        refusals(await watchers.open(warm), len(warm))
        await asyncio.sleep(1)
        empty = sum(map(memory_kib, parties.servers))
        parties.clients = [os.getpid(), *watchers.pids]
        before = parties.now()
        async with run.screen.step("connecting", lambda: {"connections": watchers.ready}):
            opened = await watchers.open(rest, in_flight=64, seconds=300)
        connecting = Usage.between(before, parties.now())
        refusals(opened, len(rest))
        result.add(
            "connects", opened.ready / opened.seconds, "connects/s",
            whose=connecting.whose(deployment.cores), note=connecting.text(),
        )  # fmt: skip
        result.latencies["connect → welcome"] = opened.took
        await asyncio.sleep(min(SETTLE_SECONDS, seconds))
        async with run.screen.step(f"idle for {seconds:g} s"):
            await watchers.listen(nap=0.05)
            before = parties.now()
            await asyncio.sleep(seconds)
            usage = Usage.between(before, parties.now())
        await _events_beside(run, result, lines, min(LARGE_ROOM, len(places)), seconds)
        heard = await watchers.until({}, seconds=1)
        full = sum(map(memory_kib, parties.servers))
        if empty:
            result.add(
                "connecting: server CPU", connecting.server_seconds * 1e6 / opened.ready,
                "µs per connect", note="token, snapshot, durable presence, the others told",
            )  # fmt: skip
            result.add("memory", (full - empty) / opened.ready, "KiB per connection")
            result.add("memory of the server in all", full / 1024, "MiB")
            share = sum(usage.servers)
            result.add(f"CPU with {len(places):,} idle connections", share * 100, "% of a core")
        result.broken += [f"idle: {n} × {why}" for why, n in heard.wrong.items()]
        if not heard.wrong:
            result.checked.append(f"all {len(places):,} connections stood to the end")
        result.notes.append(f"connecting: {connecting.text()}")
        result.notes.append(f"idle: {usage.text()}")
        await watchers.leave()


async def _events_beside(
    run: Run, result: Result, lines: Lines, people: int, seconds: float
) -> None:
    """Joins into one more room that `people` watch, at an easy pace."""
    async with run.rooms(1) as (_, rooms), watched(run, lines, rooms, people) as others:
        measured = await window(
            run, others, lines, rooms, in_flight=4, seconds=seconds, per_second=EVENTS_PER_SECOND
        )
    result.broken += measured.faults(f"a room of {people:,} beside them")
    result.latencies[f"join → seen by {people:,} in a room beside them"] = measured.heard.latency


def _place(run: Run, number: int, room: str, token: str) -> Place:
    deployment = run.deployment
    node = number % len(deployment.urls)
    is_local = deployment.addresses[node].host == "127.0.0.1"
    source = f"127.0.0.{1 + number // PER_SOURCE}" if is_local else None
    return deployment.place(room, token, node=node, source=source)

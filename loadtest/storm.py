"""`storm`: many at once. A join storm into one full room; everybody back after a node's death."""

from __future__ import annotations

import time
from typing import Any

from loadtest.figures import Result
from loadtest.measure import Bench, Run, describe, guests, refusals, watched, window
from tests.harness.http_lines import Lines
from tests.harness.watchers import Watchers

GONE_SECONDS = 15.0
MISSED_EVENTS = 200


async def storm(bench: Bench, *, joins: int, connected: int) -> Result:
    """Both storms."""
    result = Result(
        "storm",
        f"{joins:,} people join one room at once while {connected:,} watch it; then the node that"
        f" holds {connected:,} people dies and all of them come back at another one.",
        {"joins": joins, "connected": connected, "watching processes": bench.processes},
    )
    with bench.run() as run:
        describe(run, result)
        await join_storm(run, result, joins=joins, connected=connected)
    with bench.run(nodes=2) as run:
        await return_storm(run, result, people=connected)
    return result


async def join_storm(run: Run, result: Result, *, joins: int, connected: int) -> None:
    """64 joins under way at any time, until all are in; every watcher must see every one."""
    async with (
        run.rooms(1) as (lines, rooms),
        watched(run, lines, rooms, connected) as watchers,
        run.screen.step(
            f"{joins:,} joins into one room", lambda: {"deliveries": watchers.deliveries}
        ),
    ):
        # A tenth of it beforehand, so that nothing happens for the first time.
        for count in (joins // 10, joins):
            measured = await window(
                run, watchers, lines, rooms, in_flight=64, seconds=60, count=count, nap=0.01
            )
    result.broken += measured.faults("join storm")
    if measured.driven.done != joins:
        result.broken.append(f"join storm: {measured.driven.done} of {joins} joins were answered")
    elif not measured.heard.wrong:
        result.checked.append("join storm: everybody saw every join once and in order")
    note = measured.usage.text()
    result.add(
        "join storm: joins", measured.driven.per_second, "joins/s", whose=measured.whose, note=note
    )
    result.add(
        "join storm: deliveries", measured.deliveries_per_second, "deliveries/s",
        whose=measured.whose, note=note,
    )  # fmt: skip
    result.latencies["join storm: join → its answer"] = measured.driven.latency
    result.timelines["join storm: deliveries per second"] = measured.timeline()
    result.notes.append(f"join storm: {note}")


async def return_storm(run: Run, result: Result, *, people: int) -> None:
    """Everybody is connected to the first node; it is killed; they return at the others.

    Against a deployment that was not started here nothing is killed: the connections are cut on our
    side, and come back where they were.
    """
    last_node = run.deployment.addresses[-1:]
    async with run.rooms(max(1, people // 20), last_node) as (lines, rooms):
        await _all_return(run, result, lines, rooms, people)


async def _all_return(
    run: Run, result: Result, lines: Lines, rooms: list[str], people: int
) -> None:
    deployment = run.deployment
    with run.watchers() as watchers:
        async with run.screen.step("connecting", lambda: {"connections": watchers.ready}):
            tokens = await guests(run, lines, rooms, min(20, people))
            places = [deployment.place(room, token, node=0) for room, token in tokens]
            opened = await watchers.open(places)
            refusals(opened, len(places))
        result.add(
            "participants connecting", opened.ready / opened.seconds, "connects/s",
            note="token, snapshot, durable presence; each is told to the others of its room",
        )  # fmt: skip
        async with run.screen.step("everybody returns", lambda: {"connections": watchers.ready}):
            await _cut(run, watchers)
            died = time.monotonic()
            await watchers.listen(nap=0)
            await _missed(run, lines, rooms)
            survivors = deployment.addresses[1:] or deployment.addresses
            back = await watchers.reopen(survivors, in_flight=256)
            seconds = time.monotonic() - died
            refusals(back, len(places))
            heard = await watchers.until(await log_ends(run, lines, rooms), seconds=20)
        await watchers.leave()
    what = "return after a node's death" if len(deployment.nodes) > 1 else "return after a cut"
    result.broken += [f"{what}: {n} × {why}" for why, n in heard.wrong.items()]
    left = await _gone(run, lines, rooms)
    if left:
        result.broken.append(f"{what}: {left} people were put out although they returned in time")
    if not left and not heard.wrong:
        result.checked.append(
            f"{what}: everybody got what it had missed, once and in order; nobody was put out"
        )
    result.add(f"{what}: all {people:,} back after", seconds, "s")
    result.add(f"{what}: connects", back.ready / back.seconds, "connects/s")
    result.latencies[f"{what}: connect → welcome"] = back.took


async def _cut(run: Run, watchers: Watchers) -> None:
    """Kills the first node where there are others; else cuts the connections on our side."""
    if len(run.deployment.nodes) > 1:
        run.deployment.nodes[0].kill()
        await watchers.all_lost(seconds=GONE_SECONDS)
    else:
        await watchers.drop()


async def _missed(run: Run, lines: Lines, rooms: list[str]) -> None:
    """Events that happen while nobody is connected."""
    for i in range(min(MISSED_EVENTS, 10 * len(rooms))):
        body = {"roomId": rooms[i % len(rooms)], "userName": "meanwhile"}
        await lines.ask("POST", "/api/interview/guest/join", body)


async def log_ends(run: Run, lines: Lines, rooms: list[str]) -> dict[str, int]:
    """The last seq of each room's log."""
    return {room: (await _log(run, lines, room, limit=1))["lastSeq"] for room in rooms}


async def _log(run: Run, lines: Lines, room: str, *, limit: int) -> dict[str, Any]:
    path = f"/api/interview/room/{room}/events?limit={limit}"
    answer: dict[str, Any] = await lines.ask("GET", path, token=run.deployment.token)
    return answer


async def _gone(run: Run, lines: Lines, rooms: list[str]) -> int:
    """How many `participant_left` the logs hold; nobody left, so every one is a mistake."""
    count = 0
    for room in rooms:
        events = (await _log(run, lines, room, limit=500))["events"]
        count += sum(event["type"] == "participant_left" for event in events)
    return count

"""One run of chaos: the plan carried out under load, everything mended, the verdict."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from loadtest.screen import Screen
from tests.chaos.back_end import MOST_REPEATED, BackEnd
from tests.chaos.client import SLOW_SECONDS, Client, InReach, NodeInReach, Observations, Slow
from tests.chaos.faults import Past, carry_out, plan
from tests.chaos.population import Population
from tests.chaos.verdict import EndState, WasWell, ghosts, judge, lateness
from tests.harness.cluster import Cluster
from tests.harness.receiver import SETTINGS

GRACE = 6.0
SETTLE_SECONDS = 14.0
"""After everything is mended: a lease, a round of judging, and some more."""

REPAIR_SECONDS = 6.0
"""The contract's 5 s for an event that no message brought, and some for a busy machine."""

@dataclass(slots=True)
class Report:
    """What came of a run.

    Attributes:
        slowest_repaired: the latest delivery while Postgres answered the client's node.
        worst_late: seconds by which a `left` came after its deadline, outages included.
        repaired_in: seconds from the last mending until every node said `ready`.
        told: deliveries that the back end took; `told_twice`: those that it had taken before.
    """

    seed: int
    seconds: float
    faults: Counter[str]
    did: dict[str, int]
    events: int
    rooms: int
    codes: dict[str, int]
    seen_ms: dict[str, float]
    slowest: str
    slowest_repaired: str
    worst_late: float
    repaired_in: float
    excused: int
    told: int
    told_twice: int
    broken: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            name: getattr(self, name) for name in self.__dataclass_fields__
        } | {"faults": dict(self.faults)}  # fmt: skip


async def chaos(
    *, seed: int, seconds: float, nodes: int, rooms: int, people: int, screen: Screen,
    grace: float = GRACE, keep_logs: Path | None = None,
) -> Report:  # fmt: skip
    """One run: the plan carried out under load, then the verdict."""
    faults = plan(seed, seconds, nodes)
    observed = Observations()
    async with (
        Cluster(nodes=nodes, grace=grace, **SETTINGS) as cluster,
        BackEnd(cluster) as back_end,
    ):
        population = Population(cluster, observed, seed, rooms, people)
        try:
            await population.start()
            start = time.time()
            what = f"seed {seed}: {len(faults)} faults"
            async with screen.step(what, lambda: dict(observed.did)):
                past = await carry_out(cluster, faults, seconds, screen)
            await population.stop()
            mended = time.monotonic()
            await asyncio.gather(*(cluster.ready(node) for node in cluster.nodes))
            repaired_in = time.monotonic() - mended
            async with screen.step("everything is mended; the grace passes"):
                await asyncio.sleep(grace + SETTLE_SECONDS)
            states = await end_states(cluster, population)
            broken = judge(states, observed, grace, _was_well(past), _outages(past))
            async with screen.step("the back end is told the rest"):
                broken += await back_end.judge(states)
            if back_end.repeated > MOST_REPEATED * len(faults):
                broken.append(f"the back end was told {back_end.repeated} events twice")
            late_joins, excused = ghosts(
                states, observed, {node.number: node.killed for node in cluster.nodes}
            )
        finally:
            await population.close()
            if keep_logs is not None:
                for node in cluster.nodes:
                    (keep_logs / f"seed-{seed}-node-{node.number}.log").write_text(node.logs())
        errors = _errors(cluster)
    return Report(
        seed=seed, seconds=seconds, faults=Counter(fault.kind for fault in faults),
        did=dict(observed.did), events=sum(len(s.log) for s in states), rooms=len(states),
        codes={str(code): count for code, count in sorted(observed.codes.items())},
        seen_ms={str(k): v for k, v in observed.late.summary().items()},
        slowest=_slowest(observed.slow, past, start, blamed=()),
        slowest_repaired=_slowest(observed.slow, past, start, blamed=_NOBODY_COULD_TELL),
        worst_late=max([lateness(s.log) for s in states], default=0.0), repaired_in=repaired_in,
        excused=excused, told=back_end.told, told_twice=back_end.repeated,
        broken=broken + late_joins + errors + _late(observed, past, start),
    )  # fmt: skip


_NOBODY_COULD_TELL = (
    "node killed", "node frozen", "node cut from Postgres", "node's Postgres hung",
    "Postgres killed", "Postgres restarted", "Postgres hung", "every node killed", "power cut",
)  # fmt: skip
"""Faults under which nobody can read the log, or the client's node is not there."""


def _unexcused(slow: list[Slow], past: list[Past], blamed: tuple[str, ...]) -> list[Slow]:
    """Late deliveries, the latest first, but those that a fault of a kind in `blamed` excuses."""
    found = [
        one
        for one in slow
        if not any(
            fault.kind in blamed and fault.touches(one.node, one.at - 1, one.seen + 1)
            for fault in past
        )
    ]
    return sorted(found, key=lambda one: -one.seconds)


def _slowest(slow: list[Slow], past: list[Past], start: float, blamed: tuple[str, ...]) -> str:
    found = _unexcused(slow, past, blamed)
    if not found:
        return f"below {SLOW_SECONDS:g} s"
    worst = found[0]
    when = worst.at - start
    return f"{worst.seconds:.2f} s, {when:.1f} s after the start: {worst.room} seq {worst.seq}"


def _was_well(past: list[Past]) -> WasWell:
    harmful = [fault for fault in past if "Redis" not in fault.kind]

    def was_well(node: int, since: float, until: float) -> bool:
        return not any(fault.touches(node, since, until) for fault in harmful)

    return was_well


def _outages(past: list[Past]) -> list[tuple[float, float]]:
    """When Postgres was away for everybody, for so long that every node has noticed."""
    return [
        (fault.began, fault.ended)
        for fault in past
        if fault.kind in ("Postgres killed", "Postgres restarted", "Postgres hung")
        and fault.ended - fault.began > (6 if fault.kind == "Postgres hung" else 2.5)
    ]


def _late(observed: Observations, past: list[Past], start: float) -> list[str]:
    """Events that came late though Postgres answered, and refusals (503) that did.

    A node that is frozen answers when it wakes.
    """
    events = [
        f"node {one.node} told {one.room} seq {one.seq} {one.seconds:.1f} s late,"
        f" {one.at - start:.1f} s after the start"
        for one in _unexcused(observed.slow, past, _NOBODY_COULD_TELL)
        if one.seconds > REPAIR_SECONDS
    ]
    refusals = [
        f"node {node}: {answered - asked:.1f} s for a 503, {asked - start:.1f} s after the start"
        for node, asked, answered in observed.late_refusals
        if not any(
            fault.kind == "node frozen" and fault.touches(node, asked - 1, answered + 1)
            for fault in past
        )
    ]
    return events + refusals


def _errors(cluster: Cluster) -> list[str]:
    """What the nodes logged as errors. That one does not start without Postgres is none."""
    found: Counter[str] = Counter()
    for node in cluster.nodes:
        for line in node.logs().splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                said = {"level": "error", "event": line}
            reason = said.get("exception", "").strip().rpartition("\n")[2]
            what = f"{said.get('event')}: {reason}"[:400]
            if said.get("level") in ("error", "critical") and not _NOT_STARTED.search(what):
                found[f"a node logged {what}"] += 1
    return [f"{count} × {what}" for what, count in found.items()]


_NOT_STARTED = re.compile(
    r"Exception Group Traceback|Application startup failed|PostgreSQL cannot be reached"
)


async def end_states(cluster: InReach, population: Population) -> list[EndState]:
    """Every room that was made, as its nodes answer now."""
    states = []
    async with httpx.AsyncClient(
        trust_env=False, timeout=20, headers={"Authorization": f"Bearer {cluster.admin_token}"}
    ) as http:
        for room in population.all_rooms:
            answers = [
                await http.get(f"{node.url}/api/interview/room/{room}") for node in cluster.nodes
            ]
            if answers[0].status_code == 404:
                continue  # creating it was never answered, and did not happen
            views = [answer.json()["data"] for answer in answers]
            log = await _log(http, cluster.nodes[0], room)
            clients = [
                client
                for client in population.clients
                if client.room == room and client.is_connected
            ]
            states.append(
                EndState(
                    room, log, views, {_user(client, log) for client in clients},
                    [(client.user_id, client.seq) for client in clients],
                )
            )  # fmt: skip
    return states


def _user(client: Client, log: list[dict[str, Any]]) -> str:
    user: str = log[0]["participant"]["userId"] if client.user_id == "host" else client.user_id
    return user


async def _log(http: httpx.AsyncClient, node: NodeInReach, room: str) -> list[dict[str, Any]]:
    log: list[dict[str, Any]] = []
    while True:
        answer = await http.get(
            f"{node.url}/api/interview/room/{room}/events", params={"after": len(log), "limit": 500}
        )
        page = answer.json()["data"]
        log += page["events"]
        if not page["hasMore"]:
            return log

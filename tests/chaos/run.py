"""One run of chaos: the plan carried out under load, everything mended, the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.back_end import MOST_REPEATED, BackEnd
from tests.chaos.client import (
    REFUSAL_SECONDS,
    SLOW_SECONDS,
    Client,
    InReach,
    NodeInReach,
    Observations,
    Slow,
    seconds_of,
)
from tests.chaos.faults import carry_out
from tests.chaos.modes import MODES
from tests.chaos.plan import AWAY_AFTER_SECONDS, HARMLESS, UNTELLABLE, Past, Recovery, plan
from tests.chaos.population import Population
from tests.chaos.starvation import Starvation
from tests.chaos.verdict import EndState, WasWell, ghosts, judge, lateness
from tests.harness.cluster import Cluster, ClusterNode
from tests.harness.node import NodeProcess
from tests.harness.receiver import SETTINGS
from tests.harness.screen import Screen

GRACE = 6.0
SETTLE_SECONDS = 14.0
"""After everything is mended: a lease, a round of judging, and some more."""

REPAIR_SECONDS = 6.0
"""The contract's 5 s for an event that no message brought, and some for a busy machine."""

SERVICE_SECONDS = 6.0
"""The contract's 5 s from a promotion until service, and some for a busy machine."""


@dataclass(slots=True)
class Report:
    """What came of a run.

    Attributes:
        planned: faults of the plan; `faults` are those that were done.
        slowest_repaired: the latest delivery while Postgres answered the client's node.
        worst_late: seconds by which a `left` came after its deadline, outages included.
        starved: seconds that the nodes were ready to run and had no core, one with another.
        recovered_in: seconds from a promotion until the slowest node said `ready`, at most.
        repaired_in: seconds from the last mending until every node said `ready`.
        told: deliveries that the back end took; `told_twice`: those that it had taken before.
    """

    mode: str
    seed: int
    seconds: float
    planned: int
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
    recovered_in: float
    starved: float
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
    grace: float = GRACE, keep_logs: Path | None = None, mode: str = "default",
) -> Report:  # fmt: skip
    """One run: the plan carried out under load, then the verdict."""
    chosen = MODES[mode]
    faults = plan(seed, seconds, nodes, chosen.kinds)
    observed = Observations()
    async with (
        chosen.site(nodes=nodes, grace=grace, LOG_LEVEL="debug", **SETTINGS) as cluster,
        BackEnd(cluster) as back_end,
    ):
        harm, starvation = chosen.harm(cluster), Starvation()
        population = Population(cluster, observed, seed, rooms, people)
        try:
            await population.start()
            start = time.time()
            watching = asyncio.create_task(starvation.watch(cluster))
            what = f"seed {seed}: {len(faults)} faults"
            async with screen.step(what, lambda: dict(observed.did)):
                past = await carry_out(harm, faults, seconds, screen)
            await population.stop()
            watching.cancel()
            mended = time.monotonic()
            await asyncio.gather(*(cluster.ready(node) for node in cluster.nodes))
            repaired_in = time.monotonic() - mended
            async with screen.step("everything is mended; the grace passes"):
                await asyncio.sleep(grace + SETTLE_SECONDS)
            withdrawn = await cluster.withdrawn(past)
            states = await end_states(cluster, population, withdrawn.epoch)
            broken = judge(
                states, observed, grace, _was_well(past),
                outages(past, cluster.promotions), _blurred(past), withdrawn,
            )
            broken += unserved(states, cluster.promotions, past, start, nodes, starvation)
            broken += _unready(harm.recoveries, past, starvation)
            async with screen.step("the back end is told the rest"):
                broken += await back_end.judge(states, withdrawn)
            if back_end.repeated > MOST_REPEATED * len(faults):
                broken.append(f"the back end was told {back_end.repeated} events twice")
            late_joins, excused = ghosts(states, observed, _ends(cluster.nodes, past))
        finally:
            await population.close()
            if keep_logs is not None:
                for node in cluster.nodes:
                    (keep_logs / f"seed-{seed}-node-{node.number}.log").write_text(node.logs())
        errors = _errors(cluster) + _late(observed, past, start, cluster.nodes, starvation)
    return Report(
        mode=mode, seed=seed, seconds=seconds, planned=len(faults),
        faults=Counter(fault.kind for fault in past),
        did=dict(observed.did), events=sum(len(s.log) for s in states), rooms=len(states),
        codes={str(code): count for code, count in sorted(observed.codes.items())},
        seen_ms={str(k): v for k, v in observed.late.summary().items()},
        slowest=_slowest(observed.slow, past, start, blamed=()),
        slowest_repaired=_slowest(observed.slow, past, start, blamed=UNTELLABLE),
        starved=sum(starvation.seconds(node, start, time.time()) for node in range(nodes)) / nodes,
        recovered_in=max(
            [one.seconds for one in harm.recoveries if not one.is_excused(past)], default=0.0
        ),
        worst_late=max([lateness(s.log) for s in states], default=0.0), repaired_in=repaired_in,
        excused=excused, told=back_end.told, told_twice=back_end.repeated,
        broken=broken + late_joins + errors,
    )  # fmt: skip


def _unexcused(slow: list[Slow], past: list[Past], blamed: Collection[str]) -> list[Slow]:
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


def _slowest(slow: list[Slow], past: list[Past], start: float, blamed: Collection[str]) -> str:
    found = _unexcused(slow, past, blamed)
    if not found:
        return f"below {SLOW_SECONDS:g} s"
    worst = found[0]
    when = worst.at - start
    return f"{worst.seconds:.2f} s, {when:.1f} s after the start: {worst.room} seq {worst.seq}"


def _was_well(past: list[Past]) -> WasWell:
    harmful = [
        fault for fault in past if fault.kind not in HARMLESS and "Redis" not in fault.kind
    ]

    def was_well(node: int, since: float, until: float) -> bool:
        return not any(fault.touches(node, since, until) for fault in harmful)

    return was_well


def outages(past: list[Past], promotions: list[float]) -> list[tuple[float, float]]:
    """When Postgres was away for everybody, for so long that every node has noticed.

    A failover is over with the promotion; that a new standby is made after it keeps nobody waiting.
    """
    return [
        (fault.began, back)
        for fault in past
        for back in [next((at for at in promotions if fault.began < at < fault.ended), fault.ended)]
        if back - fault.began > AWAY_AFTER_SECONDS.get(fault.kind, float("inf"))
    ]


def _ends(nodes: Sequence[ClusterNode], past: list[Past]) -> dict[int, list[float]]:
    """When each node ended, killed or drained: what waits for Postgres then is waited for no more.
    """
    drained = [fault for fault in past if fault.kind == "node drained"]
    return {
        node.number: [*node.killed, *(one.ended for one in drained if one.node == node.number)]
        for node in nodes
    }


def _blurred(past: list[Past]) -> list[tuple[float, float]]:
    """Which times of the log say nothing about when it was: its clock was wrong."""
    return [(fault.began, fault.ended) for fault in past if "clock" in fault.kind]


def unserved(
    states: list[EndState], promotions: list[float], past: list[Past], start: float, nodes: int,
    starvation: Starvation,
) -> Iterator[str]:  # fmt: skip
    """Promotions that no event followed in time, by the times of the log.

    What excuses it: the next outage comes before that time is over, or each node was harmed by
    itself. Time without a core does not count: the least that any node was without one.
    """
    times = sorted(seconds_of(event["at"]) for state in states for event in state.log)
    for promoted in promotions:
        first = next((at for at in times if at > promoted), float("inf"))
        starved = min(starvation.seconds(node, promoted, first) for node in range(nodes))
        if first - promoted - starved > SERVICE_SECONDS and not _has_excuse(past, promoted, nodes):
            faults = ", ".join(
                f"{one.kind} at {one.began - start:.1f} s"
                for one in past
                if one.began < first and promoted < one.ended
            )
            yield (
                f"the first event came {first - promoted:.1f} s after a promotion at"
                f" {promoted - start:.1f} s ({starved:.1f} s without a core); meanwhile: {faults}"
            )


def _has_excuse(past: list[Past], promoted: float, nodes: int) -> bool:
    until = promoted + SERVICE_SECONDS
    harmful = [one for one in past if one.kind not in HARMLESS and "Redis" not in one.kind]
    return any(
        one.kind in AWAY_AFTER_SECONDS and promoted < one.began < until for one in harmful
    ) or all(
        any(
            (one.node == node or one.kind == "every node killed")
            and one.touches(node, promoted, until)
            for one in harmful
        )
        for node in range(nodes)
    )


def _unready(
    recoveries: Sequence[Recovery], past: list[Past], starvation: Starvation
) -> Iterator[str]:
    """Nodes that did not have full use of a promoted server in time, but for time without a core.
    """
    for one in recoveries:
        starved = starvation.seconds(one.node, one.promoted, one.ready)
        if one.seconds - starved > SERVICE_SECONDS and not one.is_excused(past):
            yield f"node {one.node} was ready {one.seconds:.1f} s after a promotion ({one.kind})"


def _late(
    observed: Observations, past: list[Past], start: float, nodes: Sequence[NodeProcess],
    starvation: Starvation,
) -> list[str]:  # fmt: skip
    """Events that came late though Postgres answered, and refusals (503) that did.

    A node that is frozen answers when it wakes, one that has no core when it gets one.
    """
    events = [
        f"node {one.node} told {one.room} seq {one.seq} {one.seconds:.1f} s late,"
        f" {one.at - start:.1f} s after the start"
        for one in _unexcused(observed.slow, past, UNTELLABLE)
        if one.seconds > REPAIR_SECONDS
    ]
    own = [_refusals(node) for node in nodes]
    refusals = [
        f"node {node}: {seconds:.1f} s for a 503, {asked - start:.1f} s after the start"
        f" ({starved:.1f} s of it without a core)"
        for node, asked, answered in observed.late_refusals
        if (seconds := _own_seconds(own[node], asked, answered))
        - (starved := starvation.seconds(node, asked, answered)) > REFUSAL_SECONDS
        and not any(
            fault.kind == "node frozen" and fault.touches(node, asked - 1, answered + 1)
            for fault in past
        )
    ]
    return events + refusals


def _refusals(node: NodeProcess) -> list[tuple[float, float]]:
    """(when, seconds) of each 503 by the node's own log and clock."""
    found = []
    for line in node.logs().splitlines():
        if '"request"' in line and "503" in line:
            with contextlib.suppress(ValueError, KeyError):
                said = json.loads(line)
                if said["status"] == 503:
                    found.append((seconds_of(said["timestamp"]), said["ms"] / 1000))
    return found


def _own_seconds(own: list[tuple[float, float]], asked: float, answered: float) -> float:
    """How long a refusal took by the node's own clock; by the client's, where it logged none.

    The client's has in it how long the connection waited for a node that was starting.
    """
    near = [seconds for when, seconds in own if asked - 0.5 <= when <= answered + 0.5]
    return max(near, default=answered - asked)


def _errors(cluster: Cluster) -> list[str]:
    """What the nodes logged as errors. That one does not start without Postgres is none, nor that
    one ends before its connections do.
    """
    found: Counter[str] = Counter()
    for node in cluster.nodes:
        for line in node.logs().splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                said = {"level": "error", "event": line}
            reason = said.get("exception", "").strip().rpartition("\n")[2]
            what = f"{said.get('event')}: {reason}"[:400]
            if said.get("level") in ("error", "critical") and not _EXPECTED.search(what):
                found[f"a node logged {what}"] += 1
    return [f"{count} × {what}" for what, count in found.items()]


_EXPECTED = re.compile(
    r"Exception Group Traceback|Application startup failed|PostgreSQL cannot be (reached|used)"
    r"|timeout graceful shutdown exceeded"
)


async def end_states(
    cluster: InReach, population: Population, epoch: str = ""
) -> list[EndState]:
    """Every room that was made, as its nodes answer now; `epoch`: the one that clients know."""
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
                    [client.user_id for client in clients if epoch not in ("", client.epoch)],
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

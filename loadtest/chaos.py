"""Chaos: people use several nodes while nodes, Redis, Postgres and the wires between them break.

    python -m loadtest.chaos --seed 7 --minutes 2
    python -m loadtest.chaos --measure

The plan of faults follows from the seed alone; timings are the machine's. When it is over
everything is mended, the grace passes, and every promise about order, loss and presence is checked
for every room and every client (`verdict.py`). Exit status 1: a promise was broken; the seed
repeats the plan.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvloop
from rich.console import Console
from rich.table import Table

from loadtest.crowd import SLOW_SECONDS, Crowd, Memory, Slow, Tab
from loadtest.repair import measure
from loadtest.screen import Screen
from loadtest.site import Site, SiteNode
from loadtest.verdict import EndState, WasWell, ghosts, judge, lateness

GRACE = 6.0
SETTLE_SECONDS = 14.0
"""After everything is mended: a lease, a round of judging, and some more."""

REPAIR_SECONDS = 6.0
"""The contract's 5 s for an event that no message brought, and some for a busy machine."""

AT_ONCE = 2
"""Faults that may overlap."""

_KINDS: dict[str, tuple[int, float, float]] = {
    "node killed": (4, 0.3, 6),
    "node frozen": (4, 1, 14),
    "node drained": (2, 0.3, 3),
    "node cut from Postgres": (2, 1, 14),
    "node's Postgres hung": (2, 1, 14),
    "node cut from Redis": (1, 1, 8),
    "node's Redis hung": (1, 1, 8),
    "Redis killed": (3, 0.3, 8),
    "Redis hung": (2, 1, 9),
    "Redis flushed": (1, 0, 0),
    "Postgres killed": (2, 0.2, 4),
    "Postgres restarted": (1, 0.2, 10),
    "Postgres hung": (2, 0.5, 8),
    "every node killed": (1, 0.3, 4),
    "power cut": (1, 0.3, 4),
}
"""Kind -> how often, and the range of its duration in seconds."""


_NODES = frozenset(f"node {number}" for number in range(20))
_SHARED = {"every node killed": _NODES, "power cut": _NODES | {"Postgres", "Redis"}}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something breaks `at` seconds after the start, for `seconds`; `node`: whose, -1 = shared."""

    at: float
    kind: str
    node: int
    seconds: float

    @property
    def end(self) -> float:
        return self.at + self.seconds

    @property
    def victims(self) -> frozenset[str]:
        """What it harms: two faults never harm the same thing at the same time."""
        if self.node >= 0:
            return frozenset((f"node {self.node}",))
        return _SHARED.get(self.kind, frozenset((self.kind.split()[0],)))


@dataclass(frozen=True, slots=True)
class Past:
    """A fault as it was: from its beginning until its victim was up again, by the wall clock."""

    kind: str
    node: int
    began: float
    ended: float

    def touches(self, node: int, since: float, until: float) -> bool:
        """True where it harmed a node (or what all share) between two moments."""
        return self.node in (-1, node) and self.began < until and since < self.ended


def plan(seed: int, seconds: float, nodes: int) -> list[Fault]:
    """The faults of a run, by their time; all have ended when it does."""
    rng = random.Random(seed)
    kinds, weights = list(_KINDS), [weight for weight, _, _ in _KINDS.values()]
    faults: list[Fault] = []
    at = rng.uniform(1, 3)
    while at < seconds:
        kind = rng.choices(kinds, weights)[0]
        _, least, most = _KINDS[kind]
        node = rng.randrange(nodes) if kind.startswith("node") else -1
        fault = Fault(at, kind, node, rng.uniform(least, most))
        under_way = [one for one in faults if one.end + 1 > at]
        if (
            len(under_way) < AT_ONCE
            and not any(fault.victims & one.victims for one in under_way)
            and fault.end < seconds
        ):
            faults.append(fault)
        at += rng.uniform(0.5, 5)
    return faults


class Harm:
    """Does a fault to a site, and undoes it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.past: list[Past] = []
        self._busy: dict[str, asyncio.Lock] = {}
        self._do: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "node killed": self._kill_node,
            "node frozen": self._freeze_node,
            "node drained": self._drain_node,
            "node cut from Postgres": self._cut_postgres,
            "node's Postgres hung": self._hang_postgres,
            "node cut from Redis": self._cut_redis,
            "node's Redis hung": self._hang_redis,
            "Redis killed": self._kill_redis,
            "Redis hung": self._freeze_redis,
            "Redis flushed": self._flush_redis,
            "Postgres killed": self._kill_postgres,
            "Postgres restarted": self._restart_postgres,
            "Postgres hung": self._freeze_postgres,
            "every node killed": self._kill_nodes,
            "power cut": self._cut_power,
        }

    async def do(self, fault: Fault) -> None:
        """From its beginning to its end; a victim that is not up again yet is waited for."""
        async with contextlib.AsyncExitStack() as held:
            for victim in sorted(fault.victims):
                await held.enter_async_context(self._busy.setdefault(victim, asyncio.Lock()))
            began = time.time()
            await self._do[fault.kind](fault)
            self.past.append(Past(fault.kind, fault.node, began, time.time()))

    def _node(self, fault: Fault) -> SiteNode:
        return self.site.nodes[fault.node]

    async def _start_again(self, node: SiteNode) -> None:
        """A node does not start while Postgres is away: whoever runs it starts it until it does."""
        while True:
            self.site.start_node(node)
            try:
                await self.site.ready(node, within=6)
            except TimeoutError:
                if node.is_running:
                    return
            else:
                return

    async def _kill_node(self, fault: Fault) -> None:
        node = self._node(fault)
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(fault.seconds)
        await self._start_again(node)

    async def _kill_nodes(self, fault: Fault) -> None:
        for node in self.site.nodes:
            await asyncio.to_thread(node.kill)
        await asyncio.sleep(fault.seconds)
        await asyncio.gather(*(self._start_again(node) for node in self.site.nodes))

    async def _cut_power(self, fault: Fault) -> None:
        """Everything dies at once; PostgreSQL starts again on what it had committed."""
        site = self.site
        await asyncio.gather(
            asyncio.to_thread(site.postgres.kill), asyncio.to_thread(site.redis.kill),
            *(asyncio.to_thread(node.kill) for node in site.nodes),
        )  # fmt: skip
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(site.postgres.start)
        await asyncio.to_thread(site.redis.start)
        await asyncio.gather(*(self._start_again(node) for node in site.nodes))

    async def _freeze_node(self, fault: Fault) -> None:
        self._node(fault).signal(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        self._node(fault).signal(signal.SIGCONT)

    async def _drain_node(self, fault: Fault) -> None:
        node = self._node(fault)
        node.signal(signal.SIGTERM)
        await asyncio.to_thread(node.wait, 15)
        await asyncio.sleep(fault.seconds)
        await self._start_again(node)

    async def _cut_postgres(self, fault: Fault) -> None:
        self._node(fault).postgres.cut()
        await asyncio.sleep(fault.seconds)
        self._node(fault).postgres.mend()

    async def _hang_postgres(self, fault: Fault) -> None:
        self._node(fault).postgres.hang()
        await asyncio.sleep(fault.seconds)
        self._node(fault).postgres.mend()

    async def _cut_redis(self, fault: Fault) -> None:
        self._node(fault).redis.cut()
        await asyncio.sleep(fault.seconds)
        self._node(fault).redis.mend()

    async def _hang_redis(self, fault: Fault) -> None:
        self._node(fault).redis.hang()
        await asyncio.sleep(fault.seconds)
        self._node(fault).redis.mend()

    async def _kill_redis(self, fault: Fault) -> None:
        await asyncio.to_thread(self.site.redis.kill)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(self.site.redis.start)

    async def _freeze_redis(self, fault: Fault) -> None:
        self.site.signal_redis(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        self.site.signal_redis(signal.SIGCONT)

    async def _flush_redis(self, fault: Fault) -> None:
        await self.site.flush_redis()

    async def _kill_postgres(self, fault: Fault) -> None:
        await asyncio.to_thread(self.site.postgres.kill)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(self.site.postgres.start)

    async def _restart_postgres(self, fault: Fault) -> None:
        await asyncio.to_thread(self.site.postgres.stop)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(self.site.postgres.start)

    async def _freeze_postgres(self, fault: Fault) -> None:
        self.site.signal_postgres(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        self.site.signal_postgres(signal.SIGCONT)


@dataclass(slots=True)
class Report:
    """What came of a run.

    Attributes:
        slowest_repaired: the latest delivery while Postgres answered the client's node.
        worst_late: seconds by which a `left` came after its deadline, outages included.
        repaired_in: seconds from the last mending until every node said `ready`.
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
    memory = Memory()
    async with Site(nodes=nodes, grace=grace) as site:
        crowd = Crowd(site, memory, seed, rooms, people)
        try:
            await crowd.start()
            start = time.time()
            async with screen.step(f"seed {seed}: {len(faults)} faults", lambda: dict(memory.did)):
                past = await _carry_out(site, faults, seconds, screen)
            await crowd.stop()
            mended = time.monotonic()
            await asyncio.gather(*(site.ready(node) for node in site.nodes))
            repaired_in = time.monotonic() - mended
            async with screen.step("everything is mended; the grace passes"):
                await asyncio.sleep(grace + SETTLE_SECONDS)
            states = await _end_states(site, crowd)
            broken = judge(states, memory, grace, _was_well(past), _outages(past))
            late_joins, excused = ghosts(
                states, memory, {node.number: node.killed for node in site.nodes}
            )
        finally:
            await crowd.close()
            if keep_logs is not None:
                for node in site.nodes:
                    (keep_logs / f"seed-{seed}-node-{node.number}.log").write_text(node.said())
        errors = _errors(site)
    return Report(
        seed=seed, seconds=seconds, faults=Counter(fault.kind for fault in faults),
        did=dict(memory.did), events=sum(len(s.log) for s in states), rooms=len(states),
        codes={str(code): count for code, count in sorted(memory.codes.items())},
        seen_ms={str(k): v for k, v in memory.late.summary().items()},
        slowest=_slowest(memory.slow, past, start, blamed=()),
        slowest_repaired=_slowest(memory.slow, past, start, blamed=_NOBODY_COULD_TELL),
        worst_late=max([lateness(s.log) for s in states], default=0.0), repaired_in=repaired_in,
        excused=excused,
        broken=broken + late_joins + errors + _late(memory, past, start),
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


def _late(memory: Memory, past: list[Past], start: float) -> list[str]:
    """Events that came late though Postgres answered, and refusals (503) that did.

    A node that is frozen answers when it wakes.
    """
    events = [
        f"node {one.node} told {one.room} seq {one.seq} {one.seconds:.1f} s late,"
        f" {one.at - start:.1f} s after the start"
        for one in _unexcused(memory.slow, past, _NOBODY_COULD_TELL)
        if one.seconds > REPAIR_SECONDS
    ]
    refusals = [
        f"node {node}: {answered - asked:.1f} s for a 503, {asked - start:.1f} s after the start"
        for node, asked, answered in memory.late_refusals
        if not any(
            fault.kind == "node frozen" and fault.touches(node, asked - 1, answered + 1)
            for fault in past
        )
    ]
    return events + refusals


def _errors(site: Site) -> list[str]:
    """What the nodes logged as errors. That one does not start without Postgres is none."""
    found: Counter[str] = Counter()
    for node in site.nodes:
        for line in node.said().splitlines():
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


async def _carry_out(site: Site, faults: list[Fault], seconds: float, screen: Screen) -> list[Past]:
    """Does every fault at its time; what became of each."""
    harm = Harm(site)
    start = time.monotonic()
    under_way = []
    for fault in faults:
        await asyncio.sleep(max(0.0, start + fault.at - time.monotonic()))
        where = f" {fault.node}" if fault.node >= 0 else ""
        screen.console.print(
            f"[dim]{time.monotonic() - start:6.1f} s  {fault.kind}{where},"
            f" {fault.seconds:.1f} s[/]", highlight=False,
        )  # fmt: skip
        under_way.append(asyncio.create_task(harm.do(fault)))
    await asyncio.sleep(max(0.0, start + seconds - time.monotonic()))
    await asyncio.gather(*under_way)
    for node in site.nodes:
        if not node.is_running:
            site.start_node(node)
    return harm.past


async def _end_states(site: Site, crowd: Crowd) -> list[EndState]:
    """Every room that was made, as its nodes answer now."""
    states = []
    async with httpx.AsyncClient(
        trust_env=False, timeout=20, headers={"Authorization": f"Bearer {site.admin_token}"}
    ) as http:
        for room in crowd.all_rooms:
            answers = [
                await http.get(f"{node.url}/api/interview/room/{room}") for node in site.nodes
            ]
            if answers[0].status_code == 404:
                continue  # creating it was never answered, and did not happen
            views = [answer.json()["data"] for answer in answers]
            log = await _log(http, site.nodes[0], room)
            tabs = [tab for tab in crowd.tabs if tab.room == room and tab.is_connected]
            states.append(
                EndState(
                    room, log, views, {_user(tab, log) for tab in tabs},
                    [(tab.user_id, tab.seq) for tab in tabs],
                )
            )  # fmt: skip
    return states


def _user(tab: Tab, log: list[dict[str, Any]]) -> str:
    user: str = log[0]["participant"]["userId"] if tab.user_id == "host" else tab.user_id
    return user


async def _log(http: httpx.AsyncClient, node: SiteNode, room: str) -> list[dict[str, Any]]:
    log: list[dict[str, Any]] = []
    while True:
        answer = await http.get(
            f"{node.url}/api/interview/room/{room}/events", params={"after": len(log), "limit": 500}
        )
        page = answer.json()["data"]
        log += page["events"]
        if not page["hasMore"]:
            return log


def show(console: Console, report: Report) -> None:
    """The report, for people."""
    console.print(f"\n[bold]chaos[/]  seed {report.seed}, {report.seconds:.0f} s", highlight=False)
    console.print(
        "faults      " + ", ".join(f"{n} × {kind}" for kind, n in report.faults.items()),
        highlight=False,
    )
    console.print(f"log         {report.events:,} events in {report.rooms} rooms", highlight=False)
    did = ", ".join(f"{count:,} {what}" for what, count in sorted(report.did.items()))
    console.print(f"people      {did}", highlight=False)
    console.print(f"closed      {report.codes}", highlight=False)
    seen = ", ".join(f"{k} {v:,.1f}" for k, v in report.seen_ms.items())
    console.print(f"seen, ms    {seen}; the slowest {report.slowest}", highlight=False)
    console.print(
        f"repaired    while Postgres answered: the slowest {report.slowest_repaired}",
        highlight=False,
    )
    console.print(
        f"deadlines   at most {report.worst_late:.1f} s late (outages move them);"
        f" ready again {report.repaired_in:.1f} s after the last mending", highlight=False,
    )  # fmt: skip
    if report.excused:
        console.print(f"excused     {report.excused} joins: their node was killed", highlight=False)
    for sentence in report.broken[:40]:
        console.print(f"✗ {sentence[:1500]}", style="red", highlight=False, markup=False)
    if not report.broken:
        console.print("[green]✓[/] no promise was broken")


def _measure(console: Console, file: Path | None) -> int:
    figures = uvloop.run(measure(Screen(console), times=5))
    table = Table(show_edge=False)
    for name in ("seconds", "median", "worst"):
        table.add_column(name, justify="left" if name == "seconds" else "right")
    for what, (middle, worst) in figures.items():
        table.add_row(what, f"{middle:.3f}", f"{worst:.3f}")
    console.print(table)
    if file is not None:
        file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def parser() -> argparse.ArgumentParser:
    one = argparse.ArgumentParser(prog="python -m loadtest.chaos", description=__doc__)
    one.add_argument("--seed", type=int, default=1, help="of the plan and of the people (1)")
    one.add_argument("--minutes", type=float, default=2.0)
    one.add_argument("--nodes", type=int, default=3)
    one.add_argument("--rooms", type=int, default=5, help="open at a time")
    one.add_argument("--people", type=int, default=7, help="guests of a room")
    one.add_argument("--json", type=Path, help="write the report as JSON")
    one.add_argument(
        "--measure", action="store_true", help="no chaos: how long each fault takes to repair"
    )
    one.add_argument("--keep-logs", type=Path, help="a folder for the nodes' logs")
    return one


def main() -> int:
    """Exit status 0: every promise held; 1: one was broken."""
    arguments = parser().parse_args()
    console = Console()
    if arguments.measure:
        return _measure(console, arguments.json)
    report = uvloop.run(
        chaos(
            seed=arguments.seed, seconds=arguments.minutes * 60, nodes=arguments.nodes,
            rooms=arguments.rooms, people=arguments.people, screen=Screen(console),
            keep_logs=arguments.keep_logs,
        )
    )  # fmt: skip
    show(console, report)
    if arguments.json is not None:
        arguments.json.write_text(
            json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    if report.broken:
        console.print(f"repeat it: python -m loadtest.chaos --seed {report.seed}"
                      f" --minutes {report.seconds / 60:g} --nodes {arguments.nodes}")  # fmt: skip
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())

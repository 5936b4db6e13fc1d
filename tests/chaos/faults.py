"""What breaks, when, and who does it: the plan follows from the seed alone."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from loadtest.screen import Screen
from tests.harness.cluster import Cluster, ClusterNode

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
    """Does a fault to a cluster, and undoes it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
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

    def _node(self, fault: Fault) -> ClusterNode:
        return self.cluster.nodes[fault.node]

    async def _start_again(self, node: ClusterNode) -> None:
        """A node does not start while Postgres is away: whoever runs it starts it until it does."""
        while True:
            self.cluster.start_node(node)
            try:
                await self.cluster.ready(node, within=6)
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
        for node in self.cluster.nodes:
            await asyncio.to_thread(node.kill)
        await asyncio.sleep(fault.seconds)
        await asyncio.gather(*(self._start_again(node) for node in self.cluster.nodes))

    async def _cut_power(self, fault: Fault) -> None:
        """Everything dies at once; PostgreSQL starts again on what it had committed."""
        cluster = self.cluster
        await asyncio.gather(
            asyncio.to_thread(cluster.postgres.kill), asyncio.to_thread(cluster.redis.kill),
            *(asyncio.to_thread(node.kill) for node in cluster.nodes),
        )  # fmt: skip
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(cluster.postgres.start)
        await asyncio.to_thread(cluster.redis.start)
        await asyncio.gather(*(self._start_again(node) for node in cluster.nodes))

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
        await asyncio.to_thread(self.cluster.redis.kill)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(self.cluster.redis.start)

    async def _freeze_redis(self, fault: Fault) -> None:
        self.cluster.signal_redis(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        self.cluster.signal_redis(signal.SIGCONT)

    async def _flush_redis(self, fault: Fault) -> None:
        await self.cluster.flush_redis()

    async def _kill_postgres(self, fault: Fault) -> None:
        await asyncio.to_thread(self.cluster.postgres.kill)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(self.cluster.postgres.start)

    async def _restart_postgres(self, fault: Fault) -> None:
        await asyncio.to_thread(self.cluster.postgres.stop)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(self.cluster.postgres.start)

    async def _freeze_postgres(self, fault: Fault) -> None:
        self.cluster.signal_postgres(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        self.cluster.signal_postgres(signal.SIGCONT)


async def carry_out(
    cluster: Cluster, faults: list[Fault], seconds: float, screen: Screen
) -> list[Past]:
    """Does every fault at its time; what became of each."""
    harm = Harm(cluster)
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
    for node in cluster.nodes:
        if not node.is_running:
            cluster.start_node(node)
    return harm.past

"""Who does each fault of a plan, and undoes it: to nodes, to the wires, to whole servers."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import time
from collections.abc import Awaitable, Callable

from tests.chaos import operators
from tests.chaos.plan import RECOVERY_SECONDS, Fault, Past, Recovery
from tests.chaos.site import Site
from tests.harness.cluster import ClusterNode
from tests.harness.screen import Screen


class Harm:
    """Does a fault to a cluster, and undoes it.

    Attributes:
        past: what was done. recoveries: how each node got over each promotion.
    """

    def __init__(self, cluster: Site) -> None:
        self.cluster = cluster
        self.past: list[Past] = []
        self.recoveries: list[Recovery] = []
        self._watching: list[asyncio.Task[None]] = []
        self._busy: dict[str, asyncio.Lock] = {}
        self._jumps: dict[Fault, float] = {}
        self.do_by_kind: dict[str, Callable[[Fault], Awaitable[None]]] = {
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
            "node's log at its limit": self._limit_log,
            "node's Redis is another": self._mislead_redis,
            "Postgres clock jumped back": self._set_clock_back,
        }

    def note_promotion(self, fault: Fault) -> None:
        """A standby or a replica is the primary or the master now: the nodes are watched."""
        now = time.time()
        self._watching += [
            asyncio.create_task(self._watch(fault, node, now))
            for node in self.cluster.nodes
            if node.is_running
        ]

    async def _watch(self, fault: Fault, node: ClusterNode, promoted: float) -> None:
        while time.time() < promoted + RECOVERY_SECONDS:
            if await asyncio.to_thread(node.health) == "ready":
                self.recoveries.append(Recovery(fault.kind, node.number, promoted, time.time()))
                return
            await asyncio.sleep(0.1)
        self.recoveries.append(Recovery(fault.kind, node.number, promoted, float("inf")))

    async def have_recovered(self) -> None:
        """Returns when no node is watched any more."""
        await asyncio.gather(*self._watching)

    def is_busy_with(self, fault: Fault) -> bool:
        """True where a victim is not up again yet from what was done to it before."""
        return any(
            victim in self._busy and self._busy[victim].locked() for victim in fault.victims
        )

    async def do(self, fault: Fault) -> None:
        """From its beginning to its end; a victim that is not up again yet is waited for."""
        async with contextlib.AsyncExitStack() as held:
            for victim in sorted(fault.victims):
                await held.enter_async_context(self._busy.setdefault(victim, asyncio.Lock()))
            began = time.time()
            if fault.kind in operators.BY_KIND:
                await operators.BY_KIND[fault.kind](self.cluster.operator, fault.seconds)
            else:
                await self.do_by_kind[fault.kind](fault)
            self.past.append(
                Past(fault.kind, fault.node, began - self._jumps.pop(fault, 0.0), time.time())
            )

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
        ways = self.cluster.ways_to_postgres(self._node(fault))
        for way in ways:
            way.cut()
        await asyncio.sleep(fault.seconds)
        for way in ways:
            way.mend()

    async def _hang_postgres(self, fault: Fault) -> None:
        ways = self.cluster.ways_to_postgres(self._node(fault))
        for way in ways:
            way.hang()
        await asyncio.sleep(fault.seconds)
        for way in ways:
            way.mend()

    async def _cut_redis(self, fault: Fault) -> None:
        self._node(fault).redis.cut()
        await asyncio.sleep(fault.seconds)
        self._node(fault).redis.mend()

    async def _hang_redis(self, fault: Fault) -> None:
        self._node(fault).redis.hang()
        await asyncio.sleep(fault.seconds)
        self._node(fault).redis.mend()

    async def _limit_log(self, fault: Fault) -> None:
        """Its log file takes no more: each line fails with EFBIG."""
        node = self._node(fault)
        limit_file_size(node, node.log.stat().st_size)
        await asyncio.sleep(fault.seconds)
        limit_file_size(node, resource.RLIM_INFINITY)

    async def _mislead_redis(self, fault: Fault) -> None:
        """Its name of Redis leads to a server that knows nothing of the others'."""
        cluster, node = self.cluster, self._node(fault)
        if cluster.other_redis.process is None:
            await asyncio.to_thread(cluster.other_redis.start)
        node.redis.lead_to(cluster.other_redis.port)
        await asyncio.sleep(fault.seconds)
        node.redis.lead_to(cluster.redis.port)

    async def _set_clock_back(self, fault: Fault) -> None:
        """Events say times from before the fault: so far it reaches back."""
        self._jumps[fault] = await operators.set_clock_back(self.cluster.operator, fault.seconds)

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


def limit_file_size(node: ClusterNode, size_bytes: int) -> None:
    """No file that the node writes may grow beyond it."""
    if node.is_running:
        resource.prlimit(
            node.process.pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY)
        )


async def carry_out(
    harm: Harm, faults: list[Fault], seconds: float, screen: Screen
) -> list[Past]:
    """Does every fault at its time; what became of each.

    On a busy machine nodes take long to start: a fault whose victim is not up again is left out.
    """
    cluster = harm.cluster
    start = time.monotonic()
    under_way = []
    for fault in faults:
        await asyncio.sleep(max(0.0, start + fault.at - time.monotonic()))
        if harm.is_busy_with(fault):
            continue
        where = f" {fault.node}" if fault.node >= 0 else ""
        screen.console.print(
            f"[dim]{time.monotonic() - start:6.1f} s  {fault.kind}{where},"
            f" {fault.seconds:.1f} s[/]", highlight=False,
        )  # fmt: skip
        under_way.append(asyncio.create_task(harm.do(fault)))
    await asyncio.sleep(max(0.0, start + seconds - time.monotonic()))
    await asyncio.gather(*under_way)
    await harm.have_recovered()
    for node in cluster.nodes:
        if not node.is_running:
            cluster.start_node(node)
    return harm.past

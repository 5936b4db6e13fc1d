"""The mode `standby`: a primary that dies or hangs, its standby is promoted, a new one is made.

Nodes know both hosts by one `DATABASE_URL`. Asynchronous: the last events may be lost, sometimes
the cable is cut before the primary dies. Synchronous: nothing may be.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from coordinator.standins.servers import EmbeddedPostgres
from tests.chaos.faults import Harm
from tests.chaos.plan import Fault, Kinds, Past
from tests.chaos.site import PASSWORD, ROLE, GuardedPostgres, Site
from tests.chaos.verdict import NOTHING_WITHDRAWN, Withdrawn
from tests.harness.cluster import ClusterNode, signal_family
from tests.harness.standby import StandbyPostgres
from tests.harness.tcp_proxy import TcpProxy

FAILOVERS: Kinds = {
    "primary killed": (4, 0.2, 3),
    "primary hung": (2, 0.5, 4),
    "primary killed, standby behind": (3, 0.5, 3),
}
SYNCHRONOUS_FAILOVERS: Kinds = {
    kind: often for kind, often in FAILOVERS.items() if "behind" not in kind
}
LAG_SECONDS = 1.0
"""What was written so shortly before its primary's end a standby may not have heard of."""
OPTIONS = ("fsync=off", "wal_keep_size=64MB")


class GuardedStandby(GuardedPostgres, StandbyPostgres):
    """Asks the nodes' role for its password, once it lets them in."""

    def _make_cluster(self, binaries: Path) -> None:
        super()._make_cluster(binaries)
        settings = self.data / "postgresql.auto.conf"
        # As a primary it waits for nobody until it is told to.
        settings.write_text(settings.read_text() + "synchronous_standby_names = ''\n")


class StandbySite(Site):
    """A primary, `postgres`, and its `standby`.

    Attributes:
        is_synchronous: each commit waits for the standby, where it has one.
    """

    is_synchronous = False

    def __init__(self, *, nodes: int, grace: float, **settings: str) -> None:
        super().__init__(nodes=nodes, grace=grace, **settings)
        self.standby: StandbyPostgres = self._standby_of(self.postgres, self.spare_ports[1])
        self._ports = (self.postgres.port, self.spare_ports[1])
        self._other_ways: dict[int, TcpProxy] = {}

    def make_postgres(self) -> EmbeddedPostgres:
        return GuardedPostgres(self.folder / "one", port=self.postgres.port, options=OPTIONS)

    def _standby_of(self, primary: EmbeddedPostgres, port: int) -> StandbyPostgres:
        folder = self.folder / ("two" if primary.folder.name == "one" else "one")
        cable = TcpProxy(primary.port)
        return GuardedStandby(primary, folder, port=port, cable=cable, options=OPTIONS)

    async def fill_database(self) -> None:
        await super().fill_database()
        await self.start_standby()

    async def start_standby(self) -> None:
        """A copy of the primary that streams from it; returns when it has caught up."""
        shutil.rmtree(self.standby.data, ignore_errors=True)
        await self.standby.cable.start()
        await asyncio.to_thread(self.standby.start)
        await self.standby.catches_up()
        if self.is_synchronous:
            await self.standby.is_synchronous()

    async def start_nodes(self) -> None:
        for number in range(self.node_count):
            self._other_ways[number] = TcpProxy(self._ports[1])
            await self._other_ways[number].start()
        await super().start_nodes()

    def ways_to_postgres(self, node: ClusterNode) -> list[TcpProxy]:
        return [node.postgres, self._other_ways[node.number]]

    def environment(self, node: ClusterNode | None = None) -> dict[str, str]:
        ports = self._ports
        if node is not None:
            ports = (node.postgres.port, self._other_ways[node.number].port)
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        url = f"postgresql://{ROLE}:{PASSWORD}@{hosts}/coordinator"
        return super().environment(node) | {"DATABASE_URL": url}

    async def promote(self) -> None:
        """The standby is the primary."""
        await self.standby.is_promoted()
        self.promotions.append(time.time())

    async def replace_standby(self) -> None:
        """A promoted standby has one of its own where the old primary was."""
        old, new = self.postgres, self.standby
        await asyncio.to_thread(old.kill)
        await new.cable.close()
        self.postgres = new
        self.standby = self._standby_of(new, old.port)
        await self.start_standby()

    async def withdrawn(self, past: Sequence[Past]) -> Withdrawn:
        """What an asynchronous standby had not heard of when it was promoted."""
        if self.is_synchronous:
            return NOTHING_WITHDRAWN
        windows = [
            (fault.began - LAG_SECONDS, promoted + LAG_SECONDS)
            for fault in past
            for promoted in self.promotions
            if fault.kind in FAILOVERS and fault.began < promoted < fault.ended
        ]
        session = await self.operator.connect()
        epoch = str(await session.fetchval("SELECT epoch FROM deployment"))
        await session.close()
        return Withdrawn(epoch, windows)

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        await asyncio.to_thread(self.standby.stop)
        await self.standby.cable.close()
        for way in self._other_ways.values():
            await way.close()


class SynchronousSite(StandbySite):
    """Each commit waits for the standby."""

    is_synchronous = True


class StandbyHarm(Harm):
    """Failovers beside what happens to nodes and Redis."""

    def __init__(self, cluster: StandbySite) -> None:
        super().__init__(cluster)
        self.site = cluster
        self.do_by_kind |= {
            "primary killed": self._kill_primary,
            "primary hung": self._hang_primary,
            "primary killed, standby behind": self._kill_primary_ahead,
        }

    async def _fail_over(self, fault: Fault) -> None:
        await self.site.promote()
        self.note_promotion(fault)
        await self.site.replace_standby()

    async def _kill_primary(self, fault: Fault) -> None:
        await asyncio.to_thread(self.site.postgres.kill)
        await asyncio.sleep(fault.seconds)
        await self._fail_over(fault)

    async def _hang_primary(self, fault: Fault) -> None:
        """It never wakes: whoever promotes its standby ends it."""
        assert self.site.postgres.process is not None
        signal_family(self.site.postgres.process.pid, signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        await self._fail_over(fault)

    async def _kill_primary_ahead(self, fault: Fault) -> None:
        """For a while it writes what its standby does not hear of."""
        self.site.standby.cable.cut()
        await asyncio.sleep(fault.seconds)
        await self._kill_primary(fault)

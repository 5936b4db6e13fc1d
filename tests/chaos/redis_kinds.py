"""The modes `sentinel` and `cluster`: masters die or hang, replicas are promoted in their place."""

from __future__ import annotations

import asyncio
import random
import signal
import time

from tests.chaos.faults import Harm
from tests.chaos.plan import Fault, Kinds
from tests.chaos.site import Site
from tests.harness.cluster import ClusterNode
from tests.harness.valkeys import Sentinels, Valkey, ValkeyCluster, asked, ended

SENTINEL_FAULTS: Kinds = {
    "Redis master killed": (5, 0.3, 8),
    "Redis master hung": (2, 3, 9),
    "Redis sentinel killed": (2, 1, 10),
}
CLUSTER_FAULTS: Kinds = {
    "Redis shard's master killed": (5, 0.3, 8),
    "Redis shard's master hung": (2, 3, 9),
    "Redis shard lost": (3, 0.5, 8),
}
CHANNELS = 64
"""Over several shards, as large deployments spread their rooms."""
PROMOTED_SECONDS = 30.0


class SentinelSite(Site):
    """Redis is a master with a replica, watched by three sentinels."""

    def __init__(self, *, nodes: int, grace: float, **settings: str) -> None:
        super().__init__(nodes=nodes, grace=grace, **settings)
        self.sentinels = Sentinels(self.folder / "sentinels")
        self.valkeys = self.sentinels.servers

    async def start_servers(self) -> None:
        await asyncio.to_thread(self.postgres.start)
        await self.redis_ready()

    async def redis_ready(self) -> None:
        """Until the sentinels know each other."""
        await self.sentinels.ready()

    def environment(self, node: ClusterNode | None = None) -> dict[str, str]:
        return super().environment(node) | {"REDIS_URL": self.sentinels.url}

    async def __aexit__(self, *error: object) -> None:
        with ended(self.valkeys):
            await super().__aexit__(*error)


class ClusterSite(Site):
    """Redis is three masters, each with a replica; rooms are spread over all of them."""

    def __init__(self, *, nodes: int, grace: float, **settings: str) -> None:
        super().__init__(nodes=nodes, grace=grace, **settings)
        self.shards = ValkeyCluster(self.folder / "shards")
        self.valkeys = self.shards.servers

    async def start_servers(self) -> None:
        await asyncio.to_thread(self.postgres.start)
        await self.redis_ready()

    async def redis_ready(self) -> None:
        """Until every slot has its master, and every master its replica."""
        await self.shards.ready()

    async def fill_database(self) -> None:
        await super().fill_database()
        await self.operator.does(f"UPDATE deployment SET channels = {CHANNELS}")

    def environment(self, node: ClusterNode | None = None) -> dict[str, str]:
        return super().environment(node) | {"REDIS_URL": self.shards.url}

    async def __aexit__(self, *error: object) -> None:
        with ended(self.valkeys):
            await super().__aexit__(*error)


async def masters_among(servers: list[Valkey]) -> list[Valkey]:
    """Those that are one now, as they say themselves."""
    found = []
    for server in servers:
        role = await asked(server, "ROLE")
        assert isinstance(role, list)
        if role[0] == b"master":
            found.append(server)
    return found


async def until_masters(servers: list[Valkey], count: int) -> None:
    """So many of them are masters, and the others have one.

    Raises:
        TimeoutError: nobody was promoted.
    """
    deadline = time.monotonic() + PROMOTED_SECONDS
    while len(await masters_among(servers)) != count:
        if time.monotonic() > deadline:
            raise TimeoutError("nobody was promoted")
        await asyncio.sleep(0.1)


class ValkeysHarm(Harm):
    """What both kinds have in common.

    Attributes:
        servers: those that hold data; as many as `masters` of them are masters.
    """

    def __init__(self, cluster: Site, servers: list[Valkey], masters: int) -> None:
        super().__init__(cluster)
        self.servers = servers
        self._masters = masters
        self.rng = random.Random(len(servers))

    async def a_master(self) -> Valkey:
        """One of them, whichever."""
        return self.rng.choice(await masters_among(self.servers))

    async def kill(self, fault: Fault) -> None:
        """A master dies; it comes back as a replica of the one that replaced it."""
        victim = await self.a_master()
        victim.kill()
        watching = asyncio.create_task(self._see_promotion(fault, victim))
        await asyncio.sleep(fault.seconds)
        victim.start()
        await until_masters(self.servers, self._masters)
        watching.cancel()

    async def _see_promotion(self, fault: Fault, victim: Valkey) -> None:
        """Notes it where one comes before the victim is back."""
        others = [server for server in self.servers if server is not victim]
        await until_masters(others, self._masters)
        self.note_promotion(fault)

    async def hang(self, fault: Fault) -> None:
        """A master says nothing; it wakes and is told that it is none any more."""
        victim = await self.a_master()
        assert victim.process is not None
        victim.process.send_signal(signal.SIGSTOP)
        watching = asyncio.create_task(self._see_promotion(fault, victim))
        await asyncio.sleep(fault.seconds)
        victim.process.send_signal(signal.SIGCONT)
        await until_masters(self.servers, self._masters)
        watching.cancel()


class SentinelHarm(ValkeysHarm):
    """Failovers that the sentinels carry out."""

    def __init__(self, cluster: SentinelSite) -> None:
        sentinels = cluster.sentinels
        super().__init__(cluster, [sentinels.master, sentinels.replica], 1)
        self._sentinels = sentinels.sentinels
        self.do_by_kind |= {
            "Redis master killed": self.kill,
            "Redis master hung": self.hang,
            "Redis sentinel killed": self._kill_sentinel,
        }

    async def _kill_sentinel(self, fault: Fault) -> None:
        victim = self.rng.choice(self._sentinels)
        victim.kill()
        await asyncio.sleep(fault.seconds)
        victim.start()


class ClusterHarm(ValkeysHarm):
    """Shards that lose their master, or everything."""

    def __init__(self, cluster: ClusterSite) -> None:
        super().__init__(cluster, cluster.shards.servers, 3)
        self.do_by_kind |= {
            "Redis shard's master killed": self.kill,
            "Redis shard's master hung": self.hang,
            "Redis shard lost": self._lose_shard,
        }

    async def _lose_shard(self, fault: Fault) -> None:
        """Its master and its replica die together, and come back with its slots."""
        master = await self.a_master()
        replica = await self._replica_of(master)
        for server in (master, replica):
            server.kill()
        await asyncio.sleep(fault.seconds)
        for server in (master, replica):
            server.start()
        await until_masters(self.servers, self._masters)

    async def _replica_of(self, master: Valkey) -> Valkey:
        for server in self.servers:
            role = await asked(server, "ROLE")
            assert isinstance(role, list)
            if role[0] == b"slave" and role[2] == master.port:
                return server
        raise LookupError(f"the master at {master.port} has no replica")

"""The mode `pgbouncer`: PgBouncer in transaction mode between the nodes and PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib

from tests.chaos.faults import Harm
from tests.chaos.plan import Fault, Kinds
from tests.chaos.site import Site
from tests.harness.pgbouncer import PgBouncer

POOLER_FAULTS: Kinds = {"PgBouncer killed": (4, 0.3, 6)}
SERVERS = 6
"""Connections to PostgreSQL that each node may take."""


class PooledSite(Site):
    """Each node's way to PostgreSQL leads through one PgBouncer."""

    def __init__(self, *, nodes: int, grace: float, **settings: str) -> None:
        super().__init__(nodes=nodes, grace=grace, DATABASE_POOLER="transaction", **settings)
        self.pooler = PgBouncer(
            self.database_url(self.postgres.port), mode="transaction", servers=SERVERS * nodes
        )
        self._stack = contextlib.ExitStack()

    async def start_nodes(self) -> None:
        await asyncio.to_thread(self._stack.enter_context, self.pooler)
        await super().start_nodes()

    @property
    def postgres_port(self) -> int:
        return self.pooler.port

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        await asyncio.to_thread(self._stack.close)


class PoolerHarm(Harm):
    """The pooler dies beside everything else."""

    def __init__(self, cluster: PooledSite) -> None:
        super().__init__(cluster)
        self._pooler = cluster.pooler
        self.do_by_kind["PgBouncer killed"] = self._kill_pooler

    async def _kill_pooler(self, fault: Fault) -> None:
        await asyncio.to_thread(self._pooler.kill)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(self._pooler.start)

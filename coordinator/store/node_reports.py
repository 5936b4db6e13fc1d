"""What nodes say of themselves, for whoever watches the deployment: the table `node_reports`.

A report is JSON text that only its readers understand; here it is written and read whole. Reports
decide nothing: leases do (`store/nodes.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from piccolo.querystring import QueryString

from coordinator.store.database import Database
from coordinator.store.engine import NOW
from coordinator.store.tables import NodeReportsTable

KEPT = timedelta(minutes=10)
"""How long the report of a node without a lease is kept: so long it is told to be missing."""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node that holds a lease; `report` and `history` are JSON, None before its first report."""

    node_epoch: str
    name: str
    held_since: datetime
    reported_at: datetime | None
    report: str | None
    history: str | None


@dataclass(frozen=True, slots=True)
class MissingNode:
    """A node that went without giving its lease back, and when it was last heard."""

    node_epoch: str
    name: str
    reported_at: datetime


class NodeReports:
    """Reads and writes them. Every method raises `Unavailable` where Postgres is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, node_epoch: str, name: str, report: str, history: str | None) -> None:
        """This node's report of now; `history` None leaves that as it is."""
        said = NodeReportsTable(
            node_epoch=node_epoch, name=name[:100], reported_at=NOW, report=report,
            history="[]" if history is None else history,
        )  # fmt: skip
        changed = [NodeReportsTable.reported_at, NodeReportsTable.report]
        if history is not None:
            changed.append(NodeReportsTable.history)
        await self._database.run(
            NodeReportsTable.insert(said).on_conflict(
                NodeReportsTable.node_epoch, action="DO UPDATE", values=changed
            )
        )

    async def remove(self, node_epoch: str) -> None:
        """A node ends in order, and nobody will miss it. Old reports of others go along."""
        own = NodeReportsTable.node_epoch == node_epoch
        old = NodeReportsTable.reported_at < QueryString("clock_timestamp() - {}::interval", KEPT)
        await self._database.run(NodeReportsTable.delete().where(own | old))

    async def holding_a_lease(self) -> list[NodeReport]:
        """Every node that holds a lease, by name."""
        # SQL by hand, as in `missing`: no foreign key lies between these tables to join along.
        rows = await self._database.fetch(
            """
            SELECT n.boot, n.name, n.held_since, r.reported_at, r.report, r.history
            FROM nodes n LEFT JOIN node_reports r ON r.node_epoch = n.boot
            WHERE n.lease_until > clock_timestamp() ORDER BY n.name, n.boot
            """
        )
        return [NodeReport(*row) for row in rows]

    async def missing(self) -> list[MissingNode]:
        """Nodes of the last ten minutes that hold no lease, the last heard first.

        A process that was declared dead and goes on as a new node is not missing.
        """
        rows = await self._database.fetch(
            """
            SELECT r.node_epoch, r.name, r.reported_at FROM node_reports r
            WHERE r.reported_at > clock_timestamp() - $1::interval
            AND NOT EXISTS (SELECT FROM nodes n WHERE n.lease_until > clock_timestamp()
                            AND (n.boot = r.node_epoch OR n.name = r.name))
            ORDER BY r.reported_at DESC LIMIT 50
            """,
            KEPT,
        )
        return [MissingNode(*row) for row in rows]

"""What nodes say of themselves, for whoever watches the deployment: the table `node_reports`.

A report is JSON text that only its readers understand; here it is written and read whole. Reports
decide nothing: leases do (`store/nodes.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from coordinator.store.database import Database

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
        await self._database.execute(
            """
            INSERT INTO node_reports AS r (node_epoch, name, reported_at, report, history)
            VALUES ($1, $2, clock_timestamp(), $3::json, coalesce($4::json, '[]'))
            ON CONFLICT (node_epoch) DO UPDATE SET
                reported_at = clock_timestamp(), report = excluded.report,
                history = coalesce($4::json, r.history)
            """,
            node_epoch, name[:100], report, history,
        )  # fmt: skip

    async def remove(self, node_epoch: str) -> None:
        """A node ends in order, and nobody will miss it. Old reports of others go along."""
        await self._database.execute(
            """
            DELETE FROM node_reports
            WHERE node_epoch = $1 OR reported_at < clock_timestamp() - $2::interval
            """,
            node_epoch, KEPT,
        )  # fmt: skip

    async def holding_a_lease(self) -> list[NodeReport]:
        """Every node that holds a lease, by name."""
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

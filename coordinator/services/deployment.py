"""The deployment as an operator sees it: every node that holds a lease, and those that are missing.

Each node has reported itself to Postgres, so whichever node is asked knows of all. An answer is
made at most once a second and node, whoever looks, and puts the nodes' own JSON together unread.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import msgspec

from coordinator.domain.events import timestamp
from coordinator.store.node_reports import NodeReport, NodeReports

FRESH_SECONDS = 1.0


class DeploymentStatus:
    """Answers, from memory where it is fresh."""

    def __init__(self, reports: NodeReports) -> None:
        self._reports = reports
        self._answer = b""
        self._answered_at = float("-inf")
        self._asking = asyncio.Lock()

    async def shown(self, epoch: str) -> bytes:
        """JSON: `{epoch, now, nodes, gone}`.

        Raises:
            Unavailable: Postgres is away.
        """
        async with self._asking:
            if time.monotonic() - self._answered_at > FRESH_SECONDS:
                self._answer = await self._made(epoch)
                self._answered_at = time.monotonic()
            return self._answer

    async def _made(self, epoch: str) -> bytes:
        nodes = await self._reports.holding_a_lease()
        missing = await self._reports.missing()
        return msgspec.json.encode(
            {
                "epoch": epoch,
                "now": timestamp(datetime.now(UTC)),
                "nodes": [_shown(node) for node in nodes],
                "gone": [
                    {"node": node.node_epoch, "name": node.name, "at": timestamp(node.reported_at)}
                    for node in missing
                ],
            }
        )


def _shown(node: NodeReport) -> msgspec.Raw:
    """A node's report with its history in it; one that has just begun has neither."""
    if node.report is None or node.reported_at is None:
        head: dict[str, object] = {"node": node.node_epoch, "name": node.name}
        head |= {"since": timestamp(node.held_since), "history": []}
        return msgspec.Raw(msgspec.json.encode(head))
    more = f'"reportedAt":"{timestamp(node.reported_at)}","history":{node.history or "[]"}'
    return msgspec.Raw(f"{node.report.rstrip().removesuffix('}')},{more}}}".encode())

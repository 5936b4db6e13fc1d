"""Whose messages count on the bus: those of nodes with a lease in this node's own database.

A copy of the database on the same Redis has the same names, secrets and even the same epoch; but
its nodes have leases in the copy only. A sender that is not known is looked up; its messages count
from then on, and what it published before is found in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coordinator.live.loop import Loop
from coordinator.store.nodes import SPEAKS, Nodes

REFRESH_SECONDS = 5.0
ASK_SECONDS = 0.2
"""The least time between two look-ups, however many unknown senders there are."""


class KnownNodes:
    """The holders of leases, a few seconds old at most while Postgres is there.

    Attributes:
        node_epochs: the holders'.
        older: those of them that are of the version before and sign nothing.
        spreads: over how many channels the others spread feeds; one number, unless a deployment
            is on its way from one to another.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._loop = Loop(self.refresh, name="known_nodes", seconds=REFRESH_SECONDS)
        self._asked = asyncio.Event()
        self.node_epochs: set[str] = set()
        self.older: set[str] = set()
        self.spreads: set[int] = set()

    def knows(self, node_epoch: str) -> bool:
        """True for a holder; anybody else is looked up soon."""
        if node_epoch in self.node_epochs:
            return True
        self._asked.set()
        return False

    def ask(self) -> None:
        """A message came that a node of an older version may have sent: looks soon."""
        self._asked.set()

    async def look(self) -> bool:
        """Looks now; True where the list has grown. Survives an outage of Postgres."""
        before = self.node_epochs
        await self._loop.pass_once()
        return bool(self.node_epochs - before)

    async def run(self, on_new: Callable[[], None]) -> None:
        """Keeps the list, until cancelled; `on_new` hears that it has grown."""
        while True:
            if await self.look():
                on_new()
            await asyncio.sleep(ASK_SECONDS)
            try:
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._asked.wait()
            except TimeoutError:
                pass
            self._asked.clear()

    async def refresh(self) -> None:
        """One look.

        Raises:
            Unavailable: Postgres is away; those who were known stay known.
        """
        holders = await self._nodes.holders()
        self.node_epochs = set(holders)
        self.older = {epoch for epoch, holder in holders.items() if holder.speaks < SPEAKS}
        self.spreads = {each.channels for each in holders.values() if each.speaks >= SPEAKS}

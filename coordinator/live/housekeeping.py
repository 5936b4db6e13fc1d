"""What a node tidies up in its spare time. It decides nothing: no trouble here touches presence."""

from __future__ import annotations

import asyncio

from coordinator.live.loop import Loop
from coordinator.store.qr_images import Images
from coordinator.store.retention import Retention
from coordinator.store.sealing import Sealing

PURGE_SECONDS = 60.0
PAUSE_SECONDS = 0.05
"""The pause between two steps, in which other work has its turn."""
STEPS = 1_000
"""The most steps of one pass, of each kind."""


class Housekeeping:
    """Deletes what has been kept long enough, and encrypts what is not encrypted as it should be.
    """

    def __init__(self, retention: Retention, sealing: Sealing, images: Images) -> None:
        self._retention = retention
        self._sealing = sealing
        self._images = images
        self._purging = Loop(self.purge, name="purge", seconds=PURGE_SECONDS)

    async def run(self) -> None:
        """Until cancelled."""
        await self._purging.run()

    async def purge(self) -> None:
        """One pass: small steps until there is no more to delete, or another node is at it.

        Raises:
            Unavailable: Postgres is away.
        """
        for step in (self._retention.step, self._sealing.step, self._images.step):
            for _ in range(STEPS):
                if not await step():
                    break
                await asyncio.sleep(PAUSE_SECONDS)

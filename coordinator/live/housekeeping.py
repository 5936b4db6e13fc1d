"""What a node tidies up in its spare time. It decides nothing: no trouble here touches presence."""

from __future__ import annotations

from datetime import datetime, timedelta

from coordinator.live.loop import Loop
from coordinator.store.rooms import Rooms

PURGE_SECONDS = 60.0
PURGED_AT_ONCE = 100


class Housekeeping:
    """Deletes the logs of rooms that ended long ago, a few at a time, and looks at each once."""

    def __init__(self, rooms: Rooms, *, events_keep_days: float) -> None:
        self._rooms = rooms
        self._events_keep_days = events_keep_days
        self._purged_until: datetime | None = None
        self._purging = Loop(self.purge, name="purge", seconds=PURGE_SECONDS)

    async def run(self) -> None:
        """Until cancelled."""
        await self._purging.run()

    async def purge(self) -> None:
        """One step.

        Raises:
            Unavailable: Postgres is away.
        """
        done, horizon = await self._rooms.purge_events(
            older_than_days=self._events_keep_days, rooms=PURGED_AT_ONCE, after=self._purged_until
        )
        if done < PURGED_AT_ONCE:
            self._purged_until = horizon - timedelta(minutes=1)

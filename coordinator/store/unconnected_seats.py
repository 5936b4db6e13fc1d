"""Where the guests of a room came from, as far as they have not connected: for one limit alone.

SQL by hand: every join under that limit waits for it.
"""

from __future__ import annotations

from coordinator.store.database import Database


class UnconnectedSeats:
    """Reads and notes it. Raises `Unavailable` where Postgres is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def unconnected(self, room_id: str, joined_from: str) -> int:
        """How many guests from there are in the room and have not connected."""
        count: int = await self._database.fetchval(
            """
            SELECT count(*) FROM interview_participants
            WHERE room_id = $1 AND joined_from = $2 AND left_at IS NULL AND connection = 'none'
            """,
            room_id,
            joined_from,
        )
        return count

    async def note(self, room_id: str, user_id: str, joined_from: str) -> None:
        """This guest came from there."""
        await self._database.execute(
            """
            UPDATE interview_participants SET joined_from = $3
            WHERE room_id = $1 AND user_id = $2
            """,
            room_id, user_id, joined_from,
        )  # fmt: skip

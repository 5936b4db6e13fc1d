"""Duties: what one node at a time does for all of them, each kind a lease of its own.

    kind     holder    held_until       generation
    reap     3f9c…     in 1.5 s         how often it has changed hands

SQL by hand: an upsert with a condition, and every node asks twice a second.
"""

from __future__ import annotations

from datetime import timedelta

from coordinator.store.database import Database

# A clock that jumped back leaves leases that lie far ahead: they count as run out.
_HOLD = """
    INSERT INTO duties (kind, holder, held_until, generation)
    VALUES ($1, $2, clock_timestamp() + $3::interval, 1)
    ON CONFLICT (kind) DO UPDATE
    SET holder = excluded.holder, held_until = excluded.held_until,
        generation = duties.generation + (duties.holder <> excluded.holder)::int
    WHERE duties.holder = excluded.holder OR duties.held_until < clock_timestamp()
        OR duties.held_until > clock_timestamp() + 3 * $3::interval
    RETURNING generation
"""
_IS_TAKEN = """
    SELECT true FROM duties WHERE kind = $1 AND holder <> $2
        AND held_until BETWEEN clock_timestamp() AND clock_timestamp() + interval '1 min'
"""


class Duties:
    """Takes and renews duties. Every method raises `Unavailable` where Postgres is away."""

    def __init__(self, database: Database) -> None:
        self._line = database.line()

    async def hold(self, kind: str, node_epoch: str, lease: timedelta) -> int | None:
        """Takes the duty, or keeps it; its generation, or None where another node has it."""
        generation: int | None = await self._line.fetchval(_HOLD, kind, node_epoch, lease)
        return generation

    async def is_free(self, kind: str, node_epoch: str) -> bool:
        """True where nobody else has it. A look that locks nothing, before `hold` does."""
        return not await self._line.fetchval(_IS_TAKEN, kind, node_epoch)

    async def let_go(self, node_epoch: str) -> None:
        """A node ends in order: whoever asks next has its duties."""
        await self._line.execute(
            "UPDATE duties SET held_until = clock_timestamp() WHERE holder = $1", node_epoch
        )

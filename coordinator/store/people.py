"""Staff: the table `users`."""

from __future__ import annotations

from typing import Any

from coordinator.domain.people import Staff
from coordinator.store.database import Database

_COLUMNS = "id, openid, role, name, avatar, phone"


class People:
    """Finds, adds and changes staff. Every method raises `Unavailable` where Postgres is away."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def staff(self, number: int) -> Staff | None:
        """The staff member, or None where there is none or an operator has disabled it."""
        return _staff(
            await self.database.fetchrow(
                f"SELECT {_COLUMNS} FROM users WHERE id = $1 AND disabled_at IS NULL", number
            )
        )


def _staff(row: Any) -> Staff | None:
    if row is None:
        return None
    return Staff(row["id"], row["openid"], row["role"], row["name"], row["avatar"], row["phone"])

"""Lists of rooms, in pages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from coordinator.store.database import Database
from coordinator.store.lists import PagedList

_ROOMS = PagedList(
    table="interview_rooms",
    number="id",
    shown="""
        p.room_id, p.room_name, p.host_name, p.status, p.created_at,
        CASE WHEN p.status = 'active' THEN p.present ELSE coalesce(p.attended, (
            SELECT count(*) FROM interview_participants i WHERE i.room_id = p.room_id))
        END AS people
    """,
)
_HOLDS_PART = "strpos(lower(room_id || chr(10) || room_name), lower({})) > 0"


@dataclass(frozen=True, slots=True)
class ListedRoom:
    """A row of a list of rooms. `people`: present now; in an ended room, who ever attended."""

    room_id: str
    room_name: str
    host_name: str
    status: str
    people: int
    created_at: datetime


async def listed_rooms(
    database: Database, *, host: int | None, status: str | None, part: str | None, limit: int,
    offset: int,
) -> tuple[int, list[ListedRoom]]:  # fmt: skip
    """How many rooms there are, and a page of them, newest first.

    Args:
        host: only rooms of this host; None = of all.
        part: only rooms whose id or name holds it, in capital or small letters; None = all.
    """
    filters = {"host_id = {}": host, "status = {}": status, _HOLDS_PART: part}
    wanted = {condition: value for condition, value in filters.items() if value is not None}
    total, rows = await _ROOMS.page(database, wanted, limit=limit, offset=offset)
    return total, [
        ListedRoom(
            row["room_id"], row["room_name"], row["host_name"], row["status"], row["people"],
            row["created_at"],
        )
        for row in rows
    ]  # fmt: skip

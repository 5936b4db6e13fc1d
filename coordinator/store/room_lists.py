"""Lists of rooms, in pages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from piccolo.columns.combination import Where, WhereRaw
from piccolo.querystring import QueryString

from coordinator.store.database import Database
from coordinator.store.tables import InterviewRooms

_LISTED = (
    InterviewRooms.room_id, InterviewRooms.room_name, InterviewRooms.host_name,
    InterviewRooms.status, InterviewRooms.created_at,
)  # fmt: skip
_PEOPLE = QueryString(
    """
    CASE WHEN status = 'active' THEN present ELSE coalesce(attended, (
        SELECT count(*) FROM interview_participants p WHERE p.room_id = interview_rooms.room_id))
    END
    """,
    alias="people",
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
    # Only what is asked for stands in the statement, so that its index is used.
    wanted: list[Where | WhereRaw] = []
    if host is not None:
        wanted.append(InterviewRooms.host_id == host)
    if status is not None:
        wanted.append(InterviewRooms.status == status)
    if part is not None:
        wanted.append(WhereRaw(_HOLDS_PART, part))
    total = await database.run(InterviewRooms.count().where(*wanted))
    page = InterviewRooms.select(*_LISTED, _PEOPLE).where(*wanted).limit(limit).offset(offset)
    newest = (InterviewRooms.created_at, InterviewRooms.id)
    rows = await database.run(page.order_by(*newest, ascending=False))
    return total, [ListedRoom(**row) for row in rows]

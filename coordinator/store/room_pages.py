"""Rooms as everybody may see them, of any size: a page of people is one JSON text.

Postgres writes the JSON of the people, and the answer takes it as it is: a page of 500 costs the
loop what a page of one costs. A room with few people shares its query with other rooms that are
asked for at the same time; a room with many, and one that has ended, is read by itself, so that
nobody waits for somebody else's crowd. Behind a pooler each page proves its history, as everything
does that is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coordinator.domain.ids import staff_id
from coordinator.store.coalesce import ByKey, Coalesced
from coordinator.store.database import Database

MOST_SHOWN = 500
"""People in the view of a room; whoever joined later is on the pages."""

FEW = 50
"""People of a room that may share its query."""

# A time as `domain.events.timestamp` prints it: UTC, milliseconds cut off.
_TIME = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""

_PEOPLE = f"""
    SELECT coalesce(string_agg(shown.line, ',' ORDER BY shown.joined_seq), '')
    FROM (
        SELECT p.joined_seq, (
            SELECT json_strip_nulls(row_to_json(person))::text FROM (
                SELECT p.user_id AS "userId", p.user_name AS "userName", p.role,
                    p.identity, {_TIME.format("p.joined_at")} AS "joinedAt",
                    CASE WHEN r.status = 'active' THEN p.connection END AS connection,
                    CASE WHEN r.status = 'ended' THEN {_TIME.format("p.left_at")} END AS "leftAt"
            ) AS person
        ) AS line
        FROM interview_participants p
        WHERE p.room_id = r.room_id AND (p.left_at IS NULL OR r.status = 'ended')
        ORDER BY p.joined_seq
        LIMIT {{limit}} OFFSET {{offset}}
    ) AS shown
"""

_ROOM = """
    r.room_id, r.room_name, r.host_id, r.host_name, r.status, r.created_at, r.ended_at, r.present
"""

_COUNT = """
    CASE WHEN r.status = 'active' THEN r.present ELSE coalesce(r.attended, (
        SELECT count(*) FROM interview_participants p WHERE p.room_id = r.room_id)) END
"""

# $2: since when the people of a room that ended may be gone; null = never.
_IS_KEPT = "(r.ended_at >= $2::timestamptz) IS NOT FALSE"

_SMALL_ROOMS = ByKey(
    f"""
    SELECT {_ROOM}, r.present AS count,
        CASE WHEN r.status = 'active' AND r.present <= {FEW}
            THEN ({_PEOPLE.format(limit=FEW, offset=0)}) END AS people
    FROM interview_rooms r WHERE r.room_id {{is_asked_for}}
    """,
)

_ONE_ROOM = f"""
    SELECT {_ROOM}, {_COUNT} AS count,
        CASE WHEN {_IS_KEPT}
            THEN ({_PEOPLE.format(limit="$3", offset="$4")}) ELSE '' END AS people
    FROM interview_rooms r WHERE r.room_id = $1
"""


@dataclass(frozen=True, slots=True)
class RoomPage:
    """A room and some of its people.

    Attributes:
        count: how many are in it now; in an ended room, how many different people attended.
        people: the JSON list of them as it is shown, in order of joining.
    """

    room_id: str
    room_name: str
    host_id: str
    host_name: str
    status: str
    created_at: datetime
    ended_at: datetime | None
    count: int
    people: str

    @property
    def is_ended(self) -> bool:
        return self.status == "ended"


class RoomPages:
    """Reads pages of people. Raises `Unavailable` where Postgres is away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Connections of their own are cheaper than borrowing one each time.
        self._lines = [] if database.is_pooled else [database.line(), database.line()]
        self._small = Coalesced(self._read_small, at_once=max(1, len(self._lines)))

    async def first(self, room_id: str, *, kept_since: datetime | None) -> RoomPage | None:
        """The room with the first `MOST_SHOWN` of its people; None = no such room."""
        row = await self._small.get(room_id)
        if row is None or row["people"] is not None:
            return row and _page(row)
        return await self.page(room_id, limit=MOST_SHOWN, offset=0, kept_since=kept_since)

    async def page(
        self, room_id: str, *, limit: int, offset: int, kept_since: datetime | None
    ) -> RoomPage | None:
        """The room with some of its people.

        Args:
            kept_since: of a room that ended before nobody is shown any more; None shows all.
        """
        rows = await self._database.fetch_told(
            _ONE_ROOM, room_id, kept_since, limit, offset, key="room_id"
        )
        return _page(rows[0]) if rows else None

    async def _read_small(self, room_ids: list[str]) -> dict[str, Any]:
        sql, asked = _SMALL_ROOMS.of(room_ids)
        line = self._lines.pop() if self._lines else None
        try:
            rows = await self._database.fetch_told(sql, asked, key="room_id", line=line)
        finally:
            if line is not None:
                self._lines.append(line)
        return {row["room_id"]: row for row in rows}

    async def unconnected(self, room_id: str) -> list[str]:
        """The ids of the guests in a room who have not connected since they joined."""
        rows = await self._database.fetch(
            """
            SELECT user_id FROM interview_participants
            WHERE room_id = $1 AND left_at IS NULL AND connection = 'none' AND role = 'guest'
            ORDER BY joined_seq
            """,
            room_id,
        )
        return [row["user_id"] for row in rows]


def _page(row: Any) -> RoomPage:
    return RoomPage(
        row["room_id"], row["room_name"], staff_id(row["host_id"]), row["host_name"],
        row["status"], row["created_at"], row["ended_at"], row["count"], f"[{row['people']}]",
    )  # fmt: skip

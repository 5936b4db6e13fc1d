"""Rooms: what is read of them, and how one is made. `room_writer` writes everything else."""

from __future__ import annotations

import asyncio
import random
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from coordinator.domain import room_rules as rules
from coordinator.domain.errors import RoomExists, Unavailable
from coordinator.domain.events import ROOM, Head, timestamp
from coordinator.domain.ids import staff_id
from coordinator.domain.people import Staff
from coordinator.domain.room import Participant, Room
from coordinator.domain.roster import Roster
from coordinator.store.coalesce import ByKey, Coalesced
from coordinator.store.database import Database
from coordinator.store.logs import LogTables, StoredLogs
from coordinator.store.room_writer.sql import payload

Standing = Literal["present", "gone", "removed"]

PATIENCE_SECONDS = 4.5
"""How long the caller of `Rooms.create` waits, both tries together."""

_LOGS = LogTables(
    rows="interview_rooms", id="room_id", last_at="last_at", events="room_events",
    event_id="room_id",
)  # fmt: skip

_ROW = ByKey(
    """
    SELECT r.room_id, r.room_name, r.host_id, r.host_name, r.status, r.created_at, r.ended_at,
        r.last_seq, r.last_at, r.present, r.guests, r.online, r.host_absent_since, r.empty_since
    FROM interview_rooms r WHERE r.room_id {is_asked_for}
    """,
)

# One statement sees one moment: the roster and the event that it reflects belong together.
# OFFSET 0 keeps the planner from reading all participants once where few rooms hold most of them.
_LOAD = ByKey(
    """
    SELECT r.room_id, r.room_name, r.host_name, r.status, r.created_at, r.last_seq, r.last_at,
           r.erasures, last.epoch AS last_epoch, p.user_id, p.user_name, p.role, p.identity,
           p.joined_at, p.left_at, p.connection
    FROM interview_rooms r
    LEFT JOIN room_events last ON last.room_id = r.room_id AND last.seq = r.last_seq
    LEFT JOIN LATERAL (
        SELECT * FROM interview_participants p WHERE p.room_id = r.room_id AND p.left_at IS NULL
        OFFSET 0
    ) p ON true
    WHERE r.room_id {is_asked_for}
    ORDER BY r.room_id, p.joined_seq
    """,
)

# The last event of each person tells how it is connected: the counts of a seq that has passed.
_CONNECTIONS_AT = """
    SELECT user_id, type, connection
    FROM (
        SELECT DISTINCT ON (payload -> 'participant' ->> 'userId')
            payload -> 'participant' ->> 'userId' AS user_id, type,
            payload -> 'participant' ->> 'connection' AS connection
        FROM room_events
        WHERE room_id = $1 AND seq <= $2 AND type <> 'room_ended'
        ORDER BY payload -> 'participant' ->> 'userId', seq DESC
    ) last
    WHERE user_id IS NOT NULL AND type <> 'participant_left'
"""
_CONNECTION_AFTER = {
    "participant_online": "online",
    "participant_back": "online",
    "participant_away": "away",
}

_CLOCK = "SELECT clock_timestamp() AS now, epoch FROM deployment"

_MADE_BEFORE = """
    SELECT r.created_at, e.epoch FROM interview_rooms r
    JOIN room_events e ON e.room_id = r.room_id AND e.seq = 1
    WHERE r.room_id = $1 AND r.creation = $2
"""

# One statement: the row, its host and its event are there together, or not at all.
_CREATE = """
    WITH made AS (
        INSERT INTO interview_rooms
            (room_id, room_name, host_id, host_name, creation, created_at, present, last_seq,
             last_at, host_absent_since, empty_since, version)
        VALUES ($1, $2, $3, $4, $5, $6, 1, 1, $6, $6, $6, $10)
        ON CONFLICT (room_id) DO NOTHING
        RETURNING room_id, xmin, version
    ), host AS (
        INSERT INTO interview_participants
            (room_id, user_id, user_name, role, joined_at, joined_seq)
        SELECT room_id, $7, $4, 'host', $6, 1 FROM made
    ), event AS (
        INSERT INTO room_events (room_id, seq, type, at, payload, epoch)
        SELECT room_id, 1, 'room_created', $6, $8, $9 FROM made
    )
    SELECT xmin, version FROM made
"""


@dataclass(frozen=True, slots=True)
class StoredRoom:
    """A room as it is read: its own row."""

    room_id: str
    room_name: str
    host_id: str
    host_name: str
    status: str
    created_at: datetime
    ended_at: datetime | None
    last_seq: int

    @property
    def is_ended(self) -> bool:
        return self.status == "ended"


@dataclass(frozen=True, slots=True)
class Attendance:
    """One person in the view of a room: in it now, or (in an ended room) whoever attended."""

    user_id: str
    user_name: str
    role: str
    identity: str | None
    joined_at: datetime
    left_at: datetime | None
    connection: str


class Rooms(StoredLogs):
    """Reads rooms, and makes them. Raises `Unavailable` where Postgres is away.

    It is also the hub's source of the feeds of kind `room`.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database, ROOM, _LOGS)
        self._rooms = Coalesced(self._read_rooms)
        # One query at a time: a connection of its own is cheaper than borrowing one each time.
        self._line = None if database.is_pooled else database.line()
        self._loads = Coalesced(self._read_loads)

    async def create(self, *, room_id: str, room_name: str, host_name: str, host: Staff) -> Room:
        """Makes a room with its host as first participant, and its first event.

        Where the answer was lost, it is done again once: the room then knows by its `creation`
        whether it is ours, and its version is not known.

        Raises:
            RoomExists: the id is taken, also by an ended room. Of many creators exactly one wins.
            Unavailable: Postgres did not answer within `PATIENCE_SECONDS`; it may exist now.
        """
        creation = uuid.uuid4()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                try:
                    return await self._create(room_id, room_name, host_name, host, creation)
                except Unavailable:
                    return await self._create(room_id, room_name, host_name, host, creation)
        except TimeoutError as error:
            raise Unavailable(retry_after=1) from error

    async def _create(
        self, room_id: str, room_name: str, host_name: str, host: Staff, creation: uuid.UUID
    ) -> Room:
        async with self.database.proven() as connection:
            clock = await connection.fetchrow(_CLOCK)
            room = rules.create(
                room_id=room_id, room_name=room_name, host_id=host.user_id, host_name=host_name,
                now=clock["now"], epoch=clock["epoch"],
            )  # fmt: skip
            made = await connection.fetchrow(
                _CREATE, room_id, room_name, host.number, host_name, creation, room.created_at,
                host.user_id, payload(room.events[0]), clock["epoch"], random.getrandbits(63),
            )  # fmt: skip
            if made is not None:
                room.version = made["xmin"], made["version"]
                return room
            mine = await connection.fetchrow(_MADE_BEFORE, room_id, creation)
        if mine is None:
            raise RoomExists
        return rules.create(
            room_id=room_id, room_name=room_name, host_id=host.user_id, host_name=host_name,
            now=mine["created_at"], epoch=mine["epoch"],
        )  # fmt: skip

    async def room(self, room_id: str) -> StoredRoom | None:
        """The room's own row."""
        return await self._rooms.get(room_id)

    async def _read_rooms(self, room_ids: list[str]) -> dict[str, StoredRoom]:
        rows = await (self._line or self.database).fetch(*_ROW.of(room_ids))
        return {row["room_id"]: _stored(row) for row in rows}

    async def standing(self, room_id: str, user_id: str) -> Standing | None:
        """How somebody stands to the room; None: it never was in it."""
        found: Standing | None = await self.database.fetchval(
            """
            SELECT CASE WHEN removed THEN 'removed' WHEN left_at IS NULL THEN 'present'
                ELSE 'gone' END
            FROM interview_participants WHERE room_id = $1 AND user_id = $2
            """,
            room_id,
            user_id,
        )
        return found

    async def is_participant(self, room_id: str, user_id: str) -> bool:
        """True for whoever is or was in the room, and has not been removed."""
        return await self.standing(room_id, user_id) in ("present", "gone")

    async def load(self, room_id: str) -> tuple[Head, Roster] | None:
        """The feed's state and the event that it reflects, of one moment; None = no such room."""
        return await self._loads.get(room_id)

    async def _read_loads(self, room_ids: list[str]) -> dict[str, tuple[Head, Roster]]:
        rows_of: dict[str, list[Any]] = {}
        for row in await self.database.fetch_told(*_LOAD.of(room_ids), key="room_id"):
            rows_of.setdefault(row["room_id"], []).append(row)
        return {room_id: _loaded(rows) for room_id, rows in rows_of.items()}

    async def connections_at(self, room_id: str, seq: int) -> dict[str, str]:
        """Who was in the room as of `seq`, and with which `connection`; reads the log up to it."""
        rows = await self.database.fetch_told(_CONNECTIONS_AT, room_id, seq, key="user_id")
        return {
            row["user_id"]: _CONNECTION_AFTER.get(row["type"]) or row["connection"] or "none"
            for row in rows
        }


def _loaded(rows: list[Any]) -> tuple[Head, Roster]:
    first = rows[0]
    view = {
        "roomName": first["room_name"],
        "hostName": first["host_name"],
        "status": first["status"],
        "createdAt": timestamp(first["created_at"]),
    }
    people = [_attendance(row) for row in rows if row["user_id"] is not None]
    here = {p.user_id: person_view(p) for p in people}
    head = Head(first["last_seq"], first["last_epoch"] or "", timestamp(first["last_at"]))
    return head, Roster(view, here, erasures=first["erasures"])


def person_view(person: Attendance) -> dict[str, Any]:
    """Somebody who is in the room, as snapshots show it."""
    return Participant(
        person.user_id, person.user_name, person.role, person.identity, person.joined_at, 0,
        connection=person.connection,
    ).view()  # fmt: skip


def _stored(row: Any) -> StoredRoom:
    return StoredRoom(
        row["room_id"], row["room_name"], staff_id(row["host_id"]), row["host_name"],
        row["status"], row["created_at"], row["ended_at"], row["last_seq"],
    )  # fmt: skip


def _attendance(row: Any) -> Attendance:
    return Attendance(
        row["user_id"], row["user_name"], row["role"], row["identity"], row["joined_at"],
        row["left_at"], row["connection"],
    )  # fmt: skip

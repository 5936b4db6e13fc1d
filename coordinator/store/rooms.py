"""Rooms: what is read of them, and how one is made. Everything else is written by `writer.py`."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from coordinator.domain.errors import RoomExists, Unavailable
from coordinator.domain.events import ROOM, Event, FeedKey, timestamp
from coordinator.domain.ids import staff_id
from coordinator.domain.people import Staff
from coordinator.domain.room import Participant, Room, room_view
from coordinator.domain.roster import Roster
from coordinator.store.coalesce import Coalesced
from coordinator.store.database import Database

PATIENCE_SECONDS = 4.5
"""How long the caller of `Rooms.create` waits, both tries together."""

_ROOM_COLUMNS = """
    r.room_id, r.room_name, r.host_id, r.host_name, r.status, r.created_at, r.ended_at,
    r.last_seq, r.last_at, r.present, r.guests, r.online, r.host_absent_since, r.empty_since
"""

# One statement sees one moment: the roster and the seq that it reflects belong together.
# OFFSET 0 keeps the planner from reading all participants once where few rooms hold most of them.
_ROOM_AND_PEOPLE = f"""
    SELECT {_ROOM_COLUMNS}, p.user_id, p.user_name, p.role, p.identity, p.joined_at, p.left_at,
           p.connection
    FROM interview_rooms r
    LEFT JOIN LATERAL (
        SELECT * FROM interview_participants p
        WHERE p.room_id = r.room_id AND (p.left_at IS NULL OR r.status = 'ended')
        OFFSET 0
    ) p ON true
    WHERE r.room_id = ANY($1::varchar[])
    ORDER BY r.room_id, p.joined_seq
"""

_HEADS = """
    SELECT r.room_id, r.last_seq
    FROM unnest($1::varchar[], $2::bigint[]) AS known (room_id, seq)
    JOIN interview_rooms r USING (room_id)
    WHERE r.last_seq <> known.seq
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


@dataclass(frozen=True, slots=True)
class ListedRoom:
    """A row of a list of rooms. `people`: present now; in an ended room, who ever attended."""

    room_id: str
    room_name: str
    host_name: str
    status: str
    people: int
    created_at: datetime


class Rooms:
    """Reads rooms, and makes them. Raises `Unavailable` where Postgres is away.

    It is also the hub's source of the feeds of kind `room`.
    """

    kind = ROOM

    def __init__(self, database: Database) -> None:
        self.database = database
        self._rooms = Coalesced(self._read_rooms)
        self._rooms_with_people = Coalesced(self._read_rooms_with_people)

    async def create(self, *, room_id: str, room_name: str, host_name: str, host: Staff) -> Room:
        """Makes a room with its host as first participant, and its first event.

        Where the answer to COMMIT was lost, it is done again once: the room then knows by its
        `creation` whether it is ours.

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
        async with self.database.transaction() as connection:
            row = await connection.fetchrow(
                """
                INSERT INTO interview_rooms
                    (room_id, room_name, host_id, host_name, creation, created_at, present)
                VALUES ($1, $2, $3, $4, $5, clock_timestamp(), 1)
                ON CONFLICT (room_id) DO NOTHING
                RETURNING created_at
                """,
                room_id, room_name, host.number, host_name, creation,
            )  # fmt: skip
            if row is None:
                row = await connection.fetchrow(
                    "SELECT created_at FROM interview_rooms WHERE room_id = $1 AND creation = $2",
                    room_id,
                    creation,
                )
                if row is None:
                    raise RoomExists
                return _new_room(room_id, room_name, host_name, row["created_at"])[0]
            room, first = _new_room(room_id, room_name, host_name, row["created_at"], host.user_id)
            await connection.execute(
                """
                INSERT INTO interview_participants
                    (room_id, user_id, user_name, role, joined_at, joined_seq)
                VALUES ($1, $2, $3, 'host', $4, 1)
                """,
                room_id, first.user_id, first.user_name, room.created_at,
            )  # fmt: skip
            await connection.execute(
                """
                INSERT INTO room_events (room_id, seq, type, at, payload)
                VALUES ($1, 1, 'room_created', $2, $3)
                """,
                room_id, room.created_at, payload(room.events[0]),
            )  # fmt: skip
            await connection.execute(
                """
                UPDATE interview_rooms
                SET last_seq = 1, last_at = $2, host_absent_since = $2, empty_since = $2
                WHERE room_id = $1
                """,
                room_id, room.created_at,
            )  # fmt: skip
        return room

    async def room(self, room_id: str) -> StoredRoom | None:
        """The room's own row."""
        return await self._rooms.get(room_id)

    async def _read_rooms(self, room_ids: list[str]) -> dict[str, StoredRoom]:
        rows = await self.database.fetch(
            f"SELECT {_ROOM_COLUMNS} FROM interview_rooms r WHERE room_id = ANY($1::varchar[])",
            room_ids,
        )
        return {row["room_id"]: _stored(row) for row in rows}

    async def room_with_people(self, room_id: str) -> tuple[StoredRoom, list[Attendance]] | None:
        """The room and who is in it, in order of joining; of an ended room, who attended."""
        return await self._rooms_with_people.get(room_id)

    async def _read_rooms_with_people(
        self, room_ids: list[str]
    ) -> dict[str, tuple[StoredRoom, list[Attendance]]]:
        found: dict[str, tuple[StoredRoom, list[Attendance]]] = {}
        for row in await self.database.fetch(_ROOM_AND_PEOPLE, room_ids):
            room_id = row["room_id"]
            if room_id not in found:
                found[room_id] = (_stored(row), [])
            if row["user_id"] is not None:
                found[room_id][1].append(_attendance(row))
        return found

    async def is_participant(self, room_id: str, user_id: str) -> bool:
        """True for whoever is or was in the room, and has not been removed."""
        return bool(
            await self.database.fetchval(
                """
                SELECT true FROM interview_participants
                WHERE room_id = $1 AND user_id = $2 AND NOT removed
                """,
                room_id,
                user_id,
            )
        )

    async def listed(
        self, *, host: int | None, status: str | None, part: str | None, limit: int, offset: int
    ) -> tuple[int, list[ListedRoom]]:
        """How many rooms there are, and a page of them, newest first.

        Args:
            host: only rooms of this host; None = of all.
            part: only rooms whose id or name holds it, in capital or small letters; None = all.
        """
        wanted = {
            "host_id = {}": host,
            "status = {}": status,
            "strpos(lower(room_id || chr(10) || room_name), lower({})) > 0": part,
        }
        # Only what is asked for stands in the statement, so that its index is used.
        asked = {rule: value for rule, value in wanted.items() if value is not None}
        conditions = [rule.format(f"${place}") for place, rule in enumerate(asked, start=1)]
        where = " AND ".join(conditions) or "true"
        total = await self.database.fetchval(
            f"SELECT count(*) FROM interview_rooms WHERE {where}", *asked.values()
        )
        rows = await self.database.fetch(
            f"""
            SELECT room_id, room_name, host_name, status, created_at,
                CASE WHEN status = 'active' THEN present ELSE coalesce(attended,
                    (SELECT count(*) FROM interview_participants p WHERE p.room_id = r.room_id))
                END AS people
            FROM interview_rooms r WHERE {where}
            ORDER BY created_at DESC, id DESC
            LIMIT ${len(asked) + 1} OFFSET ${len(asked) + 2}
            """,
            *asked.values(),
            limit,
            offset,
        )
        return total, [
            ListedRoom(
                r["room_id"], r["room_name"], r["host_name"], r["status"], r["people"],
                r["created_at"],
            )
            for r in rows
        ]  # fmt: skip

    async def load(self, room_id: str) -> tuple[int, Roster] | None:
        """The feed's state and the seq that it reflects, of one moment; None = no such room."""
        found = await self.room_with_people(room_id)
        if found is None:
            return None
        room, people = found
        view = {
            "roomName": room.room_name,
            "hostName": room.host_name,
            "status": room.status,
            "createdAt": timestamp(room.created_at),
        }
        here = {p.user_id: person_view(p) for p in people if p.left_at is None}
        return room.last_seq, Roster(view, here)

    async def events_after(self, room_id: str, seq: int, limit: int) -> list[Event]:
        """The log after `seq`, oldest first, at most `limit` events."""
        rows = await self.database.fetch(
            """
            SELECT seq, type, at, payload FROM room_events
            WHERE room_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
            """,
            room_id, seq, limit,
        )  # fmt: skip
        feed = FeedKey(ROOM, room_id)
        return [
            Event(feed, r["seq"], r["type"], timestamp(r["at"]), msgspec.json.decode(r["payload"]))
            for r in rows
        ]

    async def head(self, room_id: str) -> int | None:
        """The log's last seq; None = no such room."""
        seq: int | None = await self.database.fetchval(
            "SELECT last_seq FROM interview_rooms WHERE room_id = $1", room_id
        )
        return seq

    async def heads(self, known: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """Of the rooms given with the seq that a node knows: those whose last seq is another."""
        ids, seqs = [room_id for room_id, _ in known], [seq for _, seq in known]
        rows = await self.database.fetch(_HEADS, ids, seqs)
        return [(row["room_id"], row["last_seq"]) for row in rows]

    async def purge_events(
        self, *, older_than_days: float, rooms: int, after: datetime | None
    ) -> tuple[int, datetime]:
        """Deletes the logs of at most `rooms` rooms that ended that long ago.

        Args:
            after: rooms that ended before it are not looked at: they have been done.

        Returns:
            how many it did, and the time before which rooms must have ended to be looked at.
        """
        row = await self.database.fetchrow(
            """
            WITH old AS (
                SELECT room_id FROM interview_rooms r
                WHERE status = 'ended' AND ended_at < clock_timestamp() - make_interval(secs => $1)
                    AND ended_at >= coalesce($3, '-infinity'::timestamptz)
                    AND EXISTS (SELECT 1 FROM room_events e WHERE e.room_id = r.room_id)
                LIMIT $2
            ), gone AS (
                DELETE FROM room_events e USING old WHERE e.room_id = old.room_id
            )
            SELECT count(*) AS done, clock_timestamp() - make_interval(secs => $1) AS horizon
            FROM old
            """,
            older_than_days * 86400, rooms, after,
        )  # fmt: skip
        return row["done"], row["horizon"]


def payload(event: Event) -> str:
    """An event's members as the log stores them."""
    return msgspec.json.encode(event.data).decode()


def person_view(person: Attendance) -> dict[str, Any]:
    """Somebody who is in the room, as snapshots show it."""
    return Participant(
        person.user_id, person.user_name, person.role, person.identity, person.joined_at, 0,
        connection=person.connection,
    ).view()  # fmt: skip


def _new_room(
    room_id: str, room_name: str, host_name: str, created_at: datetime, host_id: str = ""
) -> tuple[Room, Participant]:
    room = Room(
        room_id=room_id, room_name=room_name, host_name=host_name, status="active",
        created_at=created_at, ended_at=None, last_seq=0, last_at=created_at, present=1, guests=0,
        online=0, host_absent_since=created_at, empty_since=created_at, now=created_at,
    )  # fmt: skip
    host = Participant(host_id, host_name, "host", None, created_at, 1)
    if host_id:
        room.record("room_created", {"room": room_view(room), "participant": host.view()})
    return room, host


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

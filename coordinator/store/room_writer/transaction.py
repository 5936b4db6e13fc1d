"""One transaction of the writer: the rooms that it changes, and the SQL that reads and writes them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from coordinator.domain.errors import CoordinatorError, LeaseLost, RoomNotFound
from coordinator.domain.events import Event
from coordinator.domain.room import Participant, Policy, Room
from coordinator.store.room_writer.commands import Command, Join
from coordinator.store.room_writer.room_cache import RoomCache
from coordinator.store.rooms import payload

_LOCK = """
    SELECT room_id, room_name, host_name, status, created_at, ended_at, last_seq, last_at, present,
           guests, online, host_absent_since, empty_since, xmin AS version,
           clock_timestamp() AS now
    FROM interview_rooms WHERE room_id = ANY($1::varchar[])
    ORDER BY room_id FOR NO KEY UPDATE SKIP LOCKED
"""

_EXISTING = "SELECT room_id FROM interview_rooms WHERE room_id = ANY($1::varchar[])"

_ALIVE = "SELECT boot FROM nodes WHERE boot = ANY($1::varchar[]) FOR KEY SHARE"

_PEOPLE = """
    SELECT p.room_id, p.user_id, p.user_name, p.role, p.identity, p.joined_at, p.joined_seq,
           p.left_at, p.leave_at, p.connection, p.proven, p.removed,
           ARRAY(SELECT c.id FROM connections c
                 WHERE c.room_id = p.room_id AND c.user_id = p.user_id
                 ORDER BY c.connected_at, c.id) AS sessions
    FROM unnest($1::varchar[], $2::varchar[]) AS named (room_id, user_id)
    JOIN interview_participants p USING (room_id, user_id)
"""

# Rooms that are not written (changed by somebody else, locked, `boot` dead, a clock that is off)
# are not in the answer, and nothing of them is.
_WRITE = """
    WITH alive AS MATERIALIZED (
        SELECT FROM nodes WHERE boot = $35 FOR KEY SHARE
    ), locked AS MATERIALIZED (
        SELECT r.room_id
        FROM unnest($1::varchar[], $34::xid[]) AS known (room_id, version)
        JOIN interview_rooms r ON r.room_id = known.room_id AND r.xmin = known.version
        WHERE ($35::varchar IS NULL OR EXISTS (SELECT FROM alive))
          AND ($36::timestamptz IS NULL
               OR clock_timestamp() - $36 BETWEEN interval '0' AND interval '50 ms')
        ORDER BY r.room_id FOR NO KEY UPDATE OF r SKIP LOCKED
    ), rooms AS (
        UPDATE interview_rooms r
        SET status = n.status, ended_at = n.ended_at, last_seq = n.last_seq, last_at = n.last_at,
            present = n.present, guests = n.guests, online = n.online,
            host_absent_since = n.host_absent_since, empty_since = n.empty_since
        FROM locked l, unnest($1::varchar[], $2::varchar[], $3::timestamptz[], $4::bigint[],
                    $5::timestamptz[], $6::int[], $7::int[], $8::int[], $9::timestamptz[],
                    $10::timestamptz[])
            AS n (room_id, status, ended_at, last_seq, last_at, present, guests, online,
                  host_absent_since, empty_since)
        WHERE r.room_id = l.room_id AND n.room_id = l.room_id
        RETURNING r.room_id, r.xmin AS version
    ), people AS (
        INSERT INTO interview_participants
            (room_id, user_id, user_name, role, identity, joined_at, joined_seq, left_at, leave_at,
             connection, proven, removed)
        SELECT * FROM unnest($11::varchar[], $12::varchar[], $13::varchar[], $14::varchar[],
                    $15::varchar[], $16::timestamptz[], $17::bigint[], $18::timestamptz[],
                    $19::timestamptz[], $20::varchar[], $21::bool[], $22::bool[]) AS n (room_id)
        WHERE n.room_id IN (SELECT room_id FROM locked)
        ON CONFLICT (room_id, user_id) DO UPDATE
        SET user_name = excluded.user_name, identity = excluded.identity,
            joined_at = excluded.joined_at, joined_seq = excluded.joined_seq,
            left_at = excluded.left_at, leave_at = excluded.leave_at,
            connection = excluded.connection, proven = excluded.proven, removed = excluded.removed
    ), opened AS (
        INSERT INTO connections (id, room_id, user_id, boot, connected_at)
        SELECT * FROM unnest($23::varchar[], $24::varchar[], $25::varchar[], $26::varchar[],
                    $27::timestamptz[]) AS n (id, room_id)
        WHERE n.room_id IN (SELECT room_id FROM locked)
    ), closed AS (
        DELETE FROM connections
        WHERE id = ANY($28::varchar[]) AND room_id IN (SELECT room_id FROM locked)
    ), events AS (
        INSERT INTO room_events (room_id, seq, type, at, payload)
        SELECT * FROM unnest($29::varchar[], $30::bigint[], $31::varchar[], $32::timestamptz[],
                             $33::json[]) AS n (room_id)
        WHERE n.room_id IN (SELECT room_id FROM locked)
    )
    SELECT room_id, version, clock_timestamp() AS now FROM rooms
"""

# One room at a time (sent together): the planner cannot take its fancy to reading whole tables.
_EMPTY_ENDED_ROOM = (
    """
    UPDATE interview_participants SET left_at = $2, leave_at = NULL, connection = 'none'
    WHERE room_id = $1 AND left_at IS NULL
    """,
    "DELETE FROM connections WHERE room_id = $1 AND connected_at <= $2",
)


class PendingCommand:
    """A command that waits for its answer."""

    __slots__ = ("answer", "command", "deadline", "is_uncertain", "needs_lock")

    def __init__(self, command: Command[Any], answer: asyncio.Future[Any], deadline: float) -> None:
        self.command = command
        self.answer = answer
        self.deadline = deadline
        self.is_uncertain = False
        """An earlier COMMIT of it was never answered: it may have been carried out."""
        self.needs_lock = False
        """It could not be decided from memory."""

    @property
    def is_given_up(self) -> bool:
        """Its caller has been told that the service is unavailable, or is gone."""
        return self.answer.done()

    @property
    def is_to_undo(self) -> bool:
        """A new guest was told that it did not join: where it did, that is made true.

        Only a new one's: nobody else knows its id. A return that was refused may have been asked
        for again meanwhile, and answered.
        """
        answer = self.answer
        return (
            isinstance(self.command, Join)
            and not answer.cancelled()
            and bool(answer.done() and answer.exception())
        )


class Transaction:
    """The orders of one transaction, and what has become of them.

    Attributes:
        rooms: those to decide about, by id.
        busy: orders whose rooms somebody else holds.
        answers: each decided order with its answer or its refusal.
        written: the rooms that were written.
        clock: Postgres's when they were, and this process's when it was told so; or None.
        events: theirs, in order.
        replaced: session ids that newer connections pushed out.
    """

    def __init__(self, connection: Any, policy: Policy, orders: list[PendingCommand]) -> None:
        self.connection = connection
        self.policy = policy
        self.orders = orders
        self.rooms: dict[str, Room] = {}
        self.busy: list[PendingCommand] = []
        self.answers: list[tuple[PendingCommand, Any, BaseException | None]] = []
        self.written: list[Room] = []
        self.clock: tuple[datetime, float] | None = None
        self.events: list[Event] = []
        self.replaced: list[str] = []
        self._unknown: set[str] = set()
        self._alive: set[str] = set()
        self._remembered_at: datetime | None = None

    def recall(self, memory: RoomCache) -> None:
        """Takes the rooms from memory, which covers the orders."""
        self._remembered_at = memory.now()
        for order in self.orders:
            room_id = order.command.room_id
            if room_id not in self.rooms:
                room = self.rooms[room_id] = memory.take(room_id)
                room.now = max(self._remembered_at, room.last_at)
        self._alive = self._boots()  # `write` asks

    async def lock_and_load(self) -> None:
        wanted = {order.command.room_id for order in self.orders}
        for row in await self.connection.fetch(_LOCK, list(wanted)):
            self.rooms[row["room_id"]] = _room(row)
        if absent := wanted - self.rooms.keys():
            existing = await self.connection.fetch(_EXISTING, list(absent))
            self._unknown = absent - {row["room_id"] for row in existing}
        if boots := self._boots():
            rows = await self.connection.fetch(_ALIVE, list(boots))
            self._alive = {row["boot"] for row in rows}
        await self._load_people()

    def _boots(self) -> set[str]:
        return {order.command.boot for order in self.orders if order.command.boot is not None}

    async def _load_people(self) -> None:
        named = {
            (order.command.room_id, order.command.user_id)
            for order in self.orders
            if order.command.user_id is not None
            and order.command.room_id in self.rooms
            and (order.is_uncertain or not order.command.is_fresh)
        }
        if not named:
            return
        room_ids, user_ids = zip(*named, strict=True)
        for row in await self.connection.fetch(_PEOPLE, room_ids, user_ids):
            self.rooms[row["room_id"]].participants[row["user_id"]] = _participant(row)

    def decide(self) -> None:
        for order in self.orders:
            command = order.command
            room = self.rooms.get(command.room_id)
            if room is None and command.room_id not in self._unknown:
                self.busy.append(order)
                continue
            try:
                if room is None:
                    raise RoomNotFound
                if command.boot is not None and command.boot not in self._alive:
                    raise LeaseLost
                self.answers.append((order, command.decide(room, self.policy), None))
            except CoordinatorError as refusal:
                self.answers.append((order, None, refusal))

    async def write(self) -> None:
        changed = [room for room in self.rooms.values() if room.is_changed]
        if not changed:
            return
        is_remembered = self._remembered_at is not None
        boot = next(iter(self._alive), None) if is_remembered else None
        versions = [room.version for room in changed]
        rows = await self.connection.fetch(
            _WRITE, *_columns(changed), versions, boot, self._remembered_at
        )
        if rows:
            self.clock = rows[0]["now"], time.monotonic()
        for row in rows:
            room = self.rooms[row["room_id"]]
            room.version = row["version"]
            self.written.append(room)
            self.events += room.events
            self.replaced += room.replaced
        if is_remembered:
            return
        if len(rows) < len(changed):
            raise RuntimeError("a room was not written under its lock")
        ended = [room for room in changed if room.is_ended]
        for statement in _EMPTY_ENDED_ROOM if ended else ():
            await self.connection.executemany(
                statement, [(room.room_id, room.ended_at) for room in ended]
            )

    def drop_unwritten(self) -> tuple[list[PendingCommand], list[Room]]:
        """Takes back what was decided of rooms that were not written.

        Returns:
            their orders, and those rooms that nothing has changed: nobody has compared their
            version, so the answer has to be found under lock, but they are still as remembered.
        """
        written = {room.room_id for room in self.written}
        left = [order for order in self.orders if order.command.room_id not in written]
        for order in left:
            order.needs_lock = True
        self.answers = [each for each in self.answers if each[0].command.room_id in written]
        return left, [room for room in self.rooms.values() if not room.is_changed]


def _room(row: Any) -> Room:
    return Room(
        room_id=row["room_id"], room_name=row["room_name"], host_name=row["host_name"],
        status=row["status"], created_at=row["created_at"], ended_at=row["ended_at"],
        last_seq=row["last_seq"], last_at=row["last_at"], present=row["present"],
        guests=row["guests"], online=row["online"], host_absent_since=row["host_absent_since"],
        empty_since=row["empty_since"], now=max(row["now"], row["last_at"]),
        version=row["version"],
    )  # fmt: skip


def _participant(row: Any) -> Participant:
    return Participant(
        user_id=row["user_id"], user_name=row["user_name"], role=row["role"],
        identity=row["identity"], joined_at=row["joined_at"], joined_seq=row["joined_seq"],
        left_at=row["left_at"], leave_at=row["leave_at"], connection=row["connection"],
        proven=row["proven"], removed=row["removed"], connections=list(row["sessions"]),
    )  # fmt: skip


def _columns(rooms: list[Room]) -> list[Sequence[Any]]:
    """The parameters of `_WRITE`: one list per column."""
    room_rows = [
        (r.room_id, r.status, r.ended_at, r.last_seq, r.last_at, r.present, r.guests, r.online,
         r.host_absent_since, r.empty_since)
        for r in rooms
    ]  # fmt: skip
    people_rows = [
        (r.room_id, p.user_id, p.user_name, p.role, p.identity, p.joined_at, p.joined_seq,
         p.left_at, p.leave_at, p.connection, p.proven, p.removed)
        for r in rooms
        for p in (r.participants[user_id] for user_id in r.touched)
    ]  # fmt: skip
    opened_rows = [
        (session_id, r.room_id, user_id, boot, r.now)
        for r in rooms
        for session_id, user_id, boot in r.opened
        if session_id not in r.closed
    ]
    event_rows = [(e.feed.id, e.seq, e.type, r.now, payload(e)) for r in rooms for e in r.events]
    return [
        *_transposed(room_rows, 10),
        *_transposed(people_rows, 12),
        *_transposed(opened_rows, 5),
        [session_id for r in rooms for session_id in r.closed],
        *_transposed(event_rows, 5),
    ]


def _transposed(rows: list[tuple[Any, ...]], width: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width

"""The SQL of the writer, made from tables of columns.

`ROOMS`, `PEOPLE`, `OPENED`, `EVENTS` say which columns a transaction writes, each with its type, in
the order in which its rows are made; a statement numbers its parameters by them, so a column is
added in one place, and in the row that is made of it. A statement has the parts that it has rows
for, and where that is one row of each (a guest joins, somebody connects) they are plain values:

    unnest($1::varchar[], $2::bigint[]) AS n (room_id, seq)     many
    (SELECT $1::varchar AS room_id, $2::bigint AS seq) AS n     one of each

A locked write is of rooms that the transaction has locked. An optimistic one is complete in itself:
it locks and writes those rooms whose row is still the version that the node remembers, skips the
others (changed or held by somebody else). It writes nothing at all where the node has been declared
dead, where the node's estimate of Postgres's clock is off, or (fenced) where the server is not in
the epoch that the node knows.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

import msgspec

from coordinator.domain.events import Event
from coordinator.domain.room import Participant, Room
from coordinator.store.epochs import FINGERPRINT

Columns = dict[str, str]
"""Names of columns, each with its SQL type."""

Row = tuple[Any, ...]

ROOMS: Columns = {
    "room_id": "varchar",
    "status": "varchar",
    "ended_at": "timestamptz",
    "last_seq": "bigint",
    "last_at": "timestamptz",
    "present": "int",
    "guests": "int",
    "online": "int",
    "host_absent_since": "timestamptz",
    "empty_since": "timestamptz",
    "version": "bigint",
}
KNOWN: Columns = {"known_xmin": "xid", "known_version": "bigint"}
"""Beside `ROOMS` in an optimistic write: the version of the row that was decided on."""
PEOPLE: Columns = {
    "room_id": "varchar",
    "user_id": "varchar",
    "user_name": "varchar",
    "role": "varchar",
    "identity": "varchar",
    "joined_at": "timestamptz",
    "joined_seq": "bigint",
    "left_at": "timestamptz",
    "leave_at": "timestamptz",
    "connection": "varchar",
    "proven": "bool",
    "removed": "bool",
}
PERSON_IS = ("room_id", "user_id", "role")
"""What never changes of a person in a room."""
OPENED: Columns = {
    "id": "varchar",
    "room_id": "varchar",
    "user_id": "varchar",
    "boot": "varchar",
    "connected_at": "timestamptz",
}
SESSION: Columns = {"id": "varchar"}
"""Whose row is deleted, or moves between `connections` and `away_connections`."""
MOVED = (*OPENED, "number")
"""What a row keeps that moves."""
EVENTS: Columns = {
    "room_id": "varchar",
    "seq": "bigint",
    "type": "varchar",
    "at": "timestamptz",
    "payload": "json",
    "epoch": "varchar",
}


class Numbered:
    """Hands out the parameters of one statement in order."""

    def __init__(self, *, is_lone: bool) -> None:
        self._last = 0
        self._is_lone = is_lone

    def one(self, kind: str) -> str:
        self._last += 1
        return f"${self._last}::{kind}"

    def rows(self, columns: Columns) -> str:
        """Rows with these columns, as `n`."""
        if self._is_lone:
            row = ", ".join(f"{self.one(kind)} AS {name}" for name, kind in columns.items())
            return f"(SELECT {row}) AS n"
        lists = ", ".join(self.one(f"{kind}[]") for kind in columns.values())
        return f"unnest({lists}) AS n ({', '.join(columns)})"


def _names(columns: Iterable[str], of: str = "") -> str:
    return ", ".join(of + name for name in columns)


def _assigned(columns: Iterable[str], source: str) -> str:
    return ", ".join(f"{name} = {source}.{name}" for name in columns)


class StatementShape(NamedTuple):
    """Which write statement: what it is for, and which of its parts have rows.

    Attributes:
        is_lone: one room, and of each part one row.
        has_node: the write depends on the node being alive.
    """

    is_optimistic: bool
    is_fenced: bool
    is_lone: bool
    has_people: bool
    has_opened: bool
    has_closed: bool
    has_marked: bool
    has_unmarked: bool
    has_closed_marked: bool
    has_events: bool
    has_node: bool


@cache
def write_statement(shape: StatementShape) -> str:
    """The SQL that takes `parameters` of this shape; one of a handful, prepared once each."""
    number = Numbered(is_lone=shape.is_lone)
    parts = [f"given AS (SELECT * FROM {number.rows(_given(shape))})"]
    people = number.rows(PEOPLE) if shape.has_people else ""
    opened = number.rows(OPENED) if shape.has_opened else ""
    closed = number.rows(SESSION) if shape.has_closed else ""
    marked = number.rows(SESSION) if shape.has_marked else ""
    unmarked = number.rows(SESSION) if shape.has_unmarked else ""
    closed_marked = number.rows(SESSION) if shape.has_closed_marked else ""
    events = number.rows(EVENTS) if shape.has_events else ""
    if shape.is_optimistic:
        parts += _locked(number, shape)
    parts += [_update(shape)]
    mine = "room_id IN (SELECT room_id FROM locked)" if shape.is_optimistic else "true"
    if people:
        told = [name for name in PEOPLE if name not in PERSON_IS]
        parts += [
            f"""people AS (
        INSERT INTO interview_participants ({_names(PEOPLE)})
        SELECT {_names(PEOPLE)} FROM {people} WHERE {mine}
        ON CONFLICT (room_id, user_id) DO UPDATE SET {_assigned(told, "excluded")})"""
        ]
    if opened:
        parts += [_insert("connections", OPENED, opened, mine)]
    if closed:
        parts += [f"closed AS ({_delete('connections', closed, mine)})"]
    if marked:
        parts += _move("connections", "away_connections", marked, mine)
    if unmarked:
        parts += _move("away_connections", "connections", unmarked, mine)
    if closed_marked:
        parts += [f"closed_marked AS ({_delete('away_connections', closed_marked, mine)})"]
    if events:
        parts += [_insert("room_events", EVENTS, events, mine)]
    written = ",\n    ".join(parts)
    return f"""
    WITH {written}
    SELECT room_id, xmin, version, clock_timestamp() AS now FROM rooms
    """


def _given(shape: StatementShape) -> Columns:
    return {**ROOMS, **KNOWN} if shape.is_optimistic else ROOMS


def _of(table: str, condition: str) -> str:
    return condition if condition == "true" else f"{table}.{condition}"


def _insert(table: str, columns: Columns, rows: str, mine: str) -> str:
    return f"""into_{table} AS (
        INSERT INTO {table} ({_names(columns)})
        SELECT {_names(columns)} FROM {rows} WHERE {mine})"""


def _delete(table: str, sessions: str, mine: str) -> str:
    return f"DELETE FROM {table} c USING {sessions} WHERE c.id = n.id AND {_of('c', mine)}"


def _move(source: str, target: str, sessions: str, mine: str) -> list[str]:
    return [
        f"from_{source} AS ({_delete(source, sessions, mine)} RETURNING {_names(MOVED, 'c.')})",
        f"""moved_to_{target} AS (
        INSERT INTO {target} ({_names(MOVED)}) SELECT {_names(MOVED)} FROM from_{source})""",
    ]


def _update(shape: StatementShape) -> str:
    kept = [name for name in ROOMS if name != "room_id"]
    source = "locked l JOIN given n USING (room_id)" if shape.is_optimistic else "given n"
    key = "l" if shape.is_optimistic else "n"
    return f"""rooms AS (
        UPDATE interview_rooms r SET {_assigned(kept, "n")}
        FROM {source} WHERE r.room_id = {key}.room_id
        RETURNING r.room_id, r.xmin, r.version)"""


def _locked(number: Numbered, shape: StatementShape) -> list[str]:
    """The rooms that are as they were remembered, locked; none where the node may not write."""
    parts, is_alive, fence = [], "", ""
    if shape.has_node:
        parts = [
            f"""alive AS MATERIALIZED (
        SELECT FROM nodes WHERE boot = {number.one("varchar")} FOR KEY SHARE)"""
        ]
        is_alive = "AND EXISTS (SELECT FROM alive)"
    decided_at, lag = number.one("timestamptz"), number.one("interval")
    if shape.is_fenced:
        fence = f"""AND EXISTS (SELECT FROM deployment
            WHERE epoch = {number.one("varchar")} AND fingerprint = {FINGERPRINT})"""
    return [
        *parts,
        f"""locked AS MATERIALIZED (
        SELECT r.room_id FROM given n JOIN interview_rooms r
            ON r.room_id = n.room_id AND r.xmin = n.known_xmin AND r.version = n.known_version
        WHERE clock_timestamp() - {decided_at} BETWEEN interval '0' AND {lag} {is_alive} {fence}
        ORDER BY r.room_id FOR NO KEY UPDATE OF r SKIP LOCKED)""",
    ]


_LOADED = ("room_name", "host_name", "created_at")

LOCK = f"""
    SELECT {_names((*ROOMS, *_LOADED))}, xmin, clock_timestamp() AS now,
           (SELECT epoch FROM deployment) AS epoch
    FROM interview_rooms WHERE room_id = ANY($1::varchar[])
    ORDER BY room_id FOR NO KEY UPDATE SKIP LOCKED
"""
LOCK_POOLED = LOCK.replace(
    "(SELECT epoch FROM deployment)",
    f"(SELECT epoch FROM deployment WHERE fingerprint = {FINGERPRINT})",
)

EXISTING = "SELECT room_id FROM interview_rooms WHERE room_id = ANY($1::varchar[])"

ALIVE = "SELECT boot FROM nodes WHERE boot = ANY($1::varchar[]) FOR KEY SHARE"

_IS_OF_PERSON = "room_id = p.room_id AND user_id = p.user_id"
_SESSIONS = f"""
           ARRAY(SELECT id FROM (
                     SELECT id, number, connected_at FROM connections WHERE {_IS_OF_PERSON}
                     UNION ALL
                     SELECT id, number, connected_at FROM away_connections WHERE {_IS_OF_PERSON}
                 ) c ORDER BY number NULLS FIRST, connected_at, id) AS sessions,
           ARRAY(SELECT id FROM away_connections WHERE {_IS_OF_PERSON}) AS marked"""

LOAD_PEOPLE = f"""
    SELECT {_names(PEOPLE, "p.")}, {_SESSIONS}
    FROM unnest($1::varchar[], $2::varchar[]) AS named (room_id, user_id)
    JOIN interview_participants p USING (room_id, user_id)
"""

# For an optimistic write: rooms, each with the people named of it (user_id null: nobody), as of one
# moment and without a lock.
READ = f"""
    SELECT {_names((*ROOMS, *_LOADED), "r.")}, r.xmin, clock_timestamp() AS now,
           {_names((name for name in PEOPLE if name != "room_id"), "p.")}, {_SESSIONS}
    FROM unnest($1::varchar[], $2::varchar[]) AS named (room_id, user_id)
    JOIN interview_rooms r ON r.room_id = named.room_id
    LEFT JOIN interview_participants p
        ON p.room_id = named.room_id AND p.user_id = named.user_id
"""

# One room for each execution (all sent together): the planner then uses the room's index.
EMPTY_ENDED_ROOM = """
    WITH closed AS (DELETE FROM connections WHERE room_id = $1 AND connected_at <= $2),
    closed_marked AS (DELETE FROM away_connections WHERE room_id = $1 AND connected_at <= $2)
    UPDATE interview_participants SET left_at = $2, leave_at = NULL, connection = 'none'
    WHERE room_id = $1 AND left_at IS NULL
"""


class Condition(msgspec.Struct, frozen=True):
    """What an optimistic write depends on, beside the rooms' versions.

    Attributes:
        node_epoch: the run of this node that must be alive, or None.
        decided_at: Postgres's clock, as the node thought; at most `lag` behind it.
        epoch: the database's, where the statement has to prove it; else None.
    """

    node_epoch: str | None
    decided_at: datetime
    lag: timedelta
    epoch: str | None

    def values(self) -> list[Any]:
        """In the order of the statement's last parameters."""
        every = (self.node_epoch, self.decided_at, self.lag, self.epoch)
        return [value for value in every if value is not None]


def write(rooms: list[Room], condition: Condition | None) -> tuple[str, list[Any]]:
    """The statement that writes what was decided of these rooms, and its parameters.

    Args:
        condition: of an optimistic write; None: the rooms are locked.
    """
    room_rows: list[Row] = []
    people_rows: list[Row] = []
    opened_rows: list[Row] = []
    session_rows: tuple[list[Row], ...] = [], [], [], []
    event_rows: list[Row] = []
    for r in rooms:
        known = r.version if condition is not None else ()
        room_rows.append(
            (r.room_id, r.status, r.ended_at, r.last_seq, r.last_at, r.present, r.guests, r.online,
             r.host_absent_since, r.empty_since, random.getrandbits(63), *known)
        )  # fmt: skip
        people_rows += [_person_row(r.room_id, r.participants[user_id]) for user_id in r.touched]
        opened_rows += [
            (session_id, r.room_id, user_id, node_epoch, r.now)
            for session_id, user_id, node_epoch in r.opened
            if session_id not in r.closed
        ]
        for rows, changed in zip(
            session_rows, (r.closed, r.marked, r.unmarked, r.closed_marked), strict=True
        ):
            rows += [(session_id,) for session_id in changed]
        event_rows += [(r.room_id, e.seq, e.type, r.now, payload(e), e.epoch) for e in r.events]
    every_part = (room_rows, people_rows, opened_rows, *session_rows, event_rows)
    parts = [rows for rows in every_part if rows]
    is_lone = all(len(rows) == 1 for rows in parts)
    shape = StatementShape(
        is_optimistic=condition is not None,
        is_fenced=condition is not None and condition.epoch is not None,
        is_lone=is_lone,
        has_people=bool(people_rows),
        has_opened=bool(opened_rows),
        has_closed=bool(session_rows[0]),
        has_marked=bool(session_rows[1]),
        has_unmarked=bool(session_rows[2]),
        has_closed_marked=bool(session_rows[3]),
        has_events=bool(event_rows),
        has_node=condition is not None and condition.node_epoch is not None,
    )
    values = spread(parts, is_lone=is_lone)
    return write_statement(shape), values + (condition.values() if condition is not None else [])


def spread(parts: Iterable[Sequence[Row]], *, is_lone: bool) -> list[Any]:
    """The parameters of these rows, as `Numbered.rows` has numbered them."""
    if is_lone:
        return [value for (row,) in parts for value in row]
    return [column for rows in parts for column in zip(*rows, strict=True)]


def _person_row(room_id: str, p: Participant) -> Row:
    return (
        room_id, p.user_id, p.user_name, p.role, p.identity, p.joined_at, p.joined_seq, p.left_at,
        p.leave_at, p.connection, p.proven, p.removed,
    )  # fmt: skip


def room_of(row: Any, *, epoch: str) -> Room:
    """A room as `LOCK` or `READ` found it."""
    return Room(
        room_id=row["room_id"], room_name=row["room_name"], host_name=row["host_name"],
        status=row["status"], created_at=row["created_at"], ended_at=row["ended_at"],
        last_seq=row["last_seq"], last_at=row["last_at"], present=row["present"],
        guests=row["guests"], online=row["online"], host_absent_since=row["host_absent_since"],
        empty_since=row["empty_since"], now=max(row["now"], row["last_at"]), epoch=epoch,
        version=(row["xmin"], row["version"]),
    )  # fmt: skip


def participant_of(row: Any) -> Participant:
    """A person as `LOAD_PEOPLE` or `READ` found it."""
    return Participant(
        user_id=row["user_id"], user_name=row["user_name"], role=row["role"],
        identity=row["identity"], joined_at=row["joined_at"], joined_seq=row["joined_seq"],
        left_at=row["left_at"], leave_at=row["leave_at"], connection=row["connection"],
        proven=row["proven"], removed=row["removed"], connections=list(row["sessions"]),
        marked=set(row["marked"]),
    )  # fmt: skip


def payload(event: Event) -> str:
    """An event's members as the log stores them."""
    return msgspec.json.encode(event.data).decode()

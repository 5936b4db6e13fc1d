"""The SQL of the writer, made from tables of columns.

`ROOMS`, `PEOPLE`, `OPENED`, `EVENTS` say which columns a transaction writes, each with its type, in
the order in which `parameters` fills them; the statements number their parameters by them:

    unnest($1::varchar[], $2::bigint[]) AS n (room_id, seq)

so a column is added in one place, and in the row that is made of it.

`LOCKED` writes rooms that the transaction has locked. `OPTIMISTIC` is complete in itself: it locks
and writes those rooms whose row is still the version that the node remembers, skips the others
(changed or held by somebody else), and writes nothing at all where the node is declared dead, its
idea of the time is off, or (`OPTIMISTIC_POOLED`) the server is not in the epoch that it knows.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from coordinator.domain.events import Event
from coordinator.domain.room import Participant, Room
from coordinator.store.epochs import FINGERPRINT

Columns = dict[str, str]
"""Names of columns, each with its SQL type."""

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
"""Beside them in `OPTIMISTIC`: the row that the decision was made from."""
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
CLOSED: Columns = {"id": "varchar"}
EVENTS: Columns = {
    "room_id": "varchar",
    "seq": "bigint",
    "type": "varchar",
    "at": "timestamptz",
    "payload": "json",
    "epoch": "varchar",
}


class _Numbered:
    """Hands out the parameters of one statement in order."""

    def __init__(self) -> None:
        self._last = 0

    def one(self, kind: str) -> str:
        self._last += 1
        return f"${self._last}::{kind}"

    def rows(self, columns: Columns) -> str:
        """Rows with these columns, as `n`."""
        lists = ", ".join(self.one(f"{kind}[]") for kind in columns.values())
        return f"unnest({lists}) AS n ({', '.join(columns)})"


def _names(columns: Iterable[str], of: str = "") -> str:
    return ", ".join(of + name for name in columns)


def _assigned(columns: Iterable[str], source: str) -> str:
    return ", ".join(f"{name} = {source}.{name}" for name in columns)


def _statement(*, is_optimistic: bool, is_fenced: bool = False) -> str:
    """The write statement. The order of its parts is that of `parameters`."""
    number = _Numbered()
    given = number.rows({**ROOMS, **KNOWN} if is_optimistic else ROOMS)
    people, opened = number.rows(PEOPLE), number.rows(OPENED)
    closed, events = number.rows(CLOSED), number.rows(EVENTS)
    every_one = "locked AS (SELECT room_id FROM given)"
    locked = _locked(number, is_fenced) if is_optimistic else every_one
    mine = "room_id IN (SELECT room_id FROM locked)"
    kept = [name for name in ROOMS if name != "room_id"]
    told = [name for name in PEOPLE if name not in PERSON_IS]
    return f"""
    WITH given AS (SELECT * FROM {given}), {locked}, rooms AS (
        UPDATE interview_rooms r SET {_assigned(kept, "n")}
        FROM locked l JOIN given n USING (room_id) WHERE r.room_id = l.room_id
        RETURNING r.room_id, r.xmin, r.version
    ), people AS (
        INSERT INTO interview_participants ({_names(PEOPLE)})
        SELECT {_names(PEOPLE)} FROM {people} WHERE {mine}
        ON CONFLICT (room_id, user_id) DO UPDATE SET {_assigned(told, "excluded")}
    ), opened AS (
        INSERT INTO connections ({_names(OPENED)})
        SELECT {_names(OPENED)} FROM {opened} WHERE {mine}
    ), closed AS (
        DELETE FROM connections c USING {closed} WHERE c.id = n.id AND c.{mine}
    ), events AS (
        INSERT INTO room_events ({_names(EVENTS)})
        SELECT {_names(EVENTS)} FROM {events} WHERE {mine}
    )
    SELECT room_id, xmin, version, clock_timestamp() AS now FROM rooms
    """


def _locked(number: _Numbered, is_fenced: bool) -> str:
    """The rooms that are as they were remembered, locked; none where the node may not write."""
    node_epoch = number.one("varchar")
    decided_at, lag = number.one("timestamptz"), number.one("interval")
    fence = ""
    if is_fenced:
        fence = f"""
            AND EXISTS (SELECT FROM deployment
                        WHERE epoch = {number.one("varchar")} AND fingerprint = {FINGERPRINT})"""
    return f"""alive AS MATERIALIZED (
        SELECT FROM nodes WHERE boot = {node_epoch} FOR KEY SHARE
    ), locked AS MATERIALIZED (
        SELECT r.room_id FROM given n JOIN interview_rooms r
            ON r.room_id = n.room_id AND r.xmin = n.known_xmin AND r.version = n.known_version
        WHERE ({node_epoch} IS NULL OR EXISTS (SELECT FROM alive))
            AND clock_timestamp() - {decided_at} BETWEEN interval '0' AND {lag}{fence}
        ORDER BY r.room_id FOR NO KEY UPDATE OF r SKIP LOCKED
    )"""


LOCKED = _statement(is_optimistic=False)
OPTIMISTIC = _statement(is_optimistic=True)
OPTIMISTIC_POOLED = _statement(is_optimistic=True, is_fenced=True)

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

LOAD_PEOPLE = f"""
    SELECT {_names(PEOPLE, "p.")},
           ARRAY(SELECT c.id FROM connections c
                 WHERE c.room_id = p.room_id AND c.user_id = p.user_id
                 ORDER BY c.number NULLS FIRST, c.connected_at, c.id) AS sessions
    FROM unnest($1::varchar[], $2::varchar[]) AS named (room_id, user_id)
    JOIN interview_participants p USING (room_id, user_id)
"""

# One room at a time (sent together): the planner cannot take its fancy to reading whole tables.
EMPTY_ENDED_ROOM = (
    """
    UPDATE interview_participants SET left_at = $2, leave_at = NULL, connection = 'none'
    WHERE room_id = $1 AND left_at IS NULL
    """,
    "DELETE FROM connections WHERE room_id = $1 AND connected_at <= $2",
)


def parameters(rooms: list[Room], *, is_optimistic: bool) -> list[Sequence[Any]]:
    """What the write statements are given: a list for each column, table after table."""
    room_rows, people_rows, opened_rows, event_rows = [], [], [], []
    closed = []
    for r in rooms:
        known = r.version if is_optimistic else ()
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
        closed += r.closed
        event_rows += [(r.room_id, e.seq, e.type, r.now, payload(e), e.epoch) for e in r.events]
    return [
        *_transposed(room_rows, len(ROOMS) + (len(KNOWN) if is_optimistic else 0)),
        *_transposed(people_rows, len(PEOPLE)),
        *_transposed(opened_rows, len(OPENED)),
        closed,
        *_transposed(event_rows, len(EVENTS)),
    ]


def _person_row(room_id: str, p: Participant) -> tuple[Any, ...]:
    return (
        room_id, p.user_id, p.user_name, p.role, p.identity, p.joined_at, p.joined_seq, p.left_at,
        p.leave_at, p.connection, p.proven, p.removed,
    )  # fmt: skip


def _transposed(rows: list[tuple[Any, ...]], width: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


def room_of(row: Any) -> Room:
    """A room as `LOCK` found it."""
    return Room(
        room_id=row["room_id"], room_name=row["room_name"], host_name=row["host_name"],
        status=row["status"], created_at=row["created_at"], ended_at=row["ended_at"],
        last_seq=row["last_seq"], last_at=row["last_at"], present=row["present"],
        guests=row["guests"], online=row["online"], host_absent_since=row["host_absent_since"],
        empty_since=row["empty_since"], now=max(row["now"], row["last_at"]), epoch=row["epoch"],
        version=(row["xmin"], row["version"]),
    )  # fmt: skip


def participant_of(row: Any) -> Participant:
    """A person as `LOAD_PEOPLE` found it."""
    return Participant(
        user_id=row["user_id"], user_name=row["user_name"], role=row["role"],
        identity=row["identity"], joined_at=row["joined_at"], joined_seq=row["joined_seq"],
        left_at=row["left_at"], leave_at=row["leave_at"], connection=row["connection"],
        proven=row["proven"], removed=row["removed"], connections=list(row["sessions"]),
    )  # fmt: skip


def payload(event: Event) -> str:
    """An event's members as the log stores them."""
    return msgspec.json.encode(event.data).decode()

"""The SQL of what is most frequent: new guests join rooms that this node remembers.

It writes what the general statement (`sql.py`) writes, with a third of the parameters, since each
list costs asyncpg and PostgreSQL time. Columns of a room that a join never changes are left out.
What all newcomers share is given once, or stands in the text. Each join is one event, so `present`
and `guests` rise by as much as `last_seq` does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from coordinator.domain.room import Room
from coordinator.store.epochs import FINGERPRINT
from coordinator.store.room_writer.commands import Join
from coordinator.store.room_writer.pending_command import PendingCommand
from coordinator.store.room_writer.sql import (
    PEOPLE,
    PERSON_IS,
    Columns,
    Condition,
    Numbered,
    Row,
    payload,
    spread,
)

_ROOMS: Columns = {
    "room_id": "varchar",
    "known_xmin": "xid",
    "known_version": "bigint",
    "last_seq": "bigint",
}
_GUESTS: Columns = {
    "room_id": "varchar",
    "user_id": "varchar",
    "user_name": "varchar",
    "identity": "varchar",
    "seq": "bigint",
    "payload": "json",
}
_TOLD = ", ".join(f"{name} = excluded.{name}" for name in PEOPLE if name not in PERSON_IS)


def are_all(commands: Sequence[PendingCommand], changed: Sequence[Room]) -> bool:
    """True where all that has happened, at one moment, is that new guests have joined."""
    for pending in commands:
        if type(pending.command) is not Join:
            return False
    return len(changed) == 1 or len({room.now for room in changed}) == 1


def _statement(*, is_lone: bool, is_fenced: bool) -> str:
    number = Numbered(is_lone=is_lone)
    rooms, guests = number.rows(_ROOMS), number.rows(_GUESTS)
    at, leave_at = number.one("timestamptz"), number.one("timestamptz")
    epoch, change = number.one("varchar"), number.one("bigint")
    decided_at, lag = number.one("timestamptz"), number.one("interval")
    fence = ""
    if is_fenced:
        fence = f"""AND EXISTS (SELECT FROM deployment
            WHERE epoch = {epoch} AND fingerprint = {FINGERPRINT})"""
    return f"""
    WITH locked AS MATERIALIZED (
        SELECT n.room_id, n.last_seq FROM {rooms} JOIN interview_rooms r
            ON r.room_id = n.room_id AND r.xmin = n.known_xmin AND r.version = n.known_version
        WHERE clock_timestamp() - {decided_at} BETWEEN interval '0' AND {lag} {fence}
        ORDER BY r.room_id FOR NO KEY UPDATE OF r SKIP LOCKED),
    rooms AS (
        UPDATE interview_rooms r
        SET last_seq = l.last_seq, last_at = {at}, version = r.version # {change},
            present = r.present + (l.last_seq - r.last_seq)::int,
            guests = r.guests + (l.last_seq - r.last_seq)::int, empty_since = NULL
        FROM locked l WHERE r.room_id = l.room_id
        RETURNING r.room_id, r.xmin, r.version),
    newcomers AS MATERIALIZED (
        SELECT n.* FROM {guests} WHERE room_id IN (SELECT room_id FROM locked)),
    people AS (
        INSERT INTO interview_participants
            (room_id, user_id, user_name, role, identity, joined_at, joined_seq, left_at, leave_at,
             connection, proven, removed)
        SELECT room_id, user_id, user_name, 'guest', identity, {at}, seq, NULL, {leave_at},
               'none', false, false
        FROM newcomers
        ON CONFLICT (room_id, user_id) DO UPDATE SET {_TOLD}),
    events AS (
        INSERT INTO room_events (room_id, seq, type, at, payload, epoch)
        SELECT room_id, seq, 'participant_joined', {at}, payload, {epoch} FROM newcomers)
    SELECT room_id, xmin, version, clock_timestamp() AS now FROM rooms
    """


STATEMENTS = {
    (is_lone, is_fenced): _statement(is_lone=is_lone, is_fenced=is_fenced)
    for is_lone in (False, True)
    for is_fenced in (False, True)
}


def write(rooms: Sequence[Room], condition: Condition) -> tuple[str, list[Any]]:
    """The statement of an optimistic write, and its parameters.

    Args:
        rooms: decided, with joins of new guests as their only events (`are_all`).
    """
    room_rows: list[Row] = []
    guest_rows: list[Row] = []
    for room in rooms:
        room_rows.append((room.room_id, *room.version, room.last_seq))
        for event in room.events:
            guest = room.participants[event.data["participant"]["userId"]]
            guest_rows.append(
                (room.room_id, guest.user_id, guest.user_name, guest.identity, event.seq,
                 payload(event))
            )  # fmt: skip
    is_lone = len(guest_rows) == 1
    values = spread((room_rows, guest_rows), is_lone=is_lone)
    values += (
        room.now, guest.leave_at, room.epoch, random.getrandbits(63), condition.decided_at,
        condition.lag,
    )  # fmt: skip
    return STATEMENTS[is_lone, condition.epoch is not None], values

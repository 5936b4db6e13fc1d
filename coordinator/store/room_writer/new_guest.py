"""The SQL of what is most frequent: one new guest joins one room that this node remembers.

It says what the general statement (`sql.py`) says, in half the parameters: what a join never
changes of a room is not written, and what is the same for every newcomer stands in the text. Who
has proven itself is no newcomer (`is_newcomer`).
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from coordinator.domain.room import Participant, Room
from coordinator.store.epochs import FINGERPRINT
from coordinator.store.room_writer.sql import PEOPLE, PERSON_IS, Condition, payload

_TOLD = ", ".join(f"{name} = excluded.{name}" for name in PEOPLE if name not in PERSON_IS)


def is_newcomer(guest: Participant) -> bool:
    """True where the text is right about a guest who has just joined."""
    return not guest.proven and not guest.removed and guest.connection == "none"


@cache
def _statement(*, is_fenced: bool) -> str:
    fence = f"""AND EXISTS (SELECT FROM deployment
            WHERE epoch = $17::varchar AND fingerprint = {FINGERPRINT})"""
    return f"""
    WITH locked AS MATERIALIZED (
        SELECT r.room_id FROM interview_rooms r
        WHERE r.room_id = $1::varchar AND r.xmin = $2::xid AND r.version = $3::bigint
            AND clock_timestamp() - $15::timestamptz BETWEEN interval '0' AND $16::interval
            {fence if is_fenced else ""}
        FOR NO KEY UPDATE OF r SKIP LOCKED),
    rooms AS (
        UPDATE interview_rooms r
        SET last_seq = $4::bigint, last_at = $5::timestamptz, present = $6::int, guests = $7::int,
            version = $8::bigint, empty_since = NULL
        FROM locked l WHERE r.room_id = l.room_id
        RETURNING r.room_id, r.xmin, r.version),
    people AS (
        INSERT INTO interview_participants
            (room_id, user_id, user_name, role, identity, joined_at, joined_seq, left_at, leave_at,
             connection, proven, removed)
        SELECT room_id, $9::varchar, $10::varchar, 'guest', $11::varchar, $5::timestamptz,
               $4::bigint, NULL, $12::timestamptz, 'none', false, false
        FROM locked
        ON CONFLICT (room_id, user_id) DO UPDATE SET {_TOLD}),
    events AS (
        INSERT INTO room_events (room_id, seq, type, at, payload, epoch)
        SELECT room_id, $4::bigint, 'participant_joined', $5::timestamptz, $13::json, $14::varchar
        FROM locked)
    SELECT room_id, xmin, version, clock_timestamp() AS now FROM rooms
    """


def write(room: Room, guest: Participant, condition: Condition) -> tuple[str, list[Any]]:
    """The statement of an optimistic write, and its parameters.

    Args:
        room: decided, with the guest's join as its one event.
    """
    (event,) = room.events
    values = [
        room.room_id, *room.version, event.seq, room.now, room.present, room.guests,
        random.getrandbits(63), guest.user_id, guest.user_name, guest.identity, guest.leave_at,
        payload(event), event.epoch, condition.decided_at, condition.lag,
    ]  # fmt: skip
    if condition.epoch is None:
        return _statement(is_fenced=False), values
    return _statement(is_fenced=True), [*values, condition.epoch]

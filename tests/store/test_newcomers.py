"""The lean statement for new guests: what it writes is what the general one writes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from coordinator.domain.errors import RoomFull
from coordinator.domain.room import Policy
from coordinator.store.database import Database
from coordinator.store.room_writer import newcomers, room_cache
from coordinator.store.room_writer.commands import Join
from tests.store.lanes import CAPACITY, WriterLane, created, is_consistent

UNCONNECTED = timedelta(minutes=5)

ROOM = """
    SELECT status, ended_at, last_seq, present, guests, online, empty_since,
        last_at - created_at >= interval '0' AS is_later, host_absent_since = created_at AS waits
    FROM interview_rooms WHERE room_id = $1
"""
PEOPLE = """
    SELECT user_name, role, identity, joined_seq, left_at IS NULL AS is_in,
        leave_at - joined_at AS stays, connection, proven, removed
    FROM interview_participants WHERE room_id = $1 AND role = 'guest' ORDER BY joined_seq
"""
EVENTS = """
    SELECT seq, type, epoch, payload->'participant'->>'userName' AS name,
        payload->'participant'->>'identity' AS identity
    FROM room_events WHERE room_id = $1 ORDER BY seq
"""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine, where a statement takes long to reach Postgres, is no clock that is off."""
    monkeypatch.setattr(room_cache, "LAG_SECONDS", 30.0)


def crowd(rooms: list[str], run: str) -> list[Join]:
    """A room that gets more guests than it has seats for, and one that gets one."""
    guests = [(0, str(n)) for n in range(CAPACITY + 2)] + [(1, "lone")]
    return [
        Join(
            room_id=rooms[place], user_id=f"guest_{run}_{place}_{name}", user_name=name,
            identity="求职者" if place else None,
        )
        for place, name in guests
    ]  # fmt: skip


async def written(database: Database, rooms: list[str]) -> list[Any]:
    return [
        [tuple(row) for row in await database.fetch(asked, room)]
        for room in rooms
        for asked in (ROOM, PEOPLE, EVENTS)
    ]


@pytest.mark.parametrize("is_pooled", [False, True])
@pytest.mark.parametrize("unconnected", [None, UNCONNECTED])
async def test_both_statements_write_the_same(
    database: Database, lane: WriterLane, monkeypatch: pytest.MonkeyPatch,
    unconnected: timedelta | None, is_pooled: bool,
) -> None:  # fmt: skip
    lane.writer._policy = Policy(CAPACITY, timedelta(seconds=30), unconnected=unconnected)
    lane.database.is_pooled = is_pooled
    outcomes = []
    for run in ("lean", "general"):
        if run == "general":
            monkeypatch.setattr(newcomers, "are_all", lambda *_: False)
        rooms = [await created(database) for _ in range(2)]
        for room in rooms:
            await lane.learns(room)

        answers = await lane.does(*crowd(rooms, run))
        later = await lane.does(
            Join(room_id=rooms[1], user_id=f"guest_{run}", user_name="later", identity=None)
        )

        asked = "\n".join(lane.database.queries)
        assert ("newcomers AS" in asked) == (run == "lean")
        refused = [type(each) for each in answers if isinstance(each, Exception)]
        assert refused.count(RoomFull) == 3
        for room in rooms:
            await is_consistent(database, room)
        outcomes.append((refused, later[0].seq, await written(database, rooms)))
    lean, general = outcomes
    assert lean == general

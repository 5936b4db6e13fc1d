"""Rooms that a node does not remember: read without a lock, and written where nobody was faster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from coordinator.domain.errors import LeaseLost, RoomNotFound
from coordinator.domain.ids import new_session_id
from coordinator.store.database import Database
from coordinator.store.room_writer import queue, room_cache
from coordinator.store.room_writer.commands import Connect, Disconnect, Join, Return
from coordinator.store.rooms import Rooms
from tests.harness.patience import patient
from tests.harness.people import new_room_id
from tests.store.lanes import HOST, WriterLane, created, is_consistent, running

READS, WRITES = "SELECT r.room_id", "WITH"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine, where a statement takes long to reach Postgres, is no clock that is off."""
    monkeypatch.setattr(room_cache, "LAG_SECONDS", 30.0)


@pytest.fixture
def lane(lanes: tuple[WriterLane, WriterLane]) -> WriterLane:
    lanes[0].database.queries.clear()
    return lanes[0]


def asked(lane: WriterLane) -> list[str]:
    """Each query since the last look: `read`, `write`, or its first word."""
    queries, lane.database.queries = lane.database.queries, []
    names = {READS: "read", WRITES: "write"}
    return [
        next((name for start, name in names.items() if query.startswith(start)), query.split()[0])
        for query in queries
    ]


def when_read(lane: WriterLane, does: Callable[[], Awaitable[Any]]) -> None:
    """Has `does` done once, between the next read of a room and the write that follows."""
    connection = lane.writer._connection
    fetch = connection.fetch

    async def fetches(sql: str, *values: Any) -> Any:
        rows = await fetch(sql, *values)
        if sql.strip().startswith(READS):
            connection.fetch = fetch
            await does()
        return rows

    connection.fetch = fetches


async def test_the_first_two_changes_take_two_round_trips_each_the_third_one(
    database: Database, lane: WriterLane
) -> None:
    room = await created(database)
    await lane.joins(await created(database), "who comes first has the connection made")
    asked(lane)

    for name, expected in (("a", ["read", "write"]), ("b", ["read", "write"]), ("c", ["write"])):
        await lane.joins(room, name)
        assert asked(lane) == expected
    await is_consistent(database, room)


async def test_who_was_faster_between_the_read_and_the_write_is_not_written_over(
    database: Database, lanes: tuple[WriterLane, WriterLane]
) -> None:
    one, other = lanes
    room = await created(database)
    await one.joins(await created(database), "has the connection made")
    when_read(one, lambda: other.joins(room, "faster"))
    asked(one)

    slower = await one.joins(room, "slower")

    assert slower.seq == 3
    assert "BEGIN" in asked(one), "decided anew, under lock"
    await one.joins(room, "next")
    assert "BEGIN" in asked(one), "a room that others change just now is locked at once"
    await is_consistent(database, room)


async def test_a_contended_room_is_read_again_a_while_later(
    database: Database, lanes: tuple[WriterLane, WriterLane], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = lanes
    monkeypatch.setattr(room_cache, "CONTENDED_SECONDS", 0.0)
    room = await created(database)
    await one.joins(await created(database), "has the connection made")
    when_read(one, lambda: other.joins(room, "faster"))
    await one.joins(room, "slower")
    await other.joins(room, "again")
    asked(one)

    await one.joins(room, "next")

    assert asked(one) == ["read", "write"]


async def test_people_and_their_connections_are_read_with_the_room(
    database: Database, lanes: tuple[WriterLane, WriterLane]
) -> None:
    """Each change by the other node than the one before: nothing is remembered."""
    room = await created(database)
    sessions = [new_session_id() for _ in range(7)]
    guest = Return(room_id=room, user_id="guest_x", user_name="x", identity=None)
    await lanes[0].does(guest)
    for number, session in enumerate(sessions):
        lane = lanes[number % 2]
        (answer,) = await lane.does(
            Connect(room_id=room, user_id="guest_x", session_id=session, node_epoch=lane.boot)
        )
        assert answer.replaced == (tuple(sessions[number - 5 : number - 4]) if number > 4 else ())
    for number, session in enumerate(sessions[2:]):
        await lanes[number % 2].does(
            Disconnect(room_id=room, user_id="guest_x", session_id=session)
        )

    log = await is_consistent(database, room)
    assert [event.type for event in log[1:]] == [
        "participant_joined", "participant_online", "participant_away",
    ]  # fmt: skip


async def test_a_node_that_is_declared_dead_connects_nobody(
    database: Database, lane: WriterLane
) -> None:
    room = await created(database)
    guest = await lane.joins(room, "a")
    await database.execute("DELETE FROM nodes WHERE boot = $1", lane.boot)

    (answer,) = await lane.does(
        Connect(
            room_id=room, user_id=guest.user_id, session_id=new_session_id(), node_epoch=lane.boot
        )
    )

    assert isinstance(answer, LeaseLost)
    await is_consistent(database, room)


async def test_rooms_that_do_not_exist_fail_their_own_callers(
    database: Database, lane: WriterLane
) -> None:
    room, nowhere = await created(database), new_room_id()
    joins = [
        Join(room_id=each, user_id=f"guest_{n}", user_name="n", identity=None)
        for n, each in enumerate((nowhere, room, nowhere, room))
    ]
    answers = await asyncio.wait_for(lane.does(*joins), 60)

    assert [type(answer) is RoomNotFound for answer in answers] == [True, False, True, False]
    assert len(await is_consistent(database, room)) == 3


async def test_a_room_that_a_new_node_makes_is_remembered_from_its_first_moment(
    database: Database, database_url: str
) -> None:
    """The writer connects when it starts, and knows Postgres's clock from then on."""
    async with running(database, database_url) as lane:
        async with asyncio.timeout(patient(10)):
            while not lane.writer._cache.has_clock:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        made = await Rooms(database).create(
            room_id=new_room_id(), room_name="n", host_name="h", host=HOST
        )
        lane.writer.remember(made)
        asked(lane)

        await lane.joins(made.room_id, "first")

        assert asked(lane) == ["write"]


async def test_a_connection_that_dies_after_the_read_loses_nobody(
    database: Database, lane: WriterLane
) -> None:
    room = await created(database)
    await lane.joins(await created(database), "has the connection made")
    connection = lane.writer._connection

    async def dies() -> None:
        connection.terminate()

    when_read(lane, dies)
    joined = await lane.joins(room, "a")

    assert joined.seq == 2
    await is_consistent(database, room)


async def test_a_room_that_is_forgotten_while_another_is_read_is_written_all_the_same(
    database: Database, lane: WriterLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node makes a room meanwhile, and remembers too many."""
    remembered, unknown = await created(database), await created(database)
    await lane.learns(remembered)
    refused: list[str] = []
    monkeypatch.setattr(queue.log, "error", lambda event, **_: refused.append(event))

    async def another_room_is_made() -> None:
        monkeypatch.setattr(room_cache, "MOST", 1)
        made = await Rooms(database).create(
            room_id=new_room_id(), room_name="n", host_name="h", host=HOST
        )
        lane.writer.remember(made)

    when_read(lane, another_room_is_made)
    answers = await lane.does(
        *(
            Join(room_id=room, user_id="guest_x", user_name="x", identity=None)
            for room in (remembered, unknown)
        )
    )

    assert [answer.user_id for answer in answers] == ["guest_x", "guest_x"]
    assert refused == []
    for room in (remembered, unknown):
        await is_consistent(database, room)

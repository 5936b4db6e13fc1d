"""The writer by itself, on a real Postgres: what it remembers is never more than a guess.

Two writers on one database are two nodes that change the same rooms. Whatever they believe, each
room's log has no hole, its rows are what the log tells, and its limits hold.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from coordinator.domain.errors import CoordinatorError, LeaseLost, RoomFull
from coordinator.domain.identity_claim import IdentityClaim
from coordinator.domain.ids import new_session_id
from coordinator.store.database import Database
from coordinator.store.room_writer import room_cache
from coordinator.store.room_writer.commands import (
    AdmitTokenRequest,
    Connect,
    Disconnect,
    End,
    Join,
    Leave,
    UndoJoin,
)
from coordinator.store.rooms import Rooms
from tests.harness.people import new_room_id
from tests.store.lanes import CAPACITY, HOST, POLICY, WriterLane, created, is_consistent


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine, where a statement takes long to reach Postgres, is no clock that is off."""
    monkeypatch.setattr(room_cache, "LAG_SECONDS", 30.0)


# -- optimistic writing --------------------------------------------------------------------------


async def test_a_room_that_one_node_changes_is_written_by_one_statement(
    database: Database, lane: WriterLane, room: str
) -> None:

    for name in ("a", "b", "c"):
        await lane.joins(room, name)
    assert len(lane.database.queries) == 3
    (connected,) = await lane.does(
        Connect(room_id=room, user_id="guest_a", session_id=new_session_id(), node_epoch=lane.boot)
    )

    assert len(lane.database.queries) == 4, "who has just joined is remembered with the room"
    events = await is_consistent(database, room)
    assert connected.seq == len(events)
    assert [event.seq for event in lane.events] == [event.seq for event in events[1:]]


async def test_new_guests_of_several_rooms_are_one_statement_of_their_own(
    database: Database, lanes: tuple[WriterLane, WriterLane]
) -> None:
    one, other = lanes
    rooms = [await created(database) for _ in range(3)]
    for room in rooms:
        await one.learns(room)
    changed_elsewhere = rooms[2]
    await other.joins(changed_elsewhere, "elsewhere")

    one.database.queries.clear()
    joins = [
        Join(room_id=room, user_id=f"guest_{name}", user_name=name, identity=identity)
        for room, name, identity in (
            (rooms[0], "a", "求职者"), (rooms[1], "b", None), (rooms[0], "c", None),
            (changed_elsewhere, "d", "求职者"),
        )
    ]  # fmt: skip
    joined = await one.does(*joins)

    asked = "\n".join(one.database.queries)
    assert asked.count("SELECT r.room_id") == 1, "the room that was not as remembered is read"
    assert asked.count("newcomers AS") == 2
    for join, answer in zip(joins, joined, strict=True):
        event = (await is_consistent(database, join.room_id))[answer.seq - 1]
        assert event.data["participant"]["userId"] == join.user_id
    rows = await database.fetch(
        "SELECT user_id, user_name, role, identity, joined_at, joined_seq, left_at, leave_at,"
        " connection, proven, removed FROM interview_participants"
        " WHERE room_id = ANY($1) AND user_id = ANY($2)", rooms, [join.user_id for join in joins],
    )  # fmt: skip
    kept = {(row["user_id"], row["identity"], row["joined_at"], row["joined_seq"]) for row in rows}
    assert kept == {(j.user_id, j.identity, j.joined_at, j.seq) for j in joined}
    rest = {
        (row["role"], row["left_at"], row["leave_at"], row["connection"], row["proven"],
         row["removed"])
        for row in rows
    }  # fmt: skip
    assert rest == {("guest", None, None, "none", False, False)}

    one.database.queries.clear()
    await one.joins(rooms[0], "e")
    assert len(one.database.queries) == 1, "the room is remembered as it was written"


async def test_the_first_change_of_a_room_that_this_node_made_is_one_statement(
    database: Database, lane: WriterLane, room: str
) -> None:
    made = await Rooms(database).create(
        room_id=new_room_id(), room_name="n", host_name="h", host=HOST
    )
    lane.writer.remember(made)
    (connected,) = await lane.does(
        Connect(
            room_id=made.room_id, user_id=HOST.user_id, session_id=new_session_id(),
            node_epoch=lane.boot,
        ),
    )  # fmt: skip

    assert len(lane.database.queries) == 1
    assert connected.seq == len(await is_consistent(database, made.room_id)) == 2


async def test_a_room_that_was_made_here_and_changed_elsewhere_is_read_first(
    database: Database, lanes: tuple[WriterLane, WriterLane], room: str
) -> None:
    one, other = lanes
    made = await Rooms(database).create(
        room_id=new_room_id(), room_name="n", host_name="h", host=HOST
    )
    one.writer.remember(made)
    await other.joins(made.room_id, "a")
    assert (await one.joins(made.room_id, "b")).seq == 3
    await is_consistent(database, made.room_id)


async def test_a_batch_is_told_while_postgres_writes_the_next_one(
    lane: WriterLane, room: str
) -> None:
    first = asyncio.create_task(lane.joins(room, "a"))
    while lane.writer.state()["in transaction"] != 1:  # noqa: ASYNC110
        await asyncio.sleep(0)
    lane.under_way.clear()
    await asyncio.gather(lane.joins(room, "b"), lane.joins(room, "c"), first)

    assert lane.under_way == [2, 2], "b and c were on their way when a was announced"
    assert [event.seq for event in lane.events] == sorted(event.seq for event in lane.events)


async def test_what_another_node_changed_is_seen_before_anything_is_decided(
    database: Database, lanes: tuple[WriterLane, WriterLane], room: str
) -> None:
    one, other = lanes
    for number in range(CAPACITY - 1):  # and the host: full
        await other.joins(room, f"other{number}")

    assert isinstance(await one.joins(room, "late"), RoomFull)
    await other.does(Leave(room_id=room, user_id="guest_other0"))
    assert (await one.joins(room, "late")).seq == len(await is_consistent(database, room))


async def test_a_refusal_is_not_given_from_memory(
    database: Database, lanes: tuple[WriterLane, WriterLane], room: str
) -> None:
    """It writes nothing, so nobody would compare the version."""
    one, other = lanes
    for number in range(CAPACITY - 1):
        await one.joins(room, f"one{number}")
    await other.does(Leave(room_id=room, user_id="guest_one0"))

    assert not isinstance(await one.joins(room, "late"), CoordinatorError)
    await is_consistent(database, room)


async def test_a_room_that_two_nodes_change_in_turn_costs_no_vain_attempt(
    database: Database, lanes: tuple[WriterLane, WriterLane]
) -> None:
    room = await created(database)
    for number in range(3):
        for lane in lanes:
            await lane.joins(room, f"{number}{lane.boot}")

    for lane in lanes:
        asked = Counter(" ".join(query.split()[:2]) for query in lane.database.queries)
        assert (asked["SELECT r.room_id,"], asked["WITH locked"], asked["BEGIN"]) == (3, 3, 0)
    await is_consistent(database, room)


async def test_a_node_that_is_declared_dead_connects_nobody_from_memory(
    database: Database, lane: WriterLane, room: str
) -> None:
    await lane.joins(room, "a")
    await database.execute("DELETE FROM nodes WHERE boot = $1", lane.boot)

    (answer,) = await lane.does(
        Connect(room_id=room, user_id="guest_a", session_id=new_session_id(), node_epoch=lane.boot)
    )

    assert isinstance(answer, LeaseLost)
    await is_consistent(database, room)


async def test_what_is_only_asked_leaves_the_room_remembered(
    database: Database, lane: WriterLane, room: str
) -> None:
    await lane.joins(room, "a")
    nothing = IdentityClaim(is_presented=False, is_required=False)
    asking = AdmitTokenRequest(room_id=room, user_id="guest_a", claim=nothing)

    for name in ("b", "c"):
        assert await lane.does(asking) == [None]
        lane.database.queries.clear()
        await lane.joins(room, name)
        assert len(lane.database.queries) == 1


async def test_a_join_on_its_way_does_not_arrive_after_it_was_taken_back(
    database: Database, lane: WriterLane
) -> None:
    """Its connection died with it, and the row is as the lost statement expects it, until now."""
    room = await created(database)
    version = "SELECT xmin FROM interview_rooms WHERE room_id = $1"
    before = await database.fetchval(version, room)

    await lane.does(UndoJoin(room_id=room, user_id="guest_lost"))

    assert await database.fetchval(version, room) != before
    assert len(await is_consistent(database, room)) == 1


async def test_a_commit_that_takes_long_shortens_nobodys_grace(
    database: Database, lane: WriterLane, room: str
) -> None:
    session = new_session_id()
    await lane.joins(room, "a")
    await lane.does(
        Connect(room_id=room, user_id="guest_a", session_id=session, node_epoch=lane.boot)
    )
    async with _slow_commits(database, "%slow%", seconds=0.3):
        await lane.joins(room, "slow")
        dropped = await database.fetchval("SELECT clock_timestamp()")
        lane.database.queries.clear()
        await lane.does(Disconnect(room_id=room, user_id="guest_a", session_id=session))

    away = await database.fetchrow(
        "SELECT leave_at FROM interview_participants WHERE room_id = $1 AND user_id = 'guest_a'",
        room,
    )
    assert away["leave_at"] >= dropped + POLICY.grace - timedelta(milliseconds=50)
    assert len(lane.database.queries) == 1, "the clock goes on as it was"


@asynccontextmanager
async def _slow_commits(database: Database, pattern: str, *, seconds: float) -> AsyncIterator[None]:
    """Lets Postgres take its time inside COMMIT, where an event's payload is like `pattern`."""
    await database.execute(
        "CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$"
    )
    await database.execute(
        "CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON room_events"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        f" WHEN (NEW.payload::text LIKE '{pattern}') EXECUTE FUNCTION slow_commit()"
    )
    try:
        yield
    finally:
        await database.execute("DROP FUNCTION slow_commit CASCADE")


@pytest.mark.parametrize("seconds", [-3600, -0.2, 2, 3600])
async def test_a_clock_that_is_off_tells_no_times(
    database: Database, lane: WriterLane, room: str, seconds: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As after a machine slept, or its Postgres's clock was set."""
    monkeypatch.undo()
    lane.writer._cache._round_trip = 0.0  # on a busy machine it would excuse as much
    lane.writer._cache._zero += timedelta(seconds=seconds)

    joined = await lane.joins(room, "a")

    assert abs(joined.joined_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert lane.database.queries[-2].startswith("SELECT r.room_id"), "a clock that is right"
    await is_consistent(database, room)


async def test_an_ended_room_is_remembered_no_more(
    database: Database, lane: WriterLane, room: str
) -> None:
    session = new_session_id()
    await lane.joins(room, "a")
    for command in (
        Connect(room_id=room, user_id="guest_a", session_id=session, node_epoch=lane.boot),
        End(room_id=room, by="user_001"),
        Disconnect(room_id=room, user_id="guest_a", session_id=session),
    ):
        await lane.does(command)

    assert isinstance(await lane.joins(room, "b"), CoordinatorError)
    events = await database.fetch(
        "SELECT type FROM room_events WHERE room_id = $1 ORDER BY seq", room
    )
    assert events[-1]["type"] == "room_ended"
    assert not await database.fetch("SELECT FROM connections WHERE room_id = $1", room)


# -- a connection that dies ----------------------------------------------------------------------


async def test_a_transaction_begun_in_advance_dies_with_its_connection(
    database: Database, lane: WriterLane
) -> None:
    """The next batch begins one of its own; without it, its locks would hold nothing."""
    rooms = [await created(database) for _ in range(3)]
    first = lane.does(_locks(rooms[0]), *[_join(room, "first") for room in rooms])
    lane.database.kill_when_begun = True
    await asyncio.gather(first, *[_later(lane, room) for room in rooms])

    assert not lane.database.kill_when_begun, "no transaction was begun in advance"
    queries = lane.database.queries
    begun = [query for query in queries if "BEGIN" in query]
    assert begun.count("BEGIN") >= 2, "once on each connection"
    for room in rooms:
        assert len(await is_consistent(database, room)) == 3


def _locks(room: str) -> AdmitTokenRequest:
    """Seldom writes anything, so it is decided under lock, with all that is asked beside it."""
    nothing = IdentityClaim(is_presented=False, is_required=False)
    return AdmitTokenRequest(room_id=room, user_id="guest_first", claim=nothing)


def _join(room: str, name: str) -> Join:
    return Join(room_id=room, user_id=f"guest_{name}", user_name=name, identity=None)


async def _later(lane: WriterLane, room: str) -> None:
    while "BEGIN" not in lane.database.queries:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await lane.does(_locks(room), _join(room, "second"))


async def test_versions_are_not_remembered_across_connections(
    database: Database, lane: WriterLane, room: str
) -> None:
    """A database that was set back to an earlier day counts its versions anew."""
    lane.writer._connection.terminate()

    await lane.joins(room, "a")

    assert any(query.startswith("SELECT r.room_id") for query in lane.database.queries)

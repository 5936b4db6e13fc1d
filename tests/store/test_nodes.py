"""Leases and connections as they are stored: what a clock that jumps, or a race, must not do."""

from __future__ import annotations

import pytest_asyncio

from coordinator.domain.ids import new_node_epoch
from coordinator.live.lease import LEASE
from coordinator.store.database import Database
from coordinator.store.nodes import Nodes
from coordinator.store.room_writer.commands import Connect, Join
from tests.store.lanes import WriterLane, created


@pytest_asyncio.fixture
async def nodes(database: Database) -> Nodes:
    return Nodes(database)


async def test_a_lease_that_lies_far_ahead_is_cut_to_what_it_may_be(
    database: Database, nodes: Nodes
) -> None:
    """Postgres's clock was set back by half a minute: a dead node is noticed no later for it."""
    judge, dead = new_node_epoch(), new_node_epoch()
    for node in (judge, dead):
        await nodes.enter(node, "test", LEASE)
        await database.execute(
            "UPDATE nodes SET lease_until = lease_until + interval '30 s',"
            " held_since = held_since + interval '30 s' WHERE boot = $1",
            node,
        )
    await nodes.renew(judge, LEASE)

    await nodes.reap_dead(judge, LEASE)

    rows = await database.fetch(
        "SELECT lease_until <= clock_timestamp() + interval '8 s' AS is_bounded,"
        " held_since <= clock_timestamp() AS has_begun FROM nodes WHERE boot = ANY($1)",
        [judge, dead],
    )
    assert [tuple(row) for row in rows] == [(True, True), (True, True)]
    for node in (judge, dead):
        await nodes.leave(node)


async def test_the_oldest_of_six_connections_goes_though_all_have_one_time(
    database: Database, lanes: tuple[WriterLane, WriterLane]
) -> None:
    """Opened within a moment by two nodes, and Postgres's clock stands still meanwhile."""
    room = await created(database)
    await lanes[0].does(Join(room_id=room, user_id="guest_a", user_name="a", identity=None))
    await database.execute(
        "UPDATE interview_rooms SET last_at = clock_timestamp() + interval '1 h'"
        " WHERE room_id = $1",
        room,
    )
    sessions = [f"{letter}-{room}"[:32] for letter in "mzbkxa"]

    replaced = []
    for number, session in enumerate(sessions):
        lane = lanes[number % 2]
        (answer,) = await lane.does(
            Connect(room_id=room, user_id="guest_a", session_id=session, node_epoch=lane.boot)
        )
        replaced += answer.replaced

    assert replaced == [sessions[0]]

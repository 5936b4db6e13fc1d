"""Epochs: a database that has become another history is noticed, and what was told is compared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from coordinator.domain.events import Head
from coordinator.domain.ids import new_node_epoch
from coordinator.domain.people import Staff
from coordinator.store.database import Database
from coordinator.store.nodes import Nodes
from coordinator.store.rooms import Rooms
from tests.harness.people import new_room_id


@pytest_asyncio.fixture
async def other(database_url: str) -> AsyncIterator[Database]:
    """Another node's view of the same database."""
    opened = Database(database_url)
    await opened.open()
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def room(database: Database) -> str:
    room_id = new_room_id()
    await Rooms(database).create(
        room_id=room_id, room_name="n", host_name="h", host=Staff(1, "openid", "hr")
    )
    return room_id


async def test_all_nodes_find_the_same_epoch(database: Database, other: Database) -> None:
    assert database.epochs.current
    assert other.epochs.current == await database.epochs.check()


async def test_a_new_epoch_is_told_to_those_who_listen(database: Database, other: Database) -> None:
    heard: list[str] = []
    other.epochs.on_change(heard.append)

    epoch = await database.epochs.start_new()
    await other.epochs.check()

    assert heard == [epoch]
    assert other.epochs.current == epoch


async def test_a_renewal_of_the_lease_notices_a_new_epoch(
    database: Database, other: Database
) -> None:
    nodes, me = Nodes(other), new_node_epoch()
    await nodes.enter(me, "test", timedelta(seconds=8))
    epoch = await database.epochs.start_new()

    assert await nodes.renew(me, timedelta(seconds=8))

    assert other.epochs.current == epoch
    await nodes.leave(me)


async def test_a_clone_starts_an_epoch_of_its_own_once(
    database: Database, database_url: str
) -> None:
    """As a restored dump finds it: the fingerprint beside the epoch is another server's."""
    before = await database.epochs.check()
    await database.execute("UPDATE deployment SET fingerprint = '1/00000001/5'")
    nodes = [Database(database_url) for _ in range(6)]

    await asyncio.gather(*[node.open() for node in nodes])

    found = {node.epochs.current for node in nodes}
    assert len(found) == 1
    assert before not in found
    for node in nodes:
        await node.close()


async def test_an_event_is_of_the_epoch_in_which_it_was_written(
    database: Database, room: str
) -> None:
    epoch = await database.epochs.check()
    rooms = Rooms(database)

    (event,) = await rooms.events_after(room, 0, 10)
    loaded = await rooms.load(room)

    assert event.epoch == epoch == await rooms.epoch_at(room, 1)
    assert loaded is not None
    assert loaded[0] == event.head == Head(1, epoch, event.at)


async def test_a_log_that_has_not_moved_is_no_news(database: Database, room: str) -> None:
    rooms = Rooms(database)
    (event,) = await rooms.events_after(room, 0, 10)

    assert await rooms.moved([(room, event.head)]) == []
    assert await rooms.vanished([(room, event.head)]) == set()


@pytest.mark.parametrize(
    "change", [{"seq": 2}, {"epoch": "other"}, {"at": "2026-01-01T00:00:00.000Z"}], ids=str
)
async def test_an_event_that_the_log_does_not_have_is_noticed(
    database: Database, room: str, change: dict[str, Any]
) -> None:
    rooms = Rooms(database)
    (event,) = await rooms.events_after(room, 0, 10)
    told = event.head._replace(**change)

    assert await rooms.vanished([(room, told), ("unknown", told)]) == {room, "unknown"}
    if "epoch" not in change:  # the poll compares the row alone where nothing seems to have moved
        (moved,) = await rooms.moved([(room, told)])
        assert (moved.last_seq, moved.stands) == (1, False)


async def test_a_log_that_went_on_still_has_what_was_told(database: Database, room: str) -> None:
    rooms = Rooms(database)
    (event,) = await rooms.events_after(room, 0, 10)
    await database.execute(
        "INSERT INTO room_events (room_id, seq, type, at, payload)"
        " VALUES ($1, 2, 'test', clock_timestamp(), '{}')",
        room,
    )
    await database.execute(
        "UPDATE interview_rooms SET last_seq = 2, last_at = clock_timestamp() WHERE room_id = $1",
        room,
    )

    (moved,) = await rooms.moved([(room, event.head)])

    assert (moved.last_seq, moved.stands) == (2, True)


async def test_a_room_that_is_gone_has_moved(database: Database) -> None:
    (moved,) = await Rooms(database).moved([("gone", Head(3, "e", "2026-01-01T00:00:00.000Z"))])

    assert (moved.last_seq, moved.stands) == (None, False)

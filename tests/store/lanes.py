"""Writers in the tests' own process: what they announce and ask, what must hold of a room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from coordinator.domain.events import Event
from coordinator.domain.ids import new_node_epoch
from coordinator.domain.people import Staff
from coordinator.domain.room import Policy
from coordinator.domain.roster import Roster
from coordinator.store.database import Database
from coordinator.store.nodes import Nodes
from coordinator.store.room_writer.commands import Command, Join, UndoJoin
from coordinator.store.room_writer.queue import Writer
from coordinator.store.rooms import Rooms
from tests.harness.people import new_room_id

CAPACITY = 8
POLICY = Policy(CAPACITY, timedelta(seconds=30))
HOST = Staff(1, "openid", "hr")


class Logged(Database):
    """A database that notes what is asked of the connections outside of its pool."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.queries: list[str] = []
        self.kill_when_begun = False
        """The connection dies when a COMMIT has begun the next transaction."""

    async def connect(self) -> Any:
        connection = await super().connect()
        connection.add_query_logger(lambda record: self.queries.append(record.query.strip()))
        execute = connection.execute

        async def execute_or_die(sql: str, *values: Any) -> Any:
            tag = await execute(sql, *values)
            if self.kill_when_begun and sql.startswith("COMMIT; BEGIN"):
                self.kill_when_begun = False
                connection.terminate()
            return tag

        connection.execute = execute_or_die
        return connection


class WriterLane:
    """A running writer, what it announced, and what it asked of Postgres."""

    def __init__(self, database_url: str, boot: str) -> None:
        self.database = Logged(database_url)
        self.boot = boot
        self.events: list[Event] = []
        self.under_way: list[object] = []
        """How many commands were in a transaction when a batch was announced."""
        self.told_alone: list[Event] = []
        self.writer = Writer(self.database, POLICY, self.hear, self.told_alone.extend)

    def hear(self, events: Sequence[Event], replaced: Sequence[str]) -> None:
        self.events += events
        self.under_way.append(self.writer.state()["in transaction"])

    async def does(self, *commands: Command[Any]) -> list[Any]:
        answers = [self.writer.submit(command) for command in commands]
        return await asyncio.gather(*answers, return_exceptions=True)

    async def joins(self, room: str, name: str) -> Any:
        (answer,) = await self.does(
            Join(room_id=room, user_id=f"guest_{name}", user_name=name, identity=None)
        )
        return answer

    async def learns(self, room: str) -> None:
        """Changes a room twice in a row: from then on it is remembered."""
        for _ in range(2):
            await self.joins(room, "learnt")
            await self.does(UndoJoin(room_id=room, user_id="guest_learnt"))
        self.database.queries.clear()


@asynccontextmanager
async def running(database: Database, database_url: str) -> AsyncIterator[WriterLane]:
    boot = new_node_epoch()
    await Nodes(database).enter(boot, "test", timedelta(minutes=10))
    lane = WriterLane(database_url, boot)
    task = asyncio.create_task(lane.writer.run())
    try:
        yield lane
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await database.execute("DELETE FROM nodes WHERE boot = $1", boot)


async def created(database: Database) -> str:
    room_id = new_room_id()
    await Rooms(database).create(room_id=room_id, room_name="n", host_name="h", host=HOST)
    return room_id


async def is_consistent(database: Database, room_id: str) -> list[Event]:
    """The log has no hole, and everything else is what it tells."""
    rooms = Rooms(database)
    events = await rooms.events_after(room_id, 0, 100_000)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.at for event in events] == sorted(event.at for event in events)
    row = await database.fetchrow("SELECT * FROM interview_rooms WHERE room_id = $1", room_id)
    people = await database.fetch(
        "SELECT * FROM interview_participants WHERE room_id = $1 AND left_at IS NULL", room_id
    )
    online = await database.fetch(
        "SELECT DISTINCT user_id FROM connections WHERE room_id = $1", room_id
    )
    marked = await database.fetch(
        "SELECT id, user_id FROM away_connections WHERE room_id = $1", room_id
    )
    told = Roster({})
    for event in events:
        told.apply(event)
    assert row["last_seq"] == len(events)
    assert {p["user_id"]: p["connection"] for p in people} == {
        user_id: view["connection"] for user_id, view in told.participants.items()
    }
    assert {p["user_id"] for p in people if p["connection"] == "online"} == {
        each["user_id"] for each in online
    }
    assert {each["user_id"] for each in marked} <= {p["user_id"] for p in people}
    both = "SELECT id FROM connections WHERE id = ANY($1)"
    assert not await database.fetch(both, [each["id"] for each in marked])
    assert row["present"] == len(people) <= CAPACITY
    assert row["guests"] == sum(p["role"] == "guest" for p in people)
    assert row["online"] == len(online)
    return events

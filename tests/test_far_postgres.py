"""A long way to Postgres: a join costs one or two round trips at any, and batches fill them."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from coordinator.domain.errors import Unavailable
from coordinator.domain.people import Staff
from coordinator.domain.room import Policy
from coordinator.live.lease import LEASE
from coordinator.standins.servers import EmbeddedPostgres
from coordinator.store.database import Database
from coordinator.store.migrations import migrate
from coordinator.store.room_writer.commands import Join
from coordinator.store.room_writer.queue import Writer
from coordinator.store.rooms import Rooms
from tests.harness.cluster import steady_ports
from tests.harness.patience import patient
from tests.harness.people import new_room_id
from tests.harness.tcp_proxy import TcpProxy
from tests.store.lanes import Logged

ROOMY = Policy(100_000, LEASE)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="coordinator-far-"))
    with EmbeddedPostgres(folder, port=steady_ports(1)[0], options=("fsync=off",)) as started:
        asyncio.run(migrate(Database(started.url)))
        yield started
    shutil.rmtree(folder, ignore_errors=True)


class FarNode:
    """A writer whose Postgres is `round_trip` seconds away."""

    def __init__(self, server: EmbeddedPostgres, round_trip: float) -> None:
        self.proxy = TcpProxy(server.port, delay_seconds=round_trip / 2)
        self.round_trip = round_trip
        self.near = Database(server.url)
        self._guests = 0

    async def starts(self) -> None:
        await self.proxy.start()
        await self.near.open()
        self.database = Logged(f"postgresql://postgres@127.0.0.1:{self.proxy.port}/coordinator")
        self.writer = Writer(self.database, ROOMY, lambda events, replaced: None)
        self._other = Writer(self.near, ROOMY, lambda events, replaced: None)
        self._writing = [asyncio.create_task(each.run()) for each in (self.writer, self._other)]

    async def ends(self) -> None:
        for task in self._writing:
            task.cancel()
        await asyncio.gather(*self._writing, return_exceptions=True)
        await self.near.close()
        await self.proxy.close()

    async def knows_a_room(self) -> str:
        """A room that was changed twice in a row: it is remembered from then on."""
        room_id = new_room_id()
        host = Staff(1, "openid", "hr")
        await Rooms(self.near).create(room_id=room_id, room_name="n", host_name="h", host=host)
        async with asyncio.timeout(patient(20)):
            for _ in range(3):
                while not await self._gets_in(room_id):
                    pass
        return room_id

    async def _gets_in(self, room_id: str) -> bool:
        """A guest joins, unless it is told to try again: a busy machine connects slowly, too."""
        try:
            await self.joins(room_id)
        except Unavailable:
            return False
        return True

    async def other_joins(self, room_id: str) -> None:
        """A guest joins at a node that is near to Postgres."""
        self._guests += 1
        await self._other.submit(
            Join(room_id=room_id, user_id=f"guest_{self._guests}", user_name="n", identity=None)
        )

    async def joins(self, room_id: str) -> float:
        """A guest joins; in how many round trips."""
        self._guests += 1
        start = time.monotonic()
        await self.writer.submit(
            Join(room_id=room_id, user_id=f"guest_{self._guests}", user_name="n", identity=None)
        )
        return (time.monotonic() - start) / self.round_trip


@pytest_asyncio.fixture
async def far(
    server: EmbeddedPostgres, request: pytest.FixtureRequest
) -> AsyncIterator[FarNode]:
    node = FarNode(server, request.param)
    await node.starts()
    yield node
    await node.ends()


@pytest.mark.parametrize("far", [0.06, 0.1, 0.2], indirect=True, ids=lambda s: f"{s * 1000:g} ms")
async def test_a_join_costs_one_round_trip(far: FarNode) -> None:
    room = await far.knows_a_room()

    asked = []
    for _ in range(9):
        far.database.queries.clear()
        await far.joins(room)
        asked.append(len(far.database.queries))

    assert statistics.median(asked) == 1, "written by one statement, whose time was believed"


@pytest.mark.parametrize("far", [0.06], indirect=True)
async def test_a_join_costs_two_where_another_node_was_the_last_to_change_the_room(
    far: FarNode,
) -> None:
    room = await far.knows_a_room()

    asked = []
    for _ in range(9):
        await far.other_joins(room)
        far.database.queries.clear()
        await far.joins(room)
        asked.append(len(far.database.queries))

    assert statistics.median(asked) == 2, "read without a lock, and written by one statement"


@pytest.mark.parametrize("far", [0.1], indirect=True)
async def test_those_who_come_meanwhile_share_the_next_round_trip(far: FarNode) -> None:
    rooms = [await far.knows_a_room() for _ in range(4)]

    async def five_hundred_join() -> float:
        start = time.monotonic()
        await asyncio.gather(*[far.joins(rooms[number % 4]) for number in range(500)])
        return (time.monotonic() - start) / far.round_trip

    await five_hundred_join()  # a connection's first batch has its statement prepared
    assert await five_hundred_join() < 100, "two batches, where each alone would be five hundred"

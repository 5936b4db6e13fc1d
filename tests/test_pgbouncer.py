"""PgBouncer between the product and PostgreSQL, in both of its modes that make sense."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from coordinator.domain.errors import Unavailable
from coordinator.domain.events import Head
from coordinator.domain.people import Staff
from coordinator.standins.servers import EmbeddedPostgres
from coordinator.store.database import Database
from coordinator.store.interviews import StoredInterviews
from coordinator.store.migrations import migrate
from coordinator.store.room_pages import RoomPages
from coordinator.store.room_writer.commands import Join, Leave
from coordinator.store.room_writer.queue import Writer
from coordinator.store.rooms import Rooms
from tests.harness.cluster import steady_ports
from tests.harness.node import Deployment
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host, everybody_hangs_up, new_room_id
from tests.harness.pgbouncer import PROGRAM, PgBouncer
from tests.store.lanes import POLICY, is_consistent

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="pgbouncer is not installed (apt-get install pgbouncer)"
)

SERVERS = {"session": 20, "transaction": 6}
"""What one node needs at most, of each mode."""


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="coordinator-pooled-"))
    with EmbeddedPostgres(folder, port=steady_ports(1)[0], options=("fsync=off",)) as started:
        yield started
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", params=SERVERS)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pooler(server: EmbeddedPostgres, mode: str) -> Iterator[PgBouncer]:
    """The database behind it is made by `migrate` through it."""
    with PgBouncer(server.url, mode=mode, servers=SERVERS[mode]) as started:
        asyncio.run(migrate(Database(started.url, pooler=mode)))
        yield started


@pytest_asyncio.fixture
async def pooled(pooler: PgBouncer, mode: str) -> AsyncIterator[Database]:
    opened = Database(pooler.url, pooler=mode)
    await opened.open()
    yield opened
    await opened.close()


async def made(database: Database) -> str:
    room_id = new_room_id()
    host = Staff(1, "openid", "hr")
    await Rooms(database).create(room_id=room_id, room_name="n", host_name="h", host=host)
    return room_id


async def test_many_rooms_change_at_once_and_no_statement_fails(pooled: Database) -> None:
    rooms = [await made(pooled) for _ in range(12)]
    writer = Writer(pooled, POLICY, lambda events, replaced: None)
    task = asyncio.create_task(writer.run())
    readers = Rooms(pooled)

    async def use(room_id: str) -> None:
        for number in range(20):
            user = f"guest_{number % 5}"
            joins = Join(room_id=room_id, user_id=user, user_name="n", identity=None)
            await writer.submit(joins)
            assert await readers.load(room_id) is not None
            await readers.events_after(room_id, 0, 100)
            await writer.submit(Leave(room_id=room_id, user_id=user))

    await asyncio.gather(*[use(room_id) for room_id in rooms])
    for room_id in rooms:
        await is_consistent(pooled, room_id)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_our_limits_leak_to_no_other_client(
    pooled: Database, pooler: PgBouncer, mode: str
) -> None:
    await made(pooled)
    for _ in range(10):
        await pooled.fetchval("SELECT 1")
    other = await asyncpg.connect(pooler.url, statement_cache_size=0)
    try:
        assert await other.fetchval("SHOW lock_timeout") == "0"
    finally:
        await other.close()


async def test_what_is_not_there_is_nothing(pooled: Database) -> None:
    """Proven by the same statement: an answer without rows is still an answer."""
    rooms = Rooms(pooled)
    head = Head(1, "e", "2026-01-01T00:00:00.000Z")

    assert await rooms.load("unknown") is None
    assert await rooms.events_after("unknown", 0, 10) == []
    assert await rooms.vanished([("unknown", head)]) == {"unknown"}
    assert [moved.last_seq for moved in await rooms.moved([("unknown", head)])] == [None]
    assert await StoredInterviews(pooled).load("unknown") is None


async def test_a_node_serves_a_hundred_at_once_with_that_many_servers(
    pooler: PgBouncer, mode: str, redis_url: str
) -> None:
    """Presence, too: who hangs up is away."""
    settings = {"DATABASE_POOLER": mode, "PRESENCE_GRACE": "20"}
    with Deployment(pooler.url, redis_url, **settings) as deployment:
        api = Api(await asyncio.to_thread(deployment.node))
        database = Database(pooler.url, pooler=mode)
        await database.open()
        host = await Host.hired(database, api)
        room = await host.creates()
        guests = await asyncio.gather(*[Guest(api).joins(room) for _ in range(100)])
        watching = await host.connects(room)
        leaving = await guests[0].connects()
        await leaving.hangs_up()
        await watching.sees("participant_away")
        assert (await api.get("/health/ready")).status_code == 200
        await everybody_hangs_up()
        await database.close()
        await api.aclose()


@pytest.mark.parametrize("mode", ["transaction"], indirect=True)
async def test_a_pooler_that_moves_to_another_server_writes_nothing_of_the_old_history_there(
    server: EmbeddedPostgres, pooled: Database, pooler: PgBouncer
) -> None:
    """A clone stands for a standby that was promoted; the clients' connections stay open."""
    room = await made(pooled)
    heard: list[str] = []
    pooled.epochs.on_change(heard.append)
    before = await pooled.epochs.check()
    other = Database(pooler.url, pooler="transaction")
    await other.open()
    writer = Writer(pooled, POLICY, lambda events, replaced: None)
    task = asyncio.create_task(writer.run())

    def joins(name: str) -> Join:
        return Join(room_id=room, user_id=f"guest_{name}", user_name=name, identity=None)

    for name in ("a", "b"):
        await writer.submit(joins(name))
    head = (await Rooms(pooled).load(room) or (None,))[0]
    operator = await asyncpg.connect(server.database_url("postgres"))
    await operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                           " WHERE datname = 'coordinator'")  # fmt: skip
    await operator.execute("CREATE DATABASE clone TEMPLATE coordinator")
    await pooler.moves_to("clone")

    try:
        async with asyncio.timeout(patient(10)):
            while True:
                try:
                    joined = await writer.submit(joins("c"))
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
        epoch = await pooled.epochs.check()
        assert epoch != before
        assert epoch in heard
        events = await is_consistent(pooled, room)
        assert [event.epoch for event in events] == [before] * 3 + [epoch]
        assert joined.seq == 4
        assert head is not None
        assert await Rooms(pooled).vanished([(room, head)]) == set()
        with pytest.raises(Unavailable):  # it has not looked since: not shown as the old history
            await RoomPages(other).first(room, kept_since=None)
        page = await RoomPages(other).first(room, kept_since=None)
        assert page is not None
        assert page.count == 4
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await pooler.moves_to("coordinator")
        await pooled.close()
        await other.close()
        await operator.execute("DROP DATABASE clone WITH (FORCE)")
        await operator.close()

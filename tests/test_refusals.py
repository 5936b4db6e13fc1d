"""Postgres refuses in many ways that are nobody's bug: callers are told 503, and it heals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import structlog

from coordinator.domain.errors import Unavailable
from coordinator.domain.people import Staff
from coordinator.standins.servers import EmbeddedPostgres
from coordinator.store.database import Database
from coordinator.store.migrations import migrate
from coordinator.store.room_writer.commands import Join
from coordinator.store.room_writer.queue import Writer
from coordinator.store.rooms import Rooms
from tests.harness.cluster import steady_ports
from tests.harness.people import new_room_id
from tests.harness.promises import starved_seconds
from tests.store.lanes import POLICY

ENDS_ALL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="coordinator-refusals-"))
    with EmbeddedPostgres(folder, port=steady_ports(1)[0], options=("fsync=off",)) as started:
        rules = started.data / "pg_hba.conf"
        rules.write_text("host all app 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        yield started
    shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture
async def operator(server: EmbeddedPostgres) -> AsyncIterator[asyncpg.Connection]:
    """The one who does it, by another database."""
    connection = await asyncpg.connect(server.database_url("postgres"))
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def app(operator: asyncpg.Connection, server: EmbeddedPostgres) -> AsyncIterator[Database]:
    """A product's database of its own, reached by the role `app` with a password."""
    await operator.execute("SELECT pg_reload_conf()")
    with contextlib.suppress(asyncpg.DuplicateObjectError):
        await operator.execute("CREATE ROLE app LOGIN")
    await operator.execute("ALTER ROLE app PASSWORD 'first'")
    await operator.execute("CREATE DATABASE app OWNER app")
    database = Database(f"postgresql://app:first@127.0.0.1:{server.port}/app")
    await migrate(database)
    await database.open()
    yield database
    await database.close()
    await operator.execute("DROP DATABASE app WITH (FORCE)")


@contextlib.asynccontextmanager
async def writing(app: Database) -> AsyncIterator[tuple[Writer, str]]:
    """A running writer and a room."""
    room_id = new_room_id()
    host = Staff(1, "openid", "hr")
    await Rooms(app).create(room_id=room_id, room_name="n", host_name="h", host=host)
    writer = Writer(app, POLICY, lambda events, replaced: None)
    task = asyncio.create_task(writer.run())
    try:
        yield writer, room_id
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def join(room_id: str, name: str = "g") -> Join:
    return Join(room_id=room_id, user_id=f"guest_{name}", user_name=name, identity=None)


REFUSALS = {
    "password rotated": ("ALTER ROLE app PASSWORD 'second'", "ALTER ROLE app PASSWORD 'first'"),
    "login taken away": ("ALTER ROLE app NOLOGIN", "ALTER ROLE app LOGIN"),
    "no connections": (
        "ALTER DATABASE app ALLOW_CONNECTIONS false", "ALTER DATABASE app ALLOW_CONNECTIONS true"
    ),
    "too many connections": (
        "ALTER ROLE app CONNECTION LIMIT 0", "ALTER ROLE app CONNECTION LIMIT -1"
    ),
}  # fmt: skip


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_who_is_not_let_in_says_unavailable_and_comes_back_by_itself(
    app: Database, operator: asyncpg.Connection, refusal: str
) -> None:
    begins, ends = REFUSALS[refusal]
    async with writing(app) as (writer, room_id):
        await operator.execute(begins)
        await operator.execute(ENDS_ALL)
        with structlog.testing.capture_logs() as told:
            for _ in range(5):
                with pytest.raises(Unavailable) as refused:
                    await Rooms(app).head(room_id)
                with pytest.raises(Unavailable):
                    await app.ping()
            with pytest.raises(Unavailable):
                await writer.submit(join(room_id))
        await operator.execute(ends)

        assert refused.value.retry_after == 1
        causes = [line["cause"] for line in told if line["event"] == "postgres_unavailable"]
        assert len(causes) == len(set(causes)) <= 3, "once each: how it ended, what refuses"
        await app.ping()
        assert (await writer.submit(join(room_id))).user_id == "guest_g"


async def test_read_only_is_no_place_to_serve_from(
    app: Database, operator: asyncpg.Connection
) -> None:
    async with writing(app) as (writer, room_id):
        await operator.execute("ALTER DATABASE app SET default_transaction_read_only = on")
        await operator.execute(ENDS_ALL)

        for refused in (app.ping(), writer.submit(join(room_id))):
            with pytest.raises(Unavailable):
                await refused

        await operator.execute("ALTER DATABASE app RESET default_transaction_read_only")
        await operator.execute(ENDS_ALL)
        assert (await writer.submit(join(room_id, "h"))).user_id == "guest_h"


async def raises_in_postgres(app: Database, state: str, *, times: int) -> None:
    """The next events that are written meet an error of this SQLSTATE."""
    await app.execute("CREATE SEQUENCE met")
    await app.execute(
        "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF nextval('met') <= {times} THEN"
        f" RAISE EXCEPTION 'as if' USING ERRCODE = '{state}'; END IF; RETURN NEW; END $$"
    )
    await app.execute(
        "CREATE TRIGGER trouble BEFORE INSERT ON room_events"
        " FOR EACH ROW EXECUTE FUNCTION trouble()"
    )


@pytest.mark.parametrize("state", ["53100", "53200", "58030"])
async def test_a_full_disk_is_unavailable_and_unready_until_something_is_written(
    app: Database, state: str
) -> None:
    async with writing(app) as (writer, room_id):
        await raises_in_postgres(app, state, times=10**9)

        with pytest.raises(Unavailable):
            await writer.submit(join(room_id))
        with pytest.raises(Unavailable):
            await app.ping()

        await app.execute("DROP TRIGGER trouble ON room_events")
        assert (await writer.submit(join(room_id, "h"))).user_id == "guest_h"
        await app.ping()


@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_a_deadlock_is_tried_again_at_once(app: Database, state: str) -> None:
    async with writing(app) as (writer, room_id):
        await raises_in_postgres(app, state, times=2)

        start = time.monotonic()
        assert (await writer.submit(join(room_id))).seq == 2
        assert time.monotonic() - start < 2
        assert len(await Rooms(app).events_after(room_id, 0, 10)) == 2


async def test_a_transaction_that_postgres_took_back_is_done_again(app: Database) -> None:
    await app.execute("CREATE TABLE met (n int)")
    tries = 0

    async def work(connection: Any) -> str:
        nonlocal tries
        tries += 1
        await connection.execute("INSERT INTO met VALUES (1)")
        if tries < 3:
            await connection.execute(
                "DO $$ BEGIN RAISE EXCEPTION 'as if' USING ERRCODE = '40001'; END $$"
            )
        return "done"

    assert await app.in_transaction(work) == "done"
    assert await app.fetchval("SELECT count(*) FROM met") == 1


async def test_a_bad_parameter_is_no_outage(app: Database) -> None:
    with pytest.raises(asyncpg.DataError):
        await app.fetch("SELECT $1::int", "not a number")
    with pytest.raises(asyncpg.PostgresError):
        await app.fetch("SELECT 1 / 0")
    await app.ping()


async def test_many_callers_are_told_in_time_and_the_lease_does_not_wait_for_them(
    app: Database
) -> None:
    """Five hundred slow callers: whoever finds no connection is told within 5 s."""
    line = app.line()

    def now() -> float:
        """Seconds, but those in which this process had no core."""
        return time.monotonic() - starved_seconds(os.getpid())

    async def calls() -> float:
        start = now()
        with contextlib.suppress(Unavailable):
            await app.fetch("SELECT pg_sleep(3)")
        return now() - start

    callers = [asyncio.create_task(calls()) for _ in range(500)]
    await asyncio.sleep(0.2)
    start = now()
    for _ in range(20):
        await line.fetchval("SELECT 1")
        await app.ping()
    assert now() - start < 1.5

    assert max(await asyncio.gather(*callers)) < 5

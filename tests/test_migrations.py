"""Migrations beside nodes that serve: they take as long as they take, and nobody waits for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store import migrations
from coordinator.store.database import Database
from coordinator.store.engine import ENGINE
from coordinator.store.migrations import migrate
from coordinator.store.room_writer.commands import Leave
from tests.harness.patience import patient
from tests.test_refusals import join, writing

DROPS_AND_WAITS = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND query LIKE 'DROP INDEX%' AND wait_event_type = 'Lock'
"""
LONGEST_WAIT = """
    SELECT coalesce(extract(epoch FROM max(clock_timestamp() - waitstart)), 0)::float
    FROM pg_locks WHERE NOT granted
"""


@pytest.fixture
def fresh(lonely_database: Database) -> Database:
    """A database of this test's own, with every migration run."""
    return lonely_database


def migration(name: str, *statements: str, in_transaction: bool = True) -> SimpleNamespace:
    """A module as Piccolo finds them in the folder."""

    async def forwards() -> MigrationManager:
        manager = MigrationManager(
            migration_id=name, app_name="coordinator", description=name,
            wrap_in_transaction=in_transaction,
        )  # fmt: skip

        async def run() -> None:
            for statement in statements:
                await ENGINE.run_ddl(statement)

        manager.add_raw(run)
        return manager

    return SimpleNamespace(forwards=forwards)


@pytest.fixture
def adds(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`adds(name=module)`: a version that has these migrations, too."""
    own = migrations._modules()

    def add(**modules: SimpleNamespace) -> None:
        monkeypatch.setattr(migrations, "_modules", lambda: {**own, **modules})

    return add


@contextlib.asynccontextmanager
async def lock_waits(database: Database) -> AsyncIterator[list[float]]:
    """How long somebody has been waiting for a lock, in seconds of Postgres's clock, looked at
    again and again.
    """
    waits: list[float] = []
    watching = await asyncpg.connect(database.url)

    async def watches() -> None:
        while True:
            waits.append(await watching.fetchval(LONGEST_WAIT))
            await asyncio.sleep(0.02)

    task = asyncio.create_task(watches())
    try:
        yield waits
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        watching.terminate()


async def test_a_long_migration_disturbs_nobody(fresh: Database, adds: Any) -> None:
    """It sleeps for longer than any request may, waits for a table in use, builds an index."""
    adds(
        x1=migration("x1", "SELECT pg_sleep(6)", "CREATE TABLE made_late (n int)"),
        x2=migration("x2", "ALTER TABLE interview_rooms ADD COLUMN later INT"),
        x3=migration(
            "x3", "CREATE INDEX CONCURRENTLY made_later ON room_events (at)",
            "SELECT pg_sleep(3)", in_transaction=False,
        ),
    )  # fmt: skip
    reader = await asyncpg.connect(fresh.url)
    await reader.execute("BEGIN")
    await reader.execute("SELECT FROM interview_rooms LIMIT 1")  # holds up whoever alters it
    said: list[str] = []
    async with writing(fresh) as (writer, room_id), lock_waits(fresh) as waits:
        migrating = asyncio.create_task(migrate(fresh, say=said.append))
        number = 0
        while not migrating.done():
            guest = f"g{number % 4}"
            await writer.submit(join(room_id, guest))
            await writer.submit(Leave(room_id=room_id, user_id=f"guest_{guest}"))
            number += 1
            await asyncio.sleep(0.05)
            if any("in use" in line for line in said):
                await reader.close()

    assert await migrating == ["x1", "x2", "x3"]
    assert max(waits) < 1.5, "whoever needs the table waits as long as the migration does, at most"
    assert "x2: a table is in use, tried again in a moment" in said
    assert said[0] == "x1: running"
    assert said[-1] == "x3: done"


async def test_two_who_migrate_at_once_run_each_migration_once(
    fresh: Database, adds: Any
) -> None:
    """Also where one builds an index concurrently while the other waits for its turn."""
    adds(
        x1=migration("x1", "CREATE TABLE once (n int)", "SELECT pg_sleep(0.5)"),
        x2=migration(
            "x2", "SELECT pg_sleep(0.5)", "CREATE INDEX CONCURRENTLY once_n ON once (n)",
            in_transaction=False,
        ),
    )  # fmt: skip

    async with asyncio.timeout(patient(30)):
        done = await asyncio.gather(*[migrate(fresh) for _ in range(3)])

    assert sorted(name for names in done for name in names) == ["x1", "x2"]
    assert await migrations.is_current(fresh)


async def test_an_index_that_was_left_half_built_is_built_anew(fresh: Database, adds: Any) -> None:
    await fresh.execute("CREATE INDEX half ON room_events (type)")
    await fresh.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'half'::regclass"
    )
    adds(
        x1=migration("x1", "CREATE INDEX CONCURRENTLY IF NOT EXISTS half ON room_events (type)",
                     in_transaction=False),
    )  # fmt: skip

    await migrate(fresh)

    assert await fresh.fetchval(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'half'::regclass"
    )


async def test_an_index_that_was_left_half_built_is_in_nobodys_way(
    fresh: Database, adds: Any
) -> None:
    """Also while somebody reads its table for long, as a backup does."""
    await fresh.execute("CREATE INDEX half ON room_events (type)")
    await fresh.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'half'::regclass"
    )
    adds(x1=migration("x1", "SELECT 1", in_transaction=False))
    reader = await asyncpg.connect(fresh.url)
    await reader.execute("BEGIN")
    await reader.execute("SELECT FROM room_events LIMIT 1")
    async with writing(fresh) as (writer, room_id):
        migrating = asyncio.create_task(migrate(fresh))
        async with asyncio.timeout(patient(20)):
            while not await fresh.fetchval(DROPS_AND_WAITS):  # noqa: ASYNC110  # Postgres's state
                await asyncio.sleep(0.02)
        await writer.submit(join(room_id, "g"))  # whoever waits for the table waits for the reader
        assert not migrating.done()
        await reader.close()
        assert await migrating == ["x1"]


OF_REQUESTS = {
    "default_transaction_isolation": "repeatable read",
    "statement_timeout": "300ms",
    "idle_in_transaction_session_timeout": "300ms",
    "lock_timeout": "50ms",
    "transaction_timeout": "300ms",  # PostgreSQL 17 and newer
}
"""What a database may be set to, for the sake of those who use it."""


async def test_settings_of_the_database_are_none_of_migrations(fresh: Database, adds: Any) -> None:
    name = await fresh.fetchval("SELECT current_database()")
    for setting, value in OF_REQUESTS.items():
        if await fresh.fetchval("SELECT count(*) FROM pg_settings WHERE name = $1", setting):
            await fresh.execute(f'ALTER DATABASE "{name}" SET {setting} = \'{value}\'')
    adds(
        x1=migration("x1", "SELECT pg_sleep(0.5)", "CREATE TABLE made_late (n int)"),
        x2=migration(
            "x2", "SELECT pg_sleep(0.5)",
            "CREATE INDEX CONCURRENTLY made_later ON room_events (at)", in_transaction=False,
        ),
    )  # fmt: skip

    async with asyncio.timeout(patient(20)):
        assert await migrate(fresh) == ["x1", "x2"]


async def test_a_migration_that_fails_changes_nothing_and_is_not_done(
    fresh: Database, adds: Any
) -> None:
    adds(x1=migration("x1", "CREATE TABLE never (n int)", "SELECT 1 / 0"))

    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(fresh)

    assert await fresh.fetchval("SELECT to_regclass('never')") is None
    assert not await migrations.is_current(fresh)

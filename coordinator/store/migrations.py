"""Bringing the schema to the newest version, beside nodes that serve.

Each migration is one transaction that holds the lock of "somebody is migrating": whoever else
migrates polls for it (waiting inside a statement would hold a snapshot, and `CREATE INDEX
CONCURRENTLY` waits for snapshots: both would wait for ever). A migration that says
`wrap_in_transaction=False` builds indexes concurrently: it runs on a second connection while the
first one holds the lock.

None of the limits of requests hold here, and a migration may take as long as it takes. Only its
waiting for locks is short: a statement that waits for a table holds up everybody who comes after
it, so it gives up soon, and the migration is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.apps.migrations.commands.forwards import ForwardsMigrationManager
from piccolo.apps.migrations.tables import Migration

from coordinator.domain.errors import Unavailable
from coordinator.store.database import Database
from coordinator.store.engine import ENGINE
from coordinator.store.piccolo_app import APP_CONFIG

LOCK_WAIT = "300ms"
"""How long a statement of a migration may hold up those that queue behind it."""
LOCK_TRIES = 600
POLL_SECONDS = 0.25

_LOCK = 7_238_114  # any constant: the advisory lock of "somebody is migrating"
# Whatever the role's or the database's settings say. Not every version has every limit of time.
_NO_LIMITS = """
    SELECT set_config(name, '0', {local}) FROM pg_settings WHERE name IN
    ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')
"""
# Any other level would hold a snapshot for as long as the lock is held.
_BEGIN = (
    f"BEGIN ISOLATION LEVEL READ COMMITTED; {_NO_LIMITS.format(local=True)};"
    f" SET LOCAL lock_timeout = '{LOCK_WAIT}'"
)
_BEGIN_OUTSIDE = (
    f"{_NO_LIMITS.format(local=False)};"
    " SET default_transaction_isolation = 'read committed'; SET lock_timeout = 0"
)
_TAKE_LOCK = f"SELECT pg_try_advisory_xact_lock({_LOCK})"

_HALF_BUILT = """
    SELECT indexrelid::regclass::text AS name FROM pg_index
    WHERE NOT indisvalid AND indrelid::regclass::text = ANY($1::text[])
"""

Say = Callable[[str], None]


class SchemaMissing(Exception):
    """The database is not at this version's schema."""


def _silent(_: str) -> None:
    pass


async def migrate(database: Database, *, say: Say = _silent) -> list[str]:
    """Runs the migrations that have not run; their ids. Needs no open pool.

    Safe on every deploy, from several nodes at once, and beside nodes that serve.

    Args:
        say: told of each migration as it begins and ends.

    Raises:
        Unavailable: Postgres is away.
    """
    done = []
    try:
        for name in sorted(_modules()):
            if await _run_once(database, name, say):
                done.append(name)
    except Exception as error:
        translated = database.translated(error)
        if translated is error:
            raise
        raise translated from error
    return done


async def is_current(database: Database) -> bool:
    """True where every migration of this version has run."""
    async with database.connection() as connection:
        return set(_modules()) <= await _have_run(connection)


def _modules() -> dict[str, Any]:
    manager = ForwardsMigrationManager(app_name=APP_CONFIG.app_name)
    modules: dict[str, Any] = manager.get_migration_modules(
        APP_CONFIG.resolved_migrations_folder_path
    )
    return modules


async def _have_run(connection: Any) -> set[str]:
    with ENGINE.on(connection):
        if not await Migration.table_exists().run():
            return set()
        return set(await Migration.get_migrations_which_ran(app_name=APP_CONFIG.app_name))


async def _run_once(database: Database, name: str, say: Say) -> bool:
    """Runs one migration where nobody has; tries again while its locks are not to be had."""
    for attempt in range(LOCK_TRIES):
        try:
            async with _locked(database, say) as connection:
                if name in await _have_run(connection):
                    return False
                say(f"{name}: running" if not attempt else f"{name}: again")
                await _run(database, connection, name)
                say(f"{name}: done")
                return True
        except asyncpg.LockNotAvailableError:
            say(f"{name}: a table is in use, tried again in a moment")
            await asyncio.sleep(POLL_SECONDS * random.uniform(1, 3))
    raise Unavailable("a migration found no moment in which its tables were free")


@contextlib.asynccontextmanager
async def _locked(database: Database, say: Say) -> AsyncIterator[Any]:
    """A transaction that nobody else who migrates has at the same time."""
    connection = await database.connect_plainly()
    try:
        await connection.execute(_BEGIN)
        waited = False
        while not await connection.fetchval(_TAKE_LOCK):
            await connection.execute("ROLLBACK")
            if not waited:
                say("another node is migrating: waiting for it")
            waited = True
            await asyncio.sleep(POLL_SECONDS)
            await connection.execute(_BEGIN)
        yield connection
        await connection.execute("COMMIT")
    finally:
        connection.terminate()


async def _run(database: Database, connection: Any, name: str) -> None:
    with ENGINE.on(connection):
        creating = Migration.create_table(if_not_exists=True)
        await creating.run()  # type: ignore[no-untyped-call]  # Piccolo's
    manager = await _modules()[name].forwards()
    assert isinstance(manager, MigrationManager)
    with contextlib.redirect_stdout(io.StringIO()):  # Piccolo prints as it goes
        if manager.wrap_in_transaction:
            with ENGINE.on(connection):
                await _run_manager(manager)
        else:
            await _run_outside(database, manager)
    with ENGINE.on(connection):
        await Migration.insert(Migration(name=name, app_name=APP_CONFIG.app_name)).run()


async def _run_manager(manager: MigrationManager) -> None:
    run: Callable[[], Awaitable[None]] = manager.run
    await run()


async def _run_outside(database: Database, manager: MigrationManager) -> None:
    """On a second connection, outside of any transaction. What it left half-done, killed before
    its end, is done anew.
    """
    other = await database.connect_plainly()
    try:
        if not database.is_pooled:  # there the session is another's, too
            await other.execute(_BEGIN_OUTSIDE)
        tables = [table._meta.tablename for table in APP_CONFIG.table_classes]
        for index in await other.fetch(_HALF_BUILT, tables):
            await other.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index['name']}")
        with ENGINE.on(other):
            await _run_manager(manager)
    finally:
        other.terminate()

"""The connection to Postgres: one pool, one transaction of our own, one word for "it is away".

Piccolo's quiet queries and the prepared SQL of the hot paths share Piccolo's asyncpg pool. Nobody
opens a transaction but `Database.transaction`: it refuses nesting, and always gives its connection
back.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import asyncpg
from piccolo.apps.migrations.commands.forwards import ForwardsMigrationManager
from piccolo.apps.migrations.tables import Migration

import piccolo_conf
from coordinator.domain.errors import Unavailable
from coordinator.postgres_url import parse_postgres_url
from coordinator.store.connect import Connector
from coordinator.store.engine import Engine
from coordinator.store.piccolo_app import APP_CONFIG

COMMAND_SECONDS = 4.0
ACQUIRE_SECONDS = 4.0
"""How long one waits for a connection at most: so that a silent host leaves time for the next."""
POOL_SIZE = 16

SESSION = {
    # A node that is frozen while it holds a room's row must not hold the room up:
    # Postgres ends its transaction after 2 s.
    "idle_in_transaction_session_timeout": "2s",
    "lock_timeout": "2s",
    "statement_timeout": "5s",
    "application_name": "coordinator",
}

_MIGRATION_LOCK = 7_238_114  # any constant: the advisory lock of "somebody is migrating"

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.TooManyConnectionsError,
    asyncpg.exceptions.QueryCanceledError,
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
)
"""What asyncpg raises when Postgres is gone, going, coming, or too slow."""

_inside: ContextVar[bool] = ContextVar("inside a transaction", default=False)


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Goes back to the pool as it is: our transactions end themselves, resetting costs a trip."""

    def get_reset_query(self) -> str:
        return ""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns every way in which Postgres can be away into `Unavailable`."""
    try:
        yield
    except AWAY as error:
        raise Unavailable(retry_after=1) from error


def _options() -> dict[str, Any]:
    return {
        "command_timeout": COMMAND_SECONDS,
        "server_settings": SESSION,
        "connection_class": _Connection,
    }


class Database:
    """One deployment's Postgres. Safe to use from many tasks.

    Every method raises `Unavailable` where Postgres is away; the pool heals by itself when it
    returns.
    """

    def __init__(self, url: str) -> None:
        """Does no I/O.

        Raises:
            UrlError: `url` cannot be read.
        """
        self.url = url
        self._connect = Connector(parse_postgres_url(url))
        self.engine = Engine(self._connect, _options())
        tables: list[Any] = [*APP_CONFIG.table_classes, Migration]
        for table in tables:
            table._meta.db = self.engine

    async def open(self) -> None:
        """Connects.

        Raises:
            Unavailable: it cannot.
        """
        with translated():
            # No floor: asyncpg would keep it up by itself, with a traceback for each try.
            await self.engine.start_connection_pool(min_size=0, max_size=POOL_SIZE)
        async with self.connection():
            pass  # it can be reached

    async def close(self) -> None:
        """Closes the pool within 1 s, by force where a connection does not end."""
        pool = self.engine.pool
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), 1)
        except AWAY:
            pool.terminate()
        self.engine.pool = None

    @property
    def _pool(self) -> Any:
        if self.engine.pool is None:
            raise Unavailable
        return self.engine.pool

    async def connect(self) -> Any:
        """A connection outside of the pool, the caller's own to close (the writer keeps one)."""
        with translated():
            return await self._connect(**_options())

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A pooled connection, outside of any transaction.

        One whose query was given up is ended at once: the pool would first wait for the server to
        confirm that, and lose a cancellation on the way.
        """
        pool = self._pool
        with translated():
            connection = await pool.acquire(timeout=ACQUIRE_SECONDS)
            try:
                yield connection
            except (asyncio.CancelledError, *AWAY):
                connection.terminate()
                raise
            finally:
                await pool.release(connection)

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        """All rows of one prepared statement."""
        async with self.connection() as connection:
            rows: list[Any] = await connection.fetch(sql, *values)
            return rows

    async def fetchrow(self, sql: str, *values: Any) -> Any:
        """The first row, or None."""
        async with self.connection() as connection:
            return await connection.fetchrow(sql, *values)

    async def fetchval(self, sql: str, *values: Any) -> Any:
        """The first column of the first row, or None."""
        async with self.connection() as connection:
            return await connection.fetchval(sql, *values)

    async def execute(self, sql: str, *values: Any) -> str:
        """Runs one statement; its command tag (`UPDATE 1`)."""
        async with self.connection() as connection:
            tag: str = await connection.execute(sql, *values)
            return tag

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """A transaction on a connection of the pool: commits at the end, rolls back on any error.

        No task is started, nothing is published and no HTTP is spoken inside one.

        Raises:
            RuntimeError: inside another transaction of the same task.
            Unavailable: Postgres is away. Where that was at COMMIT it may have been carried out.
        """
        if _inside.get():
            raise RuntimeError("transactions do not nest")
        token = _inside.set(True)
        try:
            async with self.connection() as connection:
                await connection.execute("BEGIN")
                try:
                    yield connection
                    await connection.execute("COMMIT")
                except (asyncio.CancelledError, *AWAY):
                    raise  # the connection is ended, and the transaction with it
                except BaseException:
                    await _rollback(connection)
                    raise
        finally:
            _inside.reset(token)

    async def migrate(self) -> list[str]:
        """Brings the schema to the newest version, in one transaction; the ids that it ran.

        Safe from several nodes at once: they queue on an advisory lock. Needs no open pool.
        """
        piccolo_conf.DB = self.engine  # Piccolo's migrations look their engine up there
        with translated():
            connection = await self._connect(command_timeout=120)
        # The lock is held by a session of its own, so that no time limit touches it.
        try:
            with translated():
                await connection.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)
            return await self._run_migrations()
        finally:
            await connection.close(timeout=2)

    async def _run_migrations(self) -> list[str]:
        with translated(), contextlib.redirect_stdout(io.StringIO()) as printed:
            before = set(await _migrations_run())
            async with self.engine.transaction():
                manager = ForwardsMigrationManager(app_name=APP_CONFIG.app_name)
                await manager.create_migration_table()
                result = await manager.run_migrations(APP_CONFIG)
            if not result.success:
                raise RuntimeError(f"the migrations failed:\n{printed.getvalue()}")
            return sorted(set(await _migrations_run()) - before)

    async def schema_is_current(self) -> bool:
        """True where every migration of this version has run."""
        manager = ForwardsMigrationManager(app_name=APP_CONFIG.app_name)
        modules = manager.get_migration_modules(APP_CONFIG.resolved_migrations_folder_path)
        with translated():
            return set(modules) <= set(await _migrations_run())


async def _migrations_run() -> list[str]:
    if not await Migration.table_exists():
        return []
    names: list[str] = await Migration.get_migrations_which_ran(app_name=APP_CONFIG.app_name)
    return names


async def _rollback(connection: Any) -> None:
    """Rolls back, or drops the connection where that cannot be had: nobody else gets it half-way.
    """
    try:
        await asyncio.wait_for(asyncio.shield(connection.execute("ROLLBACK")), 2)
    except (*AWAY, asyncpg.PostgresError, asyncio.CancelledError):
        connection.terminate()

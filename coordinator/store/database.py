"""The connection to Postgres: a pool, lines kept for one purpose, a transaction of our own.

Piccolo's queries (`run`) and prepared SQL (`fetch` …) share the pool. What a node lives by has
connections of its own (`line`), so that no number of callers keeps it from its lease. Nobody opens
a transaction but `Database.transaction`: it refuses nesting, and always gives its connection back.

A query that is given up (too slow, its caller gone) ends its connection, and Postgres is not asked
to cancel it: while a COMMIT waits for a synchronous standby, a cancel would end the wait and show
everybody what may yet be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import asyncpg
import structlog

from coordinator.domain.errors import Unavailable
from coordinator.postgres_url import parse_postgres_url
from coordinator.store import outages
from coordinator.store.connect import Connector
from coordinator.store.epochs import Epochs
from coordinator.store.line import PATIENCE_SECONDS, Line, Queries
from coordinator.store.pool import Pool

log = structlog.get_logger()

T = TypeVar("T")

POOL_SIZE = 11
"""A node keeps up to 20 connections: these, the writer's, and the lines of the lease, the judge,
the duties, staff, rooms, small rooms (two) and health."""
POOLED_SIZE = 3
"""Connections of the pool behind a pooler in transaction mode: a node uses at most six at once."""
MOST_WAITING = 2_000
"""Callers that wait for a connection; beyond it they are told at once."""
TRIES = 3
REFUSED_SECONDS = 5.0
"""How long one refusal to write (disk full) counts, unless something has been written since."""
QUIET_SECONDS = 60.0
"""A cause that has not been met for so long is told to the log anew."""
MOST_CAUSES = 100
DOUBT_SECONDS = 2.0

# A node that is frozen while it holds a room's row must not hold the room up: Postgres ends its
# transaction after 2 s. Set after connecting: PgBouncer knows no such parameters at the start.
SESSION = {
    "idle_in_transaction_session_timeout": "2s",
    "lock_timeout": "2s",
    "statement_timeout": "5s",
}
# What a role or a database may be set to for others' sake: whoever locks a row reads what the one
# before it has written, and a connection that waits for its next query is no forgotten one.
_OURS = {"default_transaction_isolation": "read committed", "idle_session_timeout": "0"}
# Plans are kept, and one that was made while a table was small reads all of it until the next
# ANALYZE, a minute and thousands of rows later. Without JIT: what cannot be had by an index seems
# so dear before PostgreSQL 18 that it would be compiled. And there is one plan from the first time
# on: else the first five times of each statement plan it anew, which takes longer than it runs.
BY_INDEX = {"enable_seqscan": "off", "jit": "off", "plan_cache_mode": "force_generic_plan"}
_SET_BY_INDEX = "SELECT " + ", ".join(
    f"set_config('{name}', '{value}', false)" for name, value in BY_INDEX.items()
)
# Where the server's own is off, a crash would lose what clients were told, and tell its seq again.
_DURABLE = """
    CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
    ELSE current_setting('synchronous_commit') END
"""
_SET_SESSION = "SELECT " + ", ".join(
    [
        *(f"set_config('{name}', '{value}', false)" for name, value in (SESSION | _OURS).items()),
        f"set_config('synchronous_commit', {_DURABLE}, false)",
    ]
)
BEGIN = "BEGIN"
BEGIN_POOLED = "; ".join(
    [
        "BEGIN ISOLATION LEVEL READ COMMITTED",
        *(f"SET LOCAL {name} = '{value}'" for name, value in SESSION.items()),
    ]
)

_inside: ContextVar[bool] = ContextVar("inside a transaction", default=False)


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Ends where a query on it is given up."""

    def _cancel_current_command(self, waiter: Any, cancel_waiter: Any = None) -> None:
        self._loop.call_soon(self.terminate)


class Database(Queries):
    """One deployment's Postgres. Safe to use from many tasks.

    Every method raises `Unavailable` where Postgres cannot serve (`outages.is_outage`), and tells
    the cause to the log once; the pool heals by itself.

    Attributes:
        epochs: which history it is in.
        is_pooled: a pooler in transaction mode stands between (`DATABASE_POOLER=transaction`).
    """

    def __init__(self, url: str, *, pooler: str = "session") -> None:
        """Does no I/O.

        Raises:
            UrlError: `url` cannot be read.
        """
        self.url = url
        self._connect = Connector(parse_postgres_url(url))
        self.is_pooled = pooler == "transaction"
        self.begin = BEGIN_POOLED if self.is_pooled else BEGIN
        self.epochs = Epochs(self.connection)
        self.epochs.on_change(self._leave_history)
        self._pool: Pool | None = None
        self._waiting = 0
        self._causes: dict[str, float] = {}
        self._is_troubled = False
        self._refused_at = float("-inf")
        self._doubted_at = float("-inf")
        self._lines: list[Line] = []
        self._ping = self.line()

    async def open(self) -> None:
        """Connects.

        Raises:
            Unavailable: it cannot.
        """
        self._pool = Pool(self._connect_ready, POOLED_SIZE if self.is_pooled else POOL_SIZE)
        async with self.connection():
            pass  # it can be reached

    async def close(self) -> None:
        """Closes all connections within 1 s, by force where one does not end."""
        for line in self._lines:
            line.close()
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(1):
                await pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pool.terminate()

    def options(self) -> dict[str, Any]:
        """asyncpg's, beside where to connect to."""
        cache = {"statement_cache_size": 0} if self.is_pooled else {}
        return {
            "server_settings": {"application_name": "coordinator"},
            "connection_class": _Connection,
            **cache,
        }

    async def connect_plainly(self) -> Any:
        """A connection without our limits and without a proof of its history: for migrations."""
        return await self._connect(**self.options())

    async def _connect_ready(self, *, by_index: bool = False) -> Any:
        keeps_plans = by_index and not self.is_pooled
        kept = {"max_cached_statement_lifetime": 0} if keeps_plans else {}
        connection = await self._connect(**self.options(), **kept)
        try:
            await self._begin_session(connection)
            if keeps_plans:
                await connection.fetch(_SET_BY_INDEX)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _begin_session(self, connection: Any) -> None:
        """Each new connection: our limits, and the proof of its history."""
        if not self.is_pooled:
            await connection.fetch(_SET_SESSION)
        await self.epochs.prove(connection)

    def _leave_history(self, epoch: str) -> None:
        """Ends the connections that were made to another history."""
        for line in self._lines:
            line.close()
        if self._pool is not None:
            self._pool.expire()

    def _doubt_the_others(self) -> None:
        """A query was not answered: connections to the same server may hang, too, so none of them
        is lent again. (Each would cost a caller all its patience, where a primary is frozen.)
        """
        now = time.monotonic()
        if self._pool is not None and now - self._doubted_at > DOUBT_SECONDS:
            self._doubted_at = now
            self._pool.expire()

    async def connect(self) -> Any:
        """A connection outside of the pool, the caller's own to close (the writer keeps one).

        Rows are found by index, since what is asked over such a connection is asked by key. Behind
        a pooler in transaction mode no plans are kept, and PostgreSQL chooses for each query.
        """
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._connect_ready(by_index=True)
        except Exception as error:
            raise self.translated(error) from error

    def line(self, *, is_vital: bool = False) -> Line:
        """A connection for one purpose, made when it is first needed.

        Behind a pooler in transaction mode connections are few: there those that are not vital (the
        lease is) are one.
        """
        if self.is_pooled and not is_vital and self._lines:
            return self._lines[0]
        line = Line(self)
        self._lines.append(line)
        return line

    # -- errors -------------------------------------------------------------------------------

    def translated(self, error: BaseException) -> BaseException:
        """`Unavailable` for whatever means that Postgres cannot serve; the log hears why, once.

        Other errors are given as they are.
        """
        if isinstance(error, Unavailable) or not outages.is_outage(error):
            return error
        self.note_outage(error)
        return Unavailable(retry_after=1)

    def note_outage(self, error: BaseException) -> None:
        """Tells the log what keeps Postgres from serving, once for each cause."""
        cause, now = outages.cause(error), time.monotonic()
        if outages.is_refusal(error):
            self._refused_at = now
        else:
            self._is_troubled = True
        if now - self._causes.get(cause, float("-inf")) > QUIET_SECONDS:
            log.warning("postgres_unavailable", cause=cause)
        if len(self._causes) > MOST_CAUSES:
            self._causes.clear()
        self._causes[cause] = now

    def note_success(self) -> None:
        """Postgres has served."""
        if self._is_troubled:
            self._is_troubled = False
            log.info("postgres_serves_again")

    def note_written(self) -> None:
        """Something has been written: a refusal of writing is over."""
        self._refused_at = float("-inf")

    async def ping(self) -> None:
        """Whether Postgres serves this node, asked on a line of its own.

        Raises:
            Unavailable: it does not answer, is read-only, or has just refused to write.
        """
        if time.monotonic() - self._refused_at < REFUSED_SECONDS:
            raise Unavailable(retry_after=1)
        if await self._ping.fetchval("SHOW transaction_read_only") == "on":
            self.note_outage(asyncpg.ReadOnlySQLTransactionError("Postgres is read-only"))
            raise Unavailable(retry_after=1)

    # -- queries ------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A pooled connection, outside of any transaction, for `PATIENCE_SECONDS` in all."""
        pool = self._pool
        if pool is None or self._waiting >= MOST_WAITING:
            raise Unavailable(retry_after=1)
        connection = None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                self._waiting += 1
                try:
                    connection = await pool.acquire()
                finally:
                    self._waiting -= 1
                yield connection
            self.note_success()
        except (Exception, asyncio.CancelledError) as error:
            is_away = isinstance(error, asyncio.CancelledError) or outages.is_outage(error)
            if connection is not None and is_away:
                connection.terminate()  # nobody is lent it again
                if isinstance(error, TimeoutError):
                    self._doubt_the_others()
                if outages.is_stale_plan(error):
                    pool.expire_like(connection)
            translated = self.translated(error)
            if translated is error:
                raise
            raise translated from error
        finally:
            if connection is not None:
                pool.release(connection)

    async def fetch_told(
        self, sql: str, *values: Any, key: str, line: Line | None = None
    ) -> list[Any]:
        """Rows that clients are told, from a history that is proven to be `epochs.current`.

        A direct connection has proven it once. Behind a pooler in transaction mode the statement
        does; a row whose `key` is null is not of the answer there.

        Args:
            line: asked in place of the pool.
        """
        queries: Queries = line or self
        if not self.is_pooled or self.epochs.is_hidden:
            return await queries.fetch(sql, *values)
        rows = await queries.fetch(self.epochs.fenced(sql), *values)
        await self._note(rows[0]["proven_epoch"])
        return [row for row in rows if row[key] is not None]

    async def _note(self, epoch: str | None) -> None:
        if epoch != self.epochs.current:
            await self.epochs.check()
            raise Unavailable(retry_after=1)

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
                await connection.execute(self.begin)
                try:
                    if self.is_pooled:
                        await self.epochs.prove(connection)
                    yield connection
                    await connection.execute("COMMIT")
                except (Exception, asyncio.CancelledError) as error:
                    if isinstance(error, asyncio.CancelledError) or outages.is_outage(error):
                        raise  # the connection is ended, and the transaction with it
                    await _rollback(connection)
                    raise
        finally:
            _inside.reset(token)

    @contextlib.asynccontextmanager
    async def proven(self) -> AsyncIterator[Any]:
        """A connection whose statements all reach the one server that has proven its history.

        A direct connection has; behind a pooler in transaction mode it takes a transaction.
        """
        async with self.transaction() if self.is_pooled else self.connection() as connection:
            yield connection

    async def in_transaction(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """`work(connection)` in a transaction, done again where Postgres took it back for another's
        sake (a deadlock, a serialization failure).

        Raises:
            Unavailable: as of `transaction`.
        """
        for _ in range(TRIES - 1):
            try:
                async with self.transaction() as connection:
                    return await work(connection)
            except Unavailable as error:
                if not outages.is_worth_repeating(error.__cause__ or error):
                    raise
        async with self.transaction() as connection:
            return await work(connection)


async def _rollback(connection: Any) -> None:
    """Rolls back, or drops the connection where that cannot be had: nobody else gets it half-way.
    """
    try:
        async with asyncio.timeout(2):
            await asyncio.shield(connection.execute("ROLLBACK"))
    except (Exception, asyncio.CancelledError) as error:
        connection.terminate()
        if isinstance(error, asyncio.CancelledError):
            raise

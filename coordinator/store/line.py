"""Asking Postgres: by SQL, by Piccolo, and a line, one connection kept for one purpose."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from piccolo.query import Query

from coordinator.store import outages
from coordinator.store.engine import run_on

PATIENCE_SECONDS = 4.5
"""How long a caller waits for a connection and for its queries, together."""


class Queries(ABC):
    """One statement on a connection of its own choice. Raises `Unavailable`."""

    @abstractmethod
    def connection(self) -> AbstractAsyncContextManager[Any]:
        """A connection, outside of any transaction, for `PATIENCE_SECONDS` in all."""

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        """All rows."""
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
        """Runs a statement; its command tag (`UPDATE 1`)."""
        async with self.connection() as connection:
            tag: str = await connection.execute(sql, *values)
            return tag

    async def run(self, query: Query[Any, Any]) -> Any:
        """Runs one of Piccolo's queries; its answer as Piccolo gives it."""
        async with self.connection() as connection:
            return await run_on(connection, query)


class ConnectionSource(Protocol):
    """Whoever makes connections: the `Database`."""

    async def connect(self) -> Any:
        """A new connection, the caller's own."""

    def translated(self, error: BaseException) -> BaseException:
        """`Unavailable` for an outage."""

    def note_success(self) -> None:
        """Postgres has served."""


class Line(Queries):
    """One connection that nobody else uses: its callers wait for each other and for nobody else."""

    def __init__(self, source: ConnectionSource) -> None:
        self._source = source
        self._connection: Any = None
        self._free = asyncio.Lock()

    def close(self) -> None:
        """Ends the connection, also under a query; the next query makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._free:
                try:
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await self._source.connect()
                    yield self._connection
                except (Exception, asyncio.CancelledError) as error:
                    if isinstance(error, asyncio.CancelledError) or outages.is_outage(error):
                        self.close()
                    raise
            self._source.note_success()
        except Exception as error:
            translated = self._source.translated(error)
            if translated is error:
                raise
            raise translated from error

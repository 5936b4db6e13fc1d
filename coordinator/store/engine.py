"""Piccolo's engine: one for all tables, which runs each query on the connection lent to it.

Piccolo finds an engine by the table's class only, and there may be several `Database`s in one
process. So the installed engine holds none: `Queries.run` lends it a connection for one query
(a context variable: other tasks do not see it). Piccolo's own commands lend nothing; then it
connects to `DATABASE_URL`, each time anew.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

from piccolo.engine.postgres import PostgresEngine
from piccolo.query import Query
from piccolo.querystring import QueryString

from coordinator.postgres_url import parse_postgres_url
from coordinator.store.connect import Connector

_lent: ContextVar[Any] = ContextVar("the connection lent to Piccolo", default=None)


class LendingEngine(PostgresEngine):
    """Runs queries on the lent connection. Makes no connection in its constructor."""

    async def check_version(self) -> None:
        """Left to `coordinator check`: making an object is no reason to open a connection."""

    async def prep_database(self) -> None:
        """No extension is needed."""

    @contextlib.contextmanager
    def on(self, connection: Any) -> Iterator[None]:
        """Within it, this task's Piccolo queries run on `connection`."""
        token = _lent.set(connection)
        try:
            yield
        finally:
            _lent.reset(token)

    async def get_new_connection(self) -> Any:
        """For Piccolo's own commands: `piccolo migrations …`, `piccolo sql_shell run`."""
        url = os.environ.get("DATABASE_URL", "postgresql:///coordinator")
        return await Connector(parse_postgres_url(url))()

    async def run_querystring(self, querystring: QueryString, in_pool: bool = True) -> Any:
        connection = _lent.get()
        if connection is None:
            return await super().run_querystring(querystring, in_pool)
        query, values = querystring.compile_string(engine_type=self.engine_type)
        return await connection.fetch(query, *values)

    async def run_ddl(self, ddl: str, in_pool: bool = True) -> Any:
        connection = _lent.get()
        if connection is None:
            return await super().run_ddl(ddl, in_pool)
        return await connection.fetch(ddl)

    def transaction(self, allow_nested: bool = True) -> Any:
        """Of the lent connection: part of the transaction that its lender has begun."""
        if _lent.get() is None:
            return super().transaction(allow_nested)
        return _begun_by_the_lender()


@contextlib.asynccontextmanager
async def _begun_by_the_lender() -> AsyncIterator[None]:
    yield


ENGINE = LendingEngine(config={})


async def run_on(connection: Any, query: Query[Any, Any]) -> Any:
    """Runs one of Piccolo's queries on this connection; its answer as Piccolo gives it."""
    with ENGINE.on(connection):
        return await query.run()


NOW = QueryString("clock_timestamp()")
"""Postgres's clock, as a value in Piccolo's queries: the node's own decides nothing."""

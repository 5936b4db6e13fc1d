"""Plans that are kept: none that was made while a table was small reads all of it later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from coordinator.store.database import Database
from coordinator.store.room_writer import newcomers, sql

BIG = ("interview_rooms", "interview_participants", "connections", "away_connections",
       "room_events")  # fmt: skip
SHAPES = [
    sql.StatementShape(
        is_optimistic=is_optimistic, is_fenced=False, is_lone=is_lone, has_people=True,
        has_opened=True, has_closed=True, has_marked=True, has_unmarked=True,
        has_closed_marked=True, has_events=True, has_node=is_optimistic,
    )
    for is_optimistic in (False, True)
    for is_lone in (False, True)
]  # fmt: skip


@pytest_asyncio.fixture
async def connection(lonely_database: Database) -> AsyncIterator[Any]:
    """The writer's, to tables that are empty and were never analyzed."""
    connected = await lonely_database.connect()
    yield connected
    connected.terminate()


async def _kept_plan(connection: Any, statement: str) -> str:
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute(f"PREPARE kept AS {statement}")
    kinds = await connection.fetchval(
        "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'kept'"
    )
    rows = await connection.fetch(f"EXPLAIN EXECUTE kept ({', '.join(['NULL'] * kinds)})")
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("statement", [
    sql.LOCK, sql.EXISTING, sql.LOAD_PEOPLE, sql.EMPTY_ENDED_ROOM,
    *map(sql.write_statement, SHAPES), *newcomers.STATEMENTS.values(),
])  # fmt: skip
async def test_the_writer_finds_what_it_asks_for_by_an_index(
    connection: Any, statement: str
) -> None:
    plan = await _kept_plan(connection, statement)

    assert not [table for table in BIG if f"Seq Scan on {table}" in plan], plan

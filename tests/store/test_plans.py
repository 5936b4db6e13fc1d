"""Plans that are kept: none that was made while a table was small reads all of it later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from coordinator.store.database import Database
from coordinator.store.room_lists import listed_rooms
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
    sql.LOCK, sql.EXISTING, sql.LOAD_PEOPLE, sql.READ, sql.EMPTY_ENDED_ROOM,
    *map(sql.write_statement, SHAPES), *newcomers.STATEMENTS.values(),
])  # fmt: skip
async def test_the_writer_finds_what_it_asks_for_by_an_index(
    connection: Any, statement: str
) -> None:
    plan = await _kept_plan(connection, statement)

    assert not [table for table in BIG if f"Seq Scan on {table}" in plan], plan


class ExplainingDatabase(Database):
    """Notes how each query was carried out."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.plans: list[str] = []

    async def fetch(self, query: str, *values: Any) -> list[Any]:
        rows = await super().fetch(f"EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) {query}", *values)
        self.plans.append("\n".join(row[0] for row in rows))
        return await super().fetch(query, *values)


@pytest.mark.parametrize("limit", [10, 20, 100])
@pytest.mark.parametrize("wanted", [
    {"host": 7, "status": None}, {"host": None, "status": "active"}
], ids=["a host's", "active"])  # fmt: skip
async def test_a_page_of_rooms_is_read_along_an_index_also_without_statistics(
    lonely_database: Database, wanted: dict[str, Any], limit: int
) -> None:
    await lonely_database.execute("ALTER TABLE interview_rooms SET (autovacuum_enabled = off)")
    await lonely_database.execute(
        """
        INSERT INTO interview_rooms (room_id, room_name, host_id, host_name, status, created_at)
        SELECT 'room_' || n, 'name', 7, 'host', 'active', now() - n * interval '1 s'
        FROM generate_series(1, 5000) AS n
        """
    )
    database = ExplainingDatabase(lonely_database.url)
    await database.open()
    total, page = await listed_rooms(database, part=None, limit=limit, offset=0, **wanted)
    await database.close()

    assert total == 5000
    assert [room.room_id for room in page] == [f"room_{n}" for n in range(1, limit + 1)]
    (plan,) = database.plans
    assert "Index Scan" in plan.split("Limit", 1)[1]
    assert "Bitmap" not in plan.split("Limit", 1)[1], plan


async def test_what_is_asked_by_key_is_planned_once(connection: Any) -> None:
    """Without it each statement is planned anew for its first five times."""
    for name in ("a", "b"):
        await connection.fetch(sql.EXISTING, [name])

    plans = await connection.fetchrow(
        "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = $1",
        sql.EXISTING,
    )
    assert (plans["generic_plans"], plans["custom_plans"]) == (2, 0)

"""Sessions of a node, on a database that is set up for others."""

from __future__ import annotations

import asyncio
from typing import Any

from coordinator.store.database import Database
from tests.harness.patience import patient
from tests.test_refusals import join, writing


async def test_settings_of_the_database_are_none_of_a_nodes_sessions(
    lonely_database: Database,
) -> None:
    """Neither its level of isolation nor its end of idle sessions."""
    database = lonely_database
    name = await database.fetchval("SELECT current_database()")
    await database.execute(
        f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable'
    )
    await database.execute(f"ALTER DATABASE \"{name}\" SET idle_session_timeout = '100ms'")
    node = Database(database.url)
    await node.open()
    try:
        for queries in (node, node.line()):
            process = await queries.fetchval("SELECT pg_backend_pid()")
            await asyncio.sleep(patient(0.5))
            assert await queries.fetchval("SELECT pg_backend_pid()") == process
            level = await queries.fetchval("SHOW transaction_isolation")
            assert level == "read committed"
    finally:
        await node.close()


async def test_a_column_that_changes_its_type_is_no_failure(lonely_database: Database) -> None:
    """Statements were prepared before: neither callers nor the writer hear of it."""
    database = lonely_database

    async def read(connection: Any) -> list[Any]:
        rows: list[Any] = await connection.fetch("SELECT room_name FROM interview_rooms")
        await asyncio.sleep(0.05)
        return rows

    async with writing(database) as (writer, room_id):
        for kind in ("varchar(300)", "text"):
            for name in ("a", "b"):  # the second time its statements are prepared
                await writer.submit(join(room_id, name + kind[0]))
            await asyncio.gather(*[database.in_transaction(read) for _ in range(6)])
            await database.execute(
                f"ALTER TABLE interview_rooms ALTER COLUMN room_name TYPE {kind}"
            )
            await writer.submit(join(room_id, "c" + kind[0]))
            for _ in range(6):
                assert await database.in_transaction(read)

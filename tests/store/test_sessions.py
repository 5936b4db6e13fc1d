"""Sessions of a node, on a database that is set up for others."""

from __future__ import annotations

import asyncio

from coordinator.store.database import Database
from tests.harness.patience import patient


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

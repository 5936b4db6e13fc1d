"""A database of each file's own: no node judges, purges or sends what its tests write there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from coordinator.store.database import Database
from tests.harness import databases
from tests.store.lanes import WriterLane, created, running


@pytest_asyncio.fixture(scope="module")
async def database() -> AsyncIterator[Database]:
    async with databases.own_database("store") as opened:
        yield opened


@pytest.fixture(scope="module")
def database_url(database: Database) -> str:
    return database.url


@pytest_asyncio.fixture
async def lanes(
    database: Database, database_url: str
) -> AsyncIterator[tuple[WriterLane, WriterLane]]:
    """Two nodes' writers on one database."""
    async with AsyncExitStack() as stack:
        yield (
            await stack.enter_async_context(running(database, database_url)),
            await stack.enter_async_context(running(database, database_url)),
        )


@pytest_asyncio.fixture
async def lane(lanes: tuple[WriterLane, WriterLane]) -> WriterLane:
    return lanes[0]


@pytest_asyncio.fixture
async def room(database: Database, lane: WriterLane) -> str:
    """A room that the first lane remembers."""
    room_id = await created(database)
    await lane.learns(room_id)
    return room_id

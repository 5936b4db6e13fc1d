"""A database of each file's own: no node judges, purges or sends what its tests write there."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from coordinator.store.database import Database
from tests.harness import databases


@pytest_asyncio.fixture(scope="module")
async def database() -> AsyncIterator[Database]:
    async with databases.own_database("store") as opened:
        yield opened


@pytest.fixture(scope="module")
def database_url(database: Database) -> str:
    return database.url

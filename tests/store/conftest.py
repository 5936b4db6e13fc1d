"""A database of each file's own: no node judges, purges or sends what its tests write there."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import pytest_asyncio

from coordinator.store.database import Database
from coordinator.store.migrations import migrate


@pytest_asyncio.fixture(scope="module")
async def database() -> AsyncIterator[Database]:
    """With every migration run, and open."""
    url = os.environ["TEST_DATABASE_URL"]
    name = f"coordinator_store_{secrets.token_hex(4)}"
    server = await asyncpg.connect(url)
    await server.execute(f"CREATE DATABASE {name}")
    opened = Database(urlunsplit(urlsplit(url)._replace(path=f"/{name}")))
    await migrate(opened)
    await opened.open()
    yield opened
    await opened.close()
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close()


@pytest.fixture(scope="module")
def database_url(database: Database) -> str:
    return database.url

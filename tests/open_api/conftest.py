"""The open API on real Postgres: an application, a caller who sees everything, a candidate."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from litestar import Litestar

from coordinator.standins.seed import seed
from coordinator.store.database import Database
from tests.open_api.server import Published, app_with, calling


@pytest_asyncio.fixture(scope="session")
async def published() -> Published:
    return Published()


@pytest_asyncio.fixture(scope="session")
async def app(database: Database, redis_url: str, published: Published) -> Litestar:
    await seed(database)
    return app_with(database, redis_url, published)


@pytest_asyncio.fixture(scope="session")
async def coze(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """A caller with a key that sees everything."""
    async with calling(app) as client:
        yield client


@pytest.fixture
def user() -> str:
    """A candidate that no other test has: base64, as Coze's sys_uuid is."""
    return secrets.token_hex(8) + "/+=="

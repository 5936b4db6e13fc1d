"""A node that may send to this machine, an admin, and a back end that listens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from coordinator.store.database import Database
from tests.harness.databases import own_database
from tests.harness.node import Deployment, NodeProcess
from tests.harness.people import Api, Host
from tests.harness.receiver import SETTINGS, Receiver
from tests.harness.webhook_admin import Admin
from tests.open_api import KEYS


@pytest_asyncio.fixture(scope="package")
async def database() -> AsyncIterator[Database]:
    """Of these tests' own: nodes that have another key would take webhooks, and not read them."""
    async with own_database("webhooks") as opened:
        yield opened


@pytest.fixture(scope="package")
def database_url(database: Database) -> str:
    return database.url


@pytest.fixture(scope="package")
def sending(database_url: str, redis_url: str) -> Iterator[Deployment]:
    """A deployment whose nodes may send to this machine."""
    with Deployment(database_url, redis_url, OPEN_API_KEYS=KEYS, **SETTINGS) as started:
        yield started


@pytest.fixture(scope="package")
def node(sending: Deployment) -> NodeProcess:
    return sending.node()


@pytest_asyncio.fixture
async def api(node: NodeProcess) -> AsyncIterator[Api]:
    opened = Api(node)
    yield opened
    await opened.aclose()


@pytest_asyncio.fixture
async def host(database: Database, api: Api) -> Host:
    return await Host.hired(database, api)


@pytest_asyncio.fixture
async def admin(database: Database, api: Api) -> AsyncIterator[Admin]:
    hired = Admin(await Host.hired(database, api, "admin"))
    yield hired
    for webhook_id in hired.added:
        await hired.call("DELETE", f"/{webhook_id}")


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as listening:
        yield listening

"""A deployment that may be hurt: its own PostgreSQL, Valkey and nodes."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import pytest_asyncio

from coordinator.settings import DEFAULT_LIMITS
from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis
from coordinator.store.database import Database
from coordinator.store.migrations import migrate
from tests.faults import GRACE
from tests.harness.cluster import steady_ports
from tests.harness.node import Deployment, NodeProcess
from tests.harness.people import Api, Host, everybody_hangs_up


@pytest.fixture(scope="package")
def postgres() -> Iterator[EmbeddedPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="coordinator-faults-"))
    with EmbeddedPostgres(folder, port=steady_ports(1)[0], options=("fsync=off",)) as server:
        asyncio.run(migrate(Database(server.url)))
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="package")
def redis() -> Iterator[EmbeddedRedis]:
    folder = Path(tempfile.mkdtemp(prefix="coordinator-faults-redis-"))
    with EmbeddedRedis(folder, port=steady_ports(1)[0]) as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


def deployment_of(postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> Deployment:
    """With rate limits, so that they are hurt with the rest."""
    plenty = ",".join(f"{name}=100000/minute" for name in DEFAULT_LIMITS)
    return Deployment(postgres.url, redis.url, PRESENCE_GRACE=f"{GRACE:g}", RATE_LIMITS=plenty)


@pytest.fixture
def ground(postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> Iterator[Deployment]:
    """Where a test starts nodes that it may kill."""
    with deployment_of(postgres, redis) as started:
        yield started


@pytest.fixture(scope="package")
def lasting(postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> Iterator[list[NodeProcess]]:
    """Two nodes that outlive what happens to their servers."""
    with deployment_of(postgres, redis) as started, ThreadPoolExecutor() as threads:
        starts = [threads.submit(started.node) for _ in range(2)]
        yield [start.result() for start in starts]


@pytest_asyncio.fixture
async def own(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """This folder's database."""
    opened = Database(postgres.url)
    await opened.open()
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def apis() -> AsyncIterator[Callable[[NodeProcess], Api]]:
    """`apis(node)`: the node as clients call it."""
    made: list[Api] = []

    def api(node: NodeProcess) -> Api:
        made.append(Api(node))
        return made[-1]

    yield api
    await everybody_hangs_up()
    for one in made:
        await one.aclose()


@pytest.fixture
def pair(lasting: list[NodeProcess], apis: Callable[[NodeProcess], Api]) -> tuple[Api, Api]:
    """The two that all tests here share: nobody kills them."""
    return apis(lasting[0]), apis(lasting[1])


@pytest_asyncio.fixture
async def two(ground: Deployment, apis: Callable[[NodeProcess], Api]) -> tuple[Api, Api]:
    """Two nodes of this test's own."""
    nodes = await asyncio.gather(*(asyncio.to_thread(ground.node) for _ in range(2)))
    return apis(nodes[0]), apis(nodes[1])


@pytest_asyncio.fixture
async def boss(own: Database, request: pytest.FixtureRequest) -> Host:
    """Somebody who hosts rooms, at the first node of the test."""
    nodes = "pair" if "pair" in request.fixturenames else "two"
    return await Host.hired(own, request.getfixturevalue(nodes)[0])

"""Real servers for every test: one PostgreSQL for the run, a database and a Valkey per worker.

`TEST_DATABASE_URL` and `TEST_REDIS_URL` name servers to use in place of the embedded ones. Tests
that kill a server start one of their own.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis
from coordinator.standins.wechat import WechatStandin
from coordinator.store.database import Database
from tests.harness import databases
from tests.harness.bus_nodes import Town
from tests.harness.fork_server import ForkServer
from tests.harness.node import Deployment
from tests.harness.patience import slowness
from tests.harness.people import Api, Host, everybody_hangs_up

LEAST_PATIENCE = 4.0
"""Times a limit: so much longer a test may always take, as workers share the cores."""

_started: list[EmbeddedPostgres] = []
_fork_servers: list[ForkServer] = []


def pytest_configure(config: pytest.Config) -> None:
    """The first process starts PostgreSQL and a fork server, so that all workers share them, and
    makes the database that is copied.
    """
    late = [HealthCheck.too_slow]  # on a busy machine an example may take long, and to draw one
    settings.register_profile("tests", deadline=None, suppress_health_check=late)
    settings.load_profile("tests")
    if hasattr(config, "workerinput"):
        return
    _fork_servers.append(ForkServer())
    if not os.environ.get(databases.SERVER):
        folder = Path(tempfile.mkdtemp(prefix="coordinator-test-"))
        server = EmbeddedPostgres(folder, options=("fsync=off", "max_connections=2000"))
        server.start()
        _started.append(server)
        os.environ[databases.SERVER] = server.database_url("postgres")
    databases.make_template()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Of the workers that begin at once, one compiles the tests, and the others read what it wrote:
    that is most of the work of collecting them.
    """
    if sys.dont_write_bytecode:
        return (yield)
    with Path(__file__).open() as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(held, fcntl.LOCK_SH)  # all of the others together, once it has ended
        return (yield)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test's time limit is that of a quiet machine, too (`tests/harness/patience.py`).

    It is set before the other workers have begun, and what a test waits for is bounded by itself.
    """
    limit = float(config.getini("timeout"))
    longer = max(LEAST_PATIENCE, slowness())
    for item in items:
        marker = item.get_closest_marker("timeout")
        own = float(marker.args[0]) if marker is not None and marker.args else limit
        item.add_marker(pytest.mark.timeout(longer * own), append=False)


def pytest_unconfigure(config: pytest.Config) -> None:
    for fork_server in _fork_servers:
        fork_server.close()
    _fork_servers.clear()
    if not hasattr(config, "workerinput"):
        databases.drop_template()
    for server in _started:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
    _started.clear()


@pytest_asyncio.fixture(scope="session")
async def database_url() -> AsyncIterator[str]:
    """A database of this worker's own, with every table."""
    async with databases.migrated_url("worker") as url:
        yield url


@pytest_asyncio.fixture
async def empty_url() -> AsyncIterator[str]:
    """A database without tables, for one test."""
    async with databases.empty_url("empty") as url:
        yield url


@pytest_asyncio.fixture
async def lonely_database() -> AsyncIterator[Database]:
    """One test's own `Database`: no other node holds a lease in it."""
    async with databases.own_database("lonely") as opened:
        yield opened


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis of this worker's own."""
    if url := os.environ.get("TEST_REDIS_URL"):
        yield url
        return
    folder = Path(tempfile.mkdtemp(prefix="coordinator-test-redis-"))
    with EmbeddedRedis(folder) as redis:
        yield redis.url
    shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture(scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open `Database` on this worker's tables."""
    opened = Database(database_url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def running_standin() -> Iterator[WechatStandin]:
    """A stand-in for WeChat's server that the tests of a module share."""
    with WechatStandin() as started:
        yield started


@pytest.fixture
def standin(running_standin: WechatStandin) -> WechatStandin:
    """The same, well-behaved again."""
    running_standin.behave()
    return running_standin


@pytest_asyncio.fixture
async def town(lonely_database: Database, redis_url: str) -> AsyncIterator[Town]:
    """Where tests start ends of the bus: `town.node()`; they are ended after the test."""
    made = Town(lonely_database, redis_url)
    yield made
    await made.close()


@pytest.fixture(scope="session")
def deployment(database_url: str, redis_url: str) -> Iterator[Deployment]:
    """Where tests start nodes: `deployment.node()`; those that still run are ended at the end."""
    with Deployment(database_url, redis_url) as started:
        yield started


@pytest.fixture(autouse=True)
def nodes_of_one_test_end_with_it(request: pytest.FixtureRequest) -> Iterator[None]:
    """A node that is idle costs a little, and those of all tests of a worker together a core."""
    if "deployment" not in request.fixturenames:
        yield
        return
    deployment: Deployment = request.getfixturevalue("deployment")
    of_others = len(deployment.nodes)  # fixtures of more than one test were made before this one
    yield
    for node in deployment.nodes[of_others:]:
        if not deployment.is_shared(node):  # one test is the first to ask for it
            node.terminate()


@pytest_asyncio.fixture(scope="session")
async def shared_apis(deployment: Deployment) -> AsyncIterator[tuple[Api, Api]]:
    """The two nodes that all tests of this worker share."""
    apis = Api(deployment.shared_node("a")), Api(deployment.shared_node("b"))
    yield apis
    for api in apis:
        await api.aclose()


@pytest_asyncio.fixture
async def a(shared_apis: tuple[Api, Api]) -> AsyncIterator[Api]:
    """A shared node; what a test leaves open on any node is closed after it."""
    yield shared_apis[0]
    await everybody_hangs_up()


@pytest.fixture
def b(shared_apis: tuple[Api, Api], a: Api) -> Api:
    """The other shared node, on the same Postgres and Redis."""
    return shared_apis[1]


@pytest_asyncio.fixture
async def host(database: Database, a: Api) -> Host:
    """Somebody new who has logged in, role `hr`."""
    return await Host.hired(database, a)


@pytest_asyncio.fixture
async def admin(database: Database, a: Api) -> Host:
    """Somebody new with role `admin`."""
    return await Host.hired(database, a, "admin")


@pytest_asyncio.fixture
async def room(host: Host) -> str:
    """A new room of `host`."""
    return await host.creates()

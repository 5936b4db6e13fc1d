"""Redis as it is run in production: Sentinel, Cluster, passwords, users, TLS, a unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from coordinator.redis import fail_fast_redis
from coordinator.redis_servers import SLOTS, find_servers, servers_of_cluster
from coordinator.redis_url import parse_redis_url
from coordinator.standins.servers import EmbeddedRedis
from coordinator.store.database import Database
from coordinator.web.limits import Limits
from tests.harness.databases import own_database
from tests.harness.limited import wait_for_redis
from tests.harness.node import Deployment
from tests.harness.observing import becomes, joins_are_seen
from tests.harness.people import Api, Guest, Host, Live
from tests.harness.ports import free_port
from tests.harness.promises import deliveries_within, logged
from tests.harness.valkeys import Sentinels, Valkey, ValkeyCluster, asked, ended

pytestmark = pytest.mark.timeout(120)

AGAIN_SECONDS = 5.0
"""From the promotion to full use again, as the contract has it."""
REPAIR_SECONDS, NOTICED_SECONDS = 2, 2
"""From commit to delivery where no message tells of an event; until Redis is known to be away."""


@pytest_asyncio.fixture(scope="module")
async def database() -> AsyncIterator[Database]:
    """Of this file's own: nodes that have another Redis would count as deaf, and so would these."""
    async with own_database("redis_kinds") as opened:
        yield opened


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="valkeys-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


class Pair:
    """Two nodes on one Redis, a room, and somebody who watches it at each."""

    def __init__(self, one: Api, other: Api, room: str, watching: list[Live]) -> None:
        self.apis = one, other
        self.room = room
        self.watching = watching

    async def joins_are_seen(self, *, within: float) -> None:
        """By the nodes' own clocks, from the commit on."""
        async with deliveries_within(within, *self.apis):
            for at in self.apis:
                await joins_are_seen(at, self.room, self.watching)

    async def become(self, wanted: str) -> None:
        for api in self.apis:
            await becomes(api, wanted)

    async def have_logged(self, event: str, *, after: float) -> float:
        """When (wall clock) the last of them did."""
        return max([await logged(api.node, event, after=after) for api in self.apis])


@asynccontextmanager
async def pair(database: Database, url: str) -> AsyncIterator[Pair]:
    with Deployment(database.url, url, RATE_LIMITS="join=10000/minute") as deployment:
        nodes = await asyncio.gather(*(asyncio.to_thread(deployment.node) for _ in range(2)))
        one, other = Api(nodes[0]), Api(nodes[1])
        host = await Host.hired(database, one)
        room = await host.creates()
        watching = [await host.connects(room, at=api) for api in (one, other)]
        made = Pair(one, other, room, watching)
        await made.become("ready")
        yield made
        for api in (one, other):
            await api.aclose()


async def test_a_sentinels_master_is_killed_and_nothing_is_lost(
    database: Database, folder: Path
) -> None:
    site = Sentinels(folder, password="a-password")
    with ended(site.servers):
        await site.ready()
        async with pair(database, site.url) as nodes:
            await nodes.joins_are_seen(within=1)
            killed = time.time()
            site.master.kill()
            await nodes.joins_are_seen(within=REPAIR_SECONDS)
            assert await nodes.have_logged("redis_down", after=killed) - killed < NOTICED_SECONDS
            await site.promoted()
            promoted = time.time()
            await nodes.become("ready")
            assert await nodes.have_logged("redis_up", after=killed) - promoted < AGAIN_SECONDS
            await nodes.joins_are_seen(within=1)


async def test_a_clusters_nodes_carry_events_and_one_shards_death_loses_nothing(
    database: Database, folder: Path
) -> None:
    site = ValkeyCluster(folder)
    with ended(site.servers):
        await site.ready()
        async with pair(database, site.url) as nodes:
            await nodes.joins_are_seen(within=1)
            site.servers[0].kill()
            await nodes.joins_are_seen(within=REPAIR_SECONDS)
            await nodes.become("ready")
            await nodes.joins_are_seen(within=1)


async def test_limits_count_together_on_a_cluster(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_redis(monkeypatch)
    site = ValkeyCluster(folder)
    with ended(site.servers):
        await site.ready()
        clients = [fail_fast_redis(site.url) for _ in range(2)]
        limits = [
            Limits({"join": "3/minute"}, client, "test", (), nodes=lambda: 2) for client in clients
        ]
        waits = []
        for number in range(6):
            one = limits[number % 2]
            waits.append(await one._wait("join", "somebody"))
        for client in clients:
            await client.aclose()

        assert [wait is None for wait in waits] == [True] * 3 + [False] * 3


async def test_a_whole_cluster_that_is_away_is_degraded_and_nothing_else(
    database: Database,
) -> None:
    """Also from the start on: redis-py has an error of its own for it."""
    url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    with Deployment(database.url, url, RATE_LIMITS="join=2/minute,login=1/minute") as deployment:
        api = Api(await asyncio.to_thread(deployment.node))
        host = await Host.hired(database, api)
        room = await host.creates()
        joins = [await Guest(api).asks_to_join(room) for _ in range(3)]
        logins = [await api.post("/api/wechat/login", {"code": "x"}) for _ in range(2)]
        health = (await api.get("/health/ready")).json()
        errors = [line for line in api.node.lines() if line["level"] == "error"]
        await api.aclose()

    assert [join.status_code for join in joins] == [200, 200, 429]
    assert [login.status_code for login in logins] == [503, 429], "WeChat is not set"
    assert (health["status"], health["redis"]) == ("degraded", "down")
    assert errors == []


async def test_why_redis_lets_nobody_in_is_logged_once(database: Database, folder: Path) -> None:
    with (
        EmbeddedRedis(folder) as redis,
        Deployment(database.url, redis.url.replace("://", "://u:the-wrong-one@")) as deployment,
    ):
        node = await asyncio.to_thread(deployment.node)
        await logged(node, "redis_link_failed", after=0)
        await asyncio.sleep(2)  # some tries more
        told = [line for line in node.lines() if line["event"].startswith("redis_link")]
        logs = node.logs()

    assert len(told) == 1, told
    assert "WRONGPASS" in told[0]["reason"]
    assert "the-wrong-one" not in logs


async def test_a_user_with_few_rights_and_a_unix_socket(database: Database, folder: Path) -> None:
    """An ACL user who may use this deployment's channels and keys alone."""
    sock = folder / "valkey.sock"
    server = Valkey(
        folder, "--save", "", "--unixsocket", str(sock), "--user", "coordinator", "on",
        ">a-password", "resetchannels", "&coordinator:*", "~coordinator:*", "+@all", "-@admin",
        "-@dangerous",
    )  # fmt: skip
    with ended([server]):
        await asked(server, "PING")
        async with pair(database, f"unix://coordinator:a-password@{sock}") as nodes:
            await nodes.joins_are_seen(within=1)


async def test_tls(database: Database, folder: Path) -> None:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout",
         str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Valkey(folder, "--save", "", "--requirepass", "a-password")

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The wheel's Valkey has no TLS: it is spoken in front of it."""
        there = await asyncio.open_connection(*server.address)
        async with asyncio.TaskGroup() as ways:
            ways.create_task(_pipe(reader, there[1]))
            ways.create_task(_pipe(there[0], writer))

    front = await asyncio.start_server(carry, "127.0.0.1", 0, ssl=context)
    port = front.sockets[0].getsockname()[1]
    with ended([server]):
        url = f"rediss://:a-password@localhost:{port}/0?ssl_ca_certs={certificate}"
        async with pair(database, url) as nodes:
            await nodes.joins_are_seen(within=1)
        front.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_who_holds_the_data_is_found_out(redis_url: str) -> None:
    target = parse_redis_url(redis_url)

    assert (await find_servers(target)).addresses == (target.addresses or (None,))


def test_a_clusters_slots_say_where_a_channel_is() -> None:
    ranges = [[0, 5460, [b"", 7000]], [5461, SLOTS - 1, [b"10.0.0.2", 7001, b"id"]]]

    servers = servers_of_cluster(ranges, asked=("10.0.0.1", 7000))

    assert servers.addresses == (("10.0.0.1", 7000), ("10.0.0.2", 7001))
    assert servers.server_of(b"p:feeds:{0}") == servers.server_of(b"p:echo:{0}:x")
    for address in servers.addresses:
        assert servers.server_of(b"x:{%d}" % servers.tag_on(address)) == address

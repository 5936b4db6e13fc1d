"""A whole deployment on this machine that can be hurt: PostgreSQL, Valkey, nodes, and the proxies
between them.

Every process is a real one and is ended when the run is over; nothing else is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import asyncpg

from coordinator.settings import DEFAULT_LIMITS
from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis
from tests.harness.node import START_SECONDS, NodeProcess, environment, printed
from tests.harness.patience import patient
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.tokens import staff_token


class ClusterNode(NodeProcess):
    """A node with a proxy of its own to each server.

    Attributes:
        killed: wall-clock times at which it was killed with -9.
    """

    def __init__(
        self, number: int, port: int, folder: Path, postgres: TcpProxy, redis: TcpProxy
    ) -> None:
        super().__init__(folder / f"node-{number}.log", port=port)
        self.number = number
        self.postgres = postgres
        self.redis = redis
        self.killed: list[float] = []

    def kill(self) -> None:
        self.killed.append(time.time())
        super().kill()


class Cluster:
    """`async with Cluster(nodes=3, grace=6) as cluster`: everything runs, and staff has a token."""

    def __init__(self, *, nodes: int, grace: float, **settings: str) -> None:
        self.grace = grace
        self.folder = Path(tempfile.mkdtemp(prefix="coordinator-chaos-"))
        postgres_port, redis_port, *self._node_ports = steady_ports(2 + nodes)
        self.postgres = EmbeddedPostgres(
            self.folder / "postgres", port=postgres_port, options=("fsync=off",)
        )
        self.redis = EmbeddedRedis(self.folder / "redis", port=redis_port)
        self.nodes: list[ClusterNode] = []
        self.token = self.admin_token = ""
        self._settings = settings

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _start(self) -> None:
        await self.start_servers()
        await self.fill_database()
        await self.start_nodes()

    async def start_servers(self) -> None:
        """PostgreSQL and Redis."""
        await asyncio.gather(
            asyncio.to_thread(self.postgres.start), asyncio.to_thread(self.redis.start)
        )

    async def fill_database(self) -> None:
        """The newest schema, and staff."""
        await asyncio.to_thread(printed, self.environment(), "migrate")
        await self.hire()

    async def hire(self) -> None:
        """Staff: `token` is a host's, `admin_token` an admin's."""
        database = await asyncpg.connect(self.postgres.url, timeout=patient(5))
        sql = "INSERT INTO users (openid, role) VALUES ($1, $2) RETURNING id"
        self.token = staff_token(await database.fetchval(sql, "host", "hr"), "host", "hr")
        self.admin_token = staff_token(
            await database.fetchval(sql, "watch", "admin"), "watch", "admin"
        )
        await database.close()

    async def start_nodes(self) -> None:
        """Every node with its proxies; returns when all are ready."""
        await self.make_nodes()
        for node in self.nodes:
            self.start_node(node)
        for node in self.nodes:
            await self.ready(node)

    async def make_nodes(self) -> None:
        """The nodes, not started yet, and their proxies, which are."""
        for number in range(self.node_count):
            node = self.make_node(number)
            await node.postgres.start()
            await node.redis.start()
            self.nodes.append(node)

    def make_node(self, number: int) -> ClusterNode:
        """One node, and its ways to the servers."""
        postgres, redis = TcpProxy(self.postgres_port), TcpProxy(self.redis.port)
        return ClusterNode(number, self._node_ports[number], self.folder, postgres, redis)

    @property
    def node_count(self) -> int:
        return len(self._node_ports)

    @property
    def postgres_port(self) -> int:
        """Where nodes' proxies lead to."""
        return self.postgres.port

    def ways_to_postgres(self, node: ClusterNode) -> list[TcpProxy]:
        """All proxies through which a node reaches PostgreSQL."""
        return [node.postgres]

    def start_node(self, node: ClusterNode) -> None:
        node.start(self.environment(node))

    async def ready(self, node: ClusterNode, *, within: float = START_SECONDS) -> float:
        """Seconds until `/health/ready` answered 200 with both servers well.

        Raises:
            TimeoutError: it did not, or has ended.
        """
        start = time.monotonic()
        while time.monotonic() < start + patient(within):
            if await asyncio.to_thread(node.health) == "ready":
                return time.monotonic() - start
            if not node.is_running:
                break
            await asyncio.sleep(0.05)
        raise TimeoutError(f"node {node.number} was not ready:\n{node.logs()[-3000:]}")

    def environment(self, node: ClusterNode | None = None) -> dict[str, str]:
        """The variables of a node, or of a command, which reaches the servers without a proxy."""
        own = {
            "DATABASE_URL": self.database_url(node.postgres.port if node else self.postgres.port),
            "REDIS_URL": self.redis_url(node.redis.port if node else self.redis.port),
            "PRESENCE_GRACE": str(self.grace),
            "RATE_LIMITS": ",".join(f"{name}=100000/minute" for name in DEFAULT_LIMITS),
            "DRAIN_SECONDS": "2",
        }
        if path := os.environ.get("PYTHONPATH"):
            own["PYTHONPATH"] = path
        return environment(**{**own, **self._settings})

    def database_url(self, port: int) -> str:
        """How PostgreSQL is reached through a port."""
        return f"postgresql://postgres@127.0.0.1:{port}/coordinator"

    def redis_url(self, port: int) -> str:
        """How Redis is reached through a port."""
        return f"redis://127.0.0.1:{port}/0"

    # -- servers as a whole

    def signal_postgres(self, number: signal.Signals) -> None:
        """To the postmaster and every backend, as one frozen machine."""
        if self.postgres.process is not None:
            signal_family(self.postgres.process.pid, number)

    def signal_redis(self, number: signal.Signals) -> None:
        if self.redis.process is not None:
            self.redis.process.send_signal(number)

    async def flush_redis(self) -> None:
        """Everything in it is gone, and so is every connection to it."""
        for command in (b"FLUSHALL\r\n", b"CLIENT KILL TYPE pubsub\r\n"):
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(patient(2)):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.redis.port)
                    writer.write(command)
                    await reader.readline()
                    writer.close()

    async def _end(self) -> None:
        for node in self.nodes:
            node.wake()
            node.terminate()
        for node in self.nodes:
            await asyncio.to_thread(node.wait, 15)
            await node.postgres.close()
            await node.redis.close()
        self.signal_postgres(signal.SIGCONT)
        self.signal_redis(signal.SIGCONT)
        stops: tuple[Callable[[], None], ...] = (self.postgres.stop, self.redis.stop)
        await asyncio.gather(*(asyncio.to_thread(stop) for stop in stops))
        shutil.rmtree(self.folder, ignore_errors=True)


def steady_ports(count: int) -> list[int]:
    """Free loopback ports that nobody takes while their server is down.

    They lie below those of outgoing connections, and each process looks in a block of its own.
    """
    block = 20_000 + os.getpid() % 500 * 24
    free = [port for port in range(block, block + 24) if _is_free(port)]
    if len(free) < count:
        raise OSError(f"fewer than {count} free ports from {block} on")
    return free[:count]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def signal_family(pid: int, number: signal.Signals) -> None:
    """A process and its children, the parent first when it is stopped, last when it goes on."""
    children: list[int] = []
    with contextlib.suppress(OSError):
        children = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for one in [pid, *children] if number == signal.SIGSTOP else [*children, pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, number)

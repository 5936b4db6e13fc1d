"""The servers of the comparison: two nodes each, that can be hurt in the same ways."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, Self

import httpx

from coordinator.standins.servers import EmbeddedRedis
from tests.harness.cluster import Cluster, steady_ports

HERE = Path(__file__).parent
START_SECONDS = 60
GO_SOURCES = Path("/usr/share/gocode")
GO_PACKAGES = (
    "golang-go golang-github-centrifugal-centrifuge-dev golang-github-centrifugal-protocol-dev "
    "golang-github-fzambia-eagle-dev golang-github-igm-sockjs-go-dev golang-github-mna-redisc-dev"
)


class ComparedServers(Protocol):
    """Two nodes and their Redis."""

    ports: list[int]
    room: str
    token: str
    redis: EmbeddedRedis

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def publish(self, number: int) -> bool:
        """True where a node said that the event is taken."""

    def signal(self, node: int, number: signal.Signals) -> None: ...

    async def start(self, node: int) -> None:
        """Starts a node that has been killed."""


class Coordinator:
    """Ours: an event is a guest that joins, durably, in the room's log."""

    room = "room_compared"

    def __init__(self) -> None:
        self._cluster = Cluster(nodes=2, grace=30, ROOM_CAPACITY="100000")
        self._http = httpx.AsyncClient(trust_env=False, timeout=10)

    async def __aenter__(self) -> Self:
        await self._cluster.__aenter__()
        self.ports = [node.port for node in self._cluster.nodes]
        self.redis, self.token = self._cluster.redis, self._cluster.token
        body = {"roomId": self.room, "roomName": "R", "hostName": "张经理"}
        await self._post("create-room", body, Authorization=f"Bearer {self.token}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        await self._cluster.__aexit__()

    async def publish(self, number: int) -> bool:
        return await self._post("guest/join", {"roomId": self.room, "userName": str(number)})

    async def _post(self, path: str, body: object, **headers: str) -> bool:
        url = f"/api/interview/{path}"
        request = partial(self._http.build_request, "POST", json=body, headers=headers)
        return await _is_taken(self._http, self.ports, lambda base: request(url=base + url))

    def signal(self, node: int, number: signal.Signals) -> None:
        self._cluster.nodes[node].signal(number)

    async def start(self, node: int) -> None:
        self._cluster.start_node(self._cluster.nodes[node])


class Peer:
    """A peer: `command` with PORT and REDIS_PORT after it; an event is a line to `/publish`."""

    room, token = "room", ""

    def __init__(self, command: list[str], modules: Path) -> None:
        self._command = command
        self._env = {**os.environ, "NODE_PATH": str(modules), "NODE_ENV": "production"}
        self._folder = Path(tempfile.mkdtemp(prefix="coordinator-compare-"))
        redis, *self.ports = steady_ports(3)
        self.redis = EmbeddedRedis(self._folder, port=redis)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._http = httpx.AsyncClient(trust_env=False, timeout=10)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.redis.start)
        for node in range(2):
            await self.start(node)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        for process in self._processes.values():
            process.kill()
            process.wait()
        self.redis.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def publish(self, number: int) -> bool:
        path = f"/publish?n={number}"
        make = partial(self._http.build_request, "GET")
        return await _is_taken(self._http, self.ports, lambda base: make(url=base + path))

    def signal(self, node: int, number: signal.Signals) -> None:
        self._processes[node].send_signal(number)
        if number == signal.SIGKILL:
            self._processes[node].wait()

    async def start(self, node: int) -> None:
        port = self.ports[node]
        with (self._folder / f"node-{node}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                [*self._command, str(port), str(self.redis.port)],
                env=self._env, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                return
            except OSError:
                await asyncio.sleep(0.05)
        raise TimeoutError((self._folder / f"node-{node}.log").read_text()[-1000:])


async def _is_taken(
    http: httpx.AsyncClient, ports: list[int], make: Callable[[str], httpx.Request]
) -> bool:
    """Asks any node, and another one where nobody listens; true where it says 200.

    Args:
        make: the request, from the address of a node.
    """
    for port in random.sample(ports, len(ports)):
        try:
            return (await http.send(make(f"http://127.0.0.1:{port}"))).status_code == 200
        except httpx.ConnectError:
            continue
        except httpx.HTTPError:
            return False
    return False


def centrifuge(folder: Path) -> list[str] | None:
    """The command of Centrifuge's server, built where it is missing; None where it cannot be."""
    binary = folder / "centrifuge_server"
    go = shutil.which("go")
    sources = GO_SOURCES / "src/github.com/centrifugal/centrifuge"
    if not binary.exists():
        if go is None or not sources.is_dir():
            return None
        source = shutil.copy(HERE / "centrifuge_server.go", folder / "main.go")
        env = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_SOURCES), "GOFLAGS": ""}
        subprocess.run(
            [go, "build", "-o", binary, source], env=env, cwd=folder, check=True, timeout=600
        )
    return [str(binary)]

"""A rolling restart of three nodes behind a proxy, under load: what clients see of it.

    python -m tests.rolling nginx --guests 50 --rounds 1
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis
from tests.harness.node import NodeProcess, environment, hired, printed
from tests.harness.patience import patient
from tests.harness.ports import free_port, wait_open

DEPLOY = Path(__file__).parents[1] / "deploy"
CONFIGURATIONS = {"nginx": DEPLOY / "nginx/coordinator.conf",
                  "haproxy": DEPLOY / "haproxy/haproxy.cfg"}  # fmt: skip
PORTS = (8080, 3001, 3002, 3003)
"""Those of the configurations: the proxy's, and the three nodes'."""
DRAIN_SECONDS = 4
NODES = 3


def is_installed(proxy: str) -> bool:
    return _program(proxy) is not None


def _program(proxy: str) -> str | None:
    return shutil.which(proxy, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def running_proxy(proxy: str, port: int, nodes: list[int]) -> Iterator[None]:
    """The proxy with its configuration of `deploy/`; nothing but ports is changed in it."""
    folder = Path(tempfile.mkdtemp(prefix="coordinator-proxy-"))
    text = CONFIGURATIONS[proxy].read_text()
    ours = dict(zip(map(str, PORTS), map(str, (port, *nodes)), strict=True))
    text = re.sub(rf"\b({'|'.join(ours)})\b", lambda found: ours[found[1]], text)
    program = _program(proxy)
    assert program is not None
    if proxy == "nginx":
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
            f"{'user root;' if os.geteuid() == 0 else ''} worker_processes 2;\n"
            "events { worker_connections 4096; }\n"
            f"http {{ access_log off; client_body_temp_path {folder}/body; "
            f"proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; "
            f"uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n{text}\n}}\n"
        )
        command = [program, "-p", str(folder), "-e", f"{folder}/error.log",
                   "-c", f"{folder}/nginx.conf"]  # fmt: skip
    else:
        (folder / "haproxy.cfg").write_text(text)
        command = [program, "-db", "-q", "-f", f"{folder}/haproxy.cfg"]
    process = subprocess.Popen(command)
    try:
        wait_open(port)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(patient(10))
        shutil.rmtree(folder, ignore_errors=True)


class RollingNodes:
    """Three nodes on ports that stay theirs, one Postgres and one Redis."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = EmbeddedPostgres(folder / "postgres", options=("fsync=off",))
        self.redis = EmbeddedRedis(folder / "redis")
        self.all = [NodeProcess(folder / f"node-{number}.log") for number in range(NODES)]

    def __enter__(self) -> Self:
        self.postgres.start()
        self.redis.start()
        printed(self.environment, "migrate")
        for node in self.all:
            node.start(self.environment)
        for node in self.all:
            node.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.all:
            node.terminate()
        for node in self.all:
            node.wait(DRAIN_SECONDS + 10)
        self.redis.stop()
        self.postgres.stop()

    @property
    def ports(self) -> list[int]:
        return [node.port for node in self.all]

    @property
    def environment(self) -> dict[str, str]:
        return environment(
            DATABASE_URL=self.postgres.url, REDIS_URL=self.redis.url, RATE_LIMITS="off",
            DRAIN_SECONDS=str(DRAIN_SECONDS), TRUSTED_PROXIES="127.0.0.1",
        )  # fmt: skip

    async def restart(self, position: int) -> int:
        """Ends one node in order, and starts it again; the status with which it ended."""
        node = self.all[position]
        status = await asyncio.to_thread(node.stop)
        await asyncio.to_thread(node.start(self.environment).wait_ready)
        return status


@dataclass
class RollingWatcher:
    """A guest who stays connected through the proxy, and comes back whenever it is sent away."""

    base: str
    room: str
    token: str
    seq: int | None = None
    refused: Counter[str] = field(default_factory=Counter)
    moves: int = 0
    holes: int = 0

    async def watches(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._once()
            except (OSError, InvalidHandshake, TimeoutError) as error:
                answer = getattr(error, "response", None)
                self.refused[f"GET {answer.status_code}" if answer else type(error).__name__] += 1
            except ConnectionClosed:
                pass
            self.moves += 1
            await asyncio.sleep(random.uniform(0, 0.5))

    async def _once(self) -> None:
        query = "" if self.seq is None else f"?since={self.seq}"
        url = f"{self.base.replace('http', 'ws')}/api/interview/room/{self.room}/live{query}"
        async with connect(
            url, additional_headers={"Authorization": f"Bearer {self.token}"}, proxy=None,
            compression=None, max_size=None, open_timeout=patient(10),
        ) as socket:  # fmt: skip
            async for text in socket:
                self._hears(json.loads(text))

    def _hears(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "welcome" and not (frame["resumed"] and self.seq is not None):
            self.holes += self.seq is not None and frame["seq"] < self.seq
            self.seq = frame["seq"]
        elif "at" in frame and "seq" in frame:
            self.holes += frame["seq"] != (self.seq or 0) + 1
            self.seq = frame["seq"]


@dataclass(frozen=True)
class Verdict:
    """What came of it.

    Attributes:
        refused: connections and requests that failed, by what failed.
        behind: watchers that lack an event of the log in the end.
        left: people of whom the log says that they left.
        joins, moves: how much was going on: joins answered, connections made anew.
    """

    refused: dict[str, int]
    behind: int
    holes: int
    left: int
    statuses: list[int]
    joins: int
    moves: int

    @property
    def is_clean(self) -> bool:
        return not (self.refused or self.behind or self.holes or self.left) and not any(
            self.statuses
        )


async def rolling_restart(proxy: str, *, guests: int, rounds: int = 1) -> Verdict:
    """Restarts each node once a round, while guests watch and others join and leave nothing."""
    folder = Path(tempfile.mkdtemp(prefix="coordinator-rolling-"))
    try:
        with RollingNodes(folder) as nodes:
            port = free_port()
            with running_proxy(proxy, port, nodes.ports):
                return await _restarts(nodes, f"http://127.0.0.1:{port}", guests, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _restarts(nodes: RollingNodes, base: str, guests: int, rounds: int) -> Verdict:
    token = hired(nodes.environment, "o-rolling", "admin")
    refused: Counter[str] = Counter()
    async with httpx.AsyncClient(base_url=base, timeout=patient(10), trust_env=False) as client:
        room = {"roomId": "rolling", "roomName": "rolling", "hostName": "host"}
        await _posts(client, "create-room", room, refused, token)
        watchers = []
        for number in range(guests):
            joined = await _join(client, f"guest {number}", refused)
            assert joined is not None, refused
            watchers.append(RollingWatcher(base, "rolling", joined["guestToken"]))
        tasks = [asyncio.create_task(watcher.watches()) for watcher in watchers]
        joins = asyncio.create_task(_keeps_joining(client, refused))
        await asyncio.sleep(2)
        statuses = [
            await nodes.restart(position) for _ in range(rounds) for position in range(NODES)
        ]
        await asyncio.sleep(2)
        joins.cancel()
        answered = (await asyncio.gather(joins, return_exceptions=True))[0]
        log = await _log(client, token)
        await _until(lambda: all(watcher.seq == len(log) for watcher in watchers), patient(15))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for watcher in watchers:
        refused += watcher.refused
    return Verdict(
        refused=dict(refused),
        behind=sum(watcher.seq != len(log) for watcher in watchers),
        holes=sum(watcher.holes for watcher in watchers),
        left=sum(event["type"] == "participant_left" for event in log),
        statuses=statuses,
        joins=answered if isinstance(answered, int) else 0,
        moves=sum(watcher.moves for watcher in watchers),
    )


async def _until(holds: Any, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def _keeps_joining(client: httpx.AsyncClient, refused: Counter[str]) -> int:
    """Somebody new every 50 ms until cancelled; how many were let in."""
    joined = 0
    try:
        while True:
            joined += await _join(client, "passer-by", refused) is not None
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        return joined


async def _join(
    client: httpx.AsyncClient, name: str, refused: Counter[str]
) -> dict[str, Any] | None:
    return await _posts(client, "guest/join", {"roomId": "rolling", "userName": name}, refused)


async def _posts(
    client: httpx.AsyncClient, path: str, body: Any, refused: Counter[str], token: str = ""
) -> dict[str, Any] | None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = await client.post(f"/api/interview/{path}", json=body, headers=headers)
    except httpx.HTTPError as error:
        refused[f"POST {type(error).__name__}"] += 1
        return None
    if answer.status_code != 200:
        refused[f"POST {answer.status_code}"] += 1
        return None
    data: dict[str, Any] = answer.json()["data"]
    return data


async def _log(client: httpx.AsyncClient, token: str) -> list[dict[str, Any]]:
    log: list[dict[str, Any]] = []
    while True:
        answer = await client.get(
            "/api/interview/room/rolling/events", params={"after": len(log), "limit": 500},
            headers={"Authorization": f"Bearer {token}"},
        )  # fmt: skip
        page = answer.json()["data"]
        log += page["events"]
        if not page["hasMore"]:
            return log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("proxy", choices=sorted(CONFIGURATIONS))
    parser.add_argument("--guests", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    verdict = asyncio.run(
        rolling_restart(options.proxy, guests=options.guests, rounds=options.rounds)
    )
    sys.stdout.write(f"{verdict}\n")
    sys.exit(not verdict.is_clean)


if __name__ == "__main__":
    main()

"""What is tested: a deployment that runs somewhere (`--url`), or one that is started here.

What is started here is a real one: PostgreSQL with its fsync, Valkey, and `coordinator serve`
processes, each pinned to a core where the system can do that; it is ended when the run is over.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from coordinator.settings import DEFAULT_LIMITS
from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis
from loadtest.usage import Cores, Parties
from tests.harness.held import Place
from tests.harness.http_lines import Answered, Lines
from tests.harness.node import NodeProcess, environment, hired, pin, printed
from tests.harness.wire import Address

OPEN_API_KEY = "loadtest-key-loadtest-key"
RAISED_LIMITS = ",".join(f"{name}=100000000/minute" for name in DEFAULT_LIMITS)
"""Limits are counted as in production, so that what they cost is measured; nobody reaches them."""
SETTINGS = {
    "RATE_LIMITS": RAISED_LIMITS,
    "ROOM_CAPACITY": "1000000",
    "LIVE_MAX_CONNECTIONS": "60000",
    "LOG_LEVEL": "warning",
    "OPEN_API_KEYS": f"loadtest:{OPEN_API_KEY}",
    "ZEGO_APP_ID": "1234567890",
    "ZEGO_SERVER_SECRET": "0123456789abcdef0123456789abcdef",
}
"""Of the nodes that are started here; a scenario may set others."""


class NotStarted(Exception):
    """A deployment is not there, or a peer did not start; the message says what to do."""


@dataclass(slots=True)
class MeasuredDeployment:
    """Where to send requests, as whom, and which processes serve them.

    Attributes:
        token: of a staff member, the host of all rooms.
        watch_token: of an admin who is not that host, and so watches as many times as it likes,
        unseen; empty = guests watch.
        parties: processes that are watched for CPU; without servers where they run elsewhere.
        nodes: the processes that were started here; a scenario may kill them.
    """

    urls: list[str]
    token: str
    watch_token: str
    cores: Cores
    parties: Parties = field(default_factory=Parties)
    nodes: list[NodeProcess] = field(default_factory=list)
    grace: float = 30.0

    @property
    def addresses(self) -> list[Address]:
        return [address(url) for url in self.urls]

    @property
    def is_started_here(self) -> bool:
        return bool(self.nodes)

    @property
    def where(self) -> str:
        if not self.is_started_here:
            return "a running deployment: " + ", ".join(self.urls)
        return (
            f"{len(self.nodes)} node(s) on this machine, embedded PostgreSQL (fsync=on,"
            f" synchronous_commit=on) and Valkey; {self.cores.text}"
        )

    def place(self, room: str, token: str, **more: Any) -> Place:
        """A connection to a room's live feed."""
        return Place(
            room=room,
            path=f"/api/interview/room/{room}/live",
            headers=(f"Authorization: Bearer {token}",),
            **more,
        )

    async def make_rooms(self, lines: Lines, names: list[str]) -> None:
        """Creates rooms whose host the token's owner is."""
        for name in names:
            body = {"roomId": name, "roomName": "Load test", "hostName": "Load test"}
            await lines.ask("POST", "/api/interview/create-room", body, token=self.token)

    async def end_rooms(self, lines: Lines, names: list[str]) -> None:
        """Ends them, so that nothing of a test goes on in somebody's deployment.

        What cannot be ended (it was never made, the node is gone) is left alone.
        """
        for name in names:
            with contextlib.suppress(Answered, OSError):
                await lines.ask("POST", f"/api/interview/room/{name}/end", {}, token=self.token)


def address(url: str) -> Address:
    """Where a base URL points.

    Raises:
        NotStarted: it is not an http:// or https:// URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NotStarted(f"{url!r} is not a URL such as http://127.0.0.1:3000")
    tls = parts.scheme == "https"
    return Address(parts.hostname, parts.port or (443 if tls else 80), tls)


@contextmanager
def started_here(*, count: int, cores: Cores, **settings: str) -> Iterator[MeasuredDeployment]:
    """A deployment of our own, of `count` nodes; `settings`: of the nodes, beside `SETTINGS`."""
    with contextlib.ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix="coordinator-load-"))
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        postgres = undo.enter_context(
            EmbeddedPostgres(folder, options=("synchronous_commit=on",))
        )
        redis = undo.enter_context(EmbeddedRedis(folder / "redis"))
        assert postgres.process is not None
        assert redis.process is not None
        pin(cores.others, redis.process.pid)
        own = {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url, **SETTINGS}
        env = environment(**{**own, **settings})
        printed(env, "migrate")
        nodes = [NodeProcess(folder / f"node-{number}.log") for number in range(count)]
        for node in nodes:
            undo.callback(node.start(env).stop)
            pin(cores.server, node.process.pid)  # what it starts from here on stays there, too
        with ThreadPoolExecutor() as pool:  # while the nodes start
            staff = (("host", "hr"), ("watch", "admin"))
            token, watch_token = pool.map(lambda who: hired(env, *who), staff)
        for node in nodes:
            node.wait_ready()
        parties = Parties(
            servers=[node.process.pid for node in nodes],
            redis=[redis.process.pid],
            postgres=[postgres.process.pid],
        )
        urls = [node.url for node in nodes]
        grace = float(settings.get("PRESENCE_GRACE", "30"))
        yield MeasuredDeployment(urls, token, watch_token, cores, parties, nodes, grace)


@contextmanager
def given(
    urls: Sequence[str], token: str, watch_token: str, cores: Cores
) -> Iterator[MeasuredDeployment]:
    """A deployment that runs already, and goes on.

    Raises:
        NotStarted: it does not answer.
    """
    for url in urls:
        address(url)
        try:
            httpx.get(f"{url}/health/live", timeout=5)
        except httpx.HTTPError as error:
            raise NotStarted(f"nobody answers at {url}: {error}") from error
    yield MeasuredDeployment([url.rstrip("/") for url in urls], token, watch_token, cores)

"""What is tested: a deployment that runs somewhere (`--url`), or one that is started here.

What is started here is a real one: PostgreSQL with its fsync, Valkey, and `coordinator serve`
processes, each pinned to a core where the system can do that; it is ended when the run is over.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

from coordinator.settings import DEFAULT_LIMITS
from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis
from loadtest.usage import Cores, Parties
from tests.harness.held import Place
from tests.harness.http_lines import Answered, Lines
from tests.harness.node import Node, environment, hired, pin, printed
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
class Deployment:
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
    nodes: list[Node] = field(default_factory=list)
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


class StartedHere:
    """A deployment of our own: `with StartedHere(nodes=2, cores=cores) as deployment`."""

    def __init__(self, *, nodes: int, cores: Cores, **settings: str) -> None:
        self._count = nodes
        self._cores = cores
        self._settings = settings
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Deployment:
        try:
            return self._start()
        except BaseException:
            self._undo.close()
            raise

    def _start(self) -> Deployment:
        folder = Path(tempfile.mkdtemp(prefix="coordinator-load-"))
        self._undo.callback(shutil.rmtree, folder, ignore_errors=True)
        postgres = EmbeddedPostgres(folder, options=("synchronous_commit=on",))
        self._undo.enter_context(postgres)
        redis = EmbeddedRedis(folder / "redis")
        self._undo.enter_context(redis)
        assert postgres.process is not None
        assert redis.process is not None
        pin(self._cores.others, redis.process.pid)
        env = environment(
            **{"DATABASE_URL": postgres.url, "REDIS_URL": redis.url, **SETTINGS, **self._settings}
        )
        printed(env, "migrate")
        nodes = [self._node(folder / f"node-{number}.log", env) for number in range(self._count)]
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
        grace = float(self._settings.get("PRESENCE_GRACE", "30"))
        urls = [node.url for node in nodes]
        return Deployment(urls, token, watch_token, self._cores, parties, nodes, grace)

    def _node(self, log: Path, env: dict[str, str]) -> Node:
        node = Node(log).start(env)
        self._undo.callback(node.stop)
        pin(self._cores.server, node.process.pid)  # what it starts from here on stays there, too
        return node

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.close()


@dataclass(slots=True)
class Given:
    """A deployment that runs already: `with Given(urls, token, cores) as deployment`."""

    urls: list[str]
    token: str
    watch_token: str
    cores: Cores

    def __enter__(self) -> Deployment:
        for url in self.urls:
            address(url)
            try:
                httpx.get(f"{url}/health/live", timeout=5)
            except httpx.HTTPError as error:
                raise NotStarted(f"nobody answers at {url}: {error}") from error
        urls = [url.rstrip("/") for url in self.urls]
        return Deployment(urls, self.token, self.watch_token, self.cores)

    def __exit__(self, *_: object) -> None:
        """Nothing was started, nothing is ended."""


Source = StartedHere | Given


def raise_file_limit() -> int:
    """As many open files as the system allows us; returns how many."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1_048_576
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft

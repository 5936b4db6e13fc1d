"""One caller hops over real nodes: of a kind per user, of one per key and of one per address.

It is never refused below the limit, and gets at most a tenth more than the limit in.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from coordinator.standins.servers import EmbeddedRedis
from coordinator.web.shared_windows import NEW_SECONDS
from tests.harness.databases import own_database
from tests.harness.node import Deployment, NodeProcess, hired
from tests.harness.patience import patient

LIMIT, MOST = 60, 66
KINDS = ("create", "open", "leave")
KEYS = [f"key-of-a-tenant-{number:03d}" for number in range(100)]
SETTINGS = {
    "RATE_LIMITS": ",".join(f"{kind}={LIMIT}/hour" for kind in KINDS),
    "TRUSTED_PROXIES": "127.0.0.1",
    "OPEN_API_KEYS": ",".join(f"tenant{number}:{key}" for number, key in enumerate(KEYS)),
}
TRIES = 5
"""A node counts for itself where Redis does not answer within a quarter of a second, which a busy
machine does to a good one: what was tried then says nothing."""

HTTP = httpx.Client(verify=False, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


@dataclass(frozen=True)
class HoppingCaller:
    """Somebody whose requests count together."""

    method: str
    path: str
    headers: dict[str, str]

    def asks(self, node: NodeProcess) -> httpx.Response:
        content = None if self.method == "GET" else b"{}"
        return HTTP.request(
            self.method, node.url + self.path, headers=self.headers, content=content,
            timeout=patient(20),
        )  # fmt: skip

    def gets_in(self, node: NodeProcess) -> bool:
        """Whatever is wrong with the request besides."""
        return self.asks(node).status_code != 429


class LimitedSite:
    """Three nodes, their Redis, and new callers.

    Attributes:
        nodes: those that run.
    """

    def __init__(self, deployment: Deployment, redis: EmbeddedRedis) -> None:
        self.redis = redis
        self.deployment = deployment
        with ThreadPoolExecutor() as pool:
            starting = [pool.submit(deployment.node) for _ in range(3)]
        self.nodes = [node.result() for node in starting]
        self._started_at = time.monotonic()
        self._keys = iter(KEYS)

    def start(self) -> None:
        self.nodes.append(self.deployment.node())
        self._started_at = time.monotonic()

    def grow_old(self) -> None:
        """Returns when every node has its share."""
        time.sleep(max(0.0, self._started_at + NEW_SECONDS + 0.5 - time.monotonic()))

    def caller(self, kind: str) -> HoppingCaller:
        """One who has not called yet."""
        if kind == "open":
            return HoppingCaller("GET", "/api/open/jobs", {"X-API-Key": next(self._keys)})
        if kind == "create":
            token = hired(self.deployment.env(), secrets.token_hex(8), "hr")
            bearer = {"Authorization": f"Bearer {token}"}
            return HoppingCaller("POST", "/api/interview/create-room", bearer)
        address = "203." + ".".join(str(secrets.randbelow(256)) for _ in range(3))
        return HoppingCaller("POST", "/api/interview/guest/leave", {"X-Forwarded-For": address})

    def hops(
        self, kind: str, over: int, meanwhile: Callable[[int], None] = lambda _: None
    ) -> list[bool]:
        """What one caller's requests get at nodes by chance: whether each was let in."""
        for _ in range(TRIES):
            before, caller, answers = self._counted_alone(), self.caller(kind), []
            for step in range(2 * LIMIT):
                meanwhile(step)
                answers.append(caller.gets_in(random.choice(self.nodes[:over])))
            if self._counted_alone() == before:
                break
        return answers

    def _counted_alone(self) -> int:
        return sum(node.logs().count("limits_counted_locally") for node in self.deployment.nodes)


@pytest_asyncio.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LimitedSite]:
    redis = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    redis.start()
    async with own_database("limits_of_nodes") as database:
        with Deployment(database.url, redis.url, **SETTINGS) as deployment:
            yield LimitedSite(deployment, redis)
    redis.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_at_one_node_the_limit_is_exact(site: LimitedSite, kind: str) -> None:
    caller = site.caller(kind)
    answers = [caller.asks(site.nodes[0]) for _ in range(LIMIT + 3)]
    assert [answer.status_code == 429 for answer in answers] == [False] * LIMIT + [True] * 3
    assert 3000 < int(answers[-1].headers["retry-after"]) <= 3600


@pytest.mark.parametrize("kind", KINDS)
def test_a_caller_hops_over_nodes_that_have_just_started(site: LimitedSite, kind: str) -> None:
    answers = site.hops(kind, over=3)
    assert all(answers[:LIMIT])
    assert sum(answers) <= MOST


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("over", [2, 3])
def test_a_caller_hops(site: LimitedSite, kind: str, over: int) -> None:
    site.grow_old()
    answers = site.hops(kind, over)
    assert all(answers[:LIMIT])
    assert sum(answers) <= MOST


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_is_killed_and_another_started_meanwhile(site: LimitedSite, kind: str) -> None:
    """What the killed one had not told is lost; the new one has to ask."""

    def kill_and_start(step: int) -> None:
        if step == LIMIT // 2:
            site.nodes.pop(0).kill()
        if step == LIMIT - 5:
            site.start()

    answers = site.hops(kind, over=3, meanwhile=kill_and_start)
    assert all(answers[:LIMIT])
    assert sum(answers) <= MOST


def test_redis_dies_meanwhile(site: LimitedSite) -> None:
    """Each node counts for itself then: nobody is refused for it, nobody gets in unlimited."""
    caller, answers = site.caller("leave"), []
    for step in range(5 * LIMIT):
        if step == LIMIT // 2:
            site.redis.stop()
        answers.append(caller.gets_in(site.nodes[step % 3]))
    assert all(answers[:LIMIT])
    assert sum(answers) <= 3 * LIMIT
    site.redis.start()
    assert not any(caller.gets_in(node) for node in site.nodes)

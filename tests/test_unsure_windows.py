"""Windows of nodes that do not know everything: new ones, killed ones, forgetful ones."""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.exceptions import ConnectionError as RedisIsAway

from coordinator.redis import RedisClient, fail_fast_redis
from coordinator.standins.servers import EmbeddedRedis
from coordinator.web import shared_windows
from coordinator.web.remembered_callers import RememberedCallers
from coordinator.web.shared_windows import AT_ONCE, TENTH, QuickEval, SharedWindows, nothing_open
from tests.harness.limited import wait_for_redis
from tests.harness.ports import free_port
from tests.harness.windows import LIMIT, MINUTE, gets_in, has_told

NEW_SECONDS = shared_windows.NEW_SECONDS
MOST = LIMIT + LIMIT // TENTH
"""What all nodes may admit together."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy test machine is not a dead Redis."""
    wait_for_redis(monkeypatch)


@pytest_asyncio.fixture
async def redis(patience: None, redis_url: str) -> AsyncIterator[RedisClient]:
    client = fail_fast_redis(redis_url)
    yield client
    await client.aclose()


class UnsureNodes:
    """Nodes that count together; each is as old as its test says."""

    def __init__(self, redis: RedisClient) -> None:
        self.prefix = secrets.token_hex(4)
        self.made: list[SharedWindows] = []
        self._redis = redis

    def node(
        self,
        knows: int,
        *,
        age: float = NEW_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        quick_eval: QuickEval = nothing_open,
    ) -> SharedWindows:
        """One that knows of so many nodes, itself among them."""
        node = SharedWindows(self._redis, self.prefix, lambda: knows, clock, quick_eval)
        node._started_at -= age
        self.made.append(node)
        return node

    async def kill(self, node: SharedWindows) -> None:
        """What it has not told, it never tells."""
        if node._settling is not None:
            node._settling.cancel()
            await asyncio.gather(node._settling, return_exceptions=True)
        self.made.remove(node)


@pytest_asyncio.fixture
async def nodes(redis: RedisClient) -> AsyncIterator[UnsureNodes]:
    made = UnsureNodes(redis)
    yield made
    for node in made.made:
        await node.close()


async def got_in(node: SharedWindows, tries: int = 2 * LIMIT, kind: str = "join") -> int:
    """How many of so many requests of one caller, one after the other."""
    return sum([await gets_in(node, kind=kind) for _ in range(tries)])


# -- who does not know all nodes -------------------------------------------------------------------


async def test_a_node_that_has_not_heard_of_another_yet_admits_little_beside_it(
    nodes: UnsureNodes,
) -> None:
    """A list of nodes is some seconds old; meanwhile the new node may have served the caller."""
    old, new = nodes.node(knows=1), nodes.node(knows=2, age=0)
    assert await gets_in(old)
    await has_told(old)
    admitted = 1 + await got_in(new)
    assert admitted == LIMIT
    assert admitted + await got_in(old) <= MOST


async def test_two_nodes_do_not_know_of_a_third(nodes: UnsureNodes) -> None:
    """It has no share, but must not be the one that admits what both have not told."""
    several = [nodes.node(knows=2), nodes.node(knows=2), nodes.node(knows=3, age=0)]
    for _ in range(LIMIT):
        await gets_in(several[2])
    admitted = LIMIT + sum([await got_in(node, LIMIT) for node in several])
    assert LIMIT <= admitted <= MOST


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_node_is_killed_and_started_anew_meanwhile(
    nodes: UnsureNodes, number: int, seed: int
) -> None:
    """What it had not told is lost, and still no more gets in than the tenth."""
    chance = random.Random(seed)
    several = [nodes.node(knows=number) for _ in range(number)]
    when, admitted = chance.randrange(LIMIT // 2, LIMIT + 3), 0
    for step in range(4 * LIMIT):
        if step == when:
            await nodes.kill(several[0])
            several[0] = nodes.node(knows=number, age=chance.choice((0, NEW_SECONDS)))
        is_in = await gets_in(chance.choice(several))
        assert is_in or admitted >= LIMIT
        admitted += is_in
    assert admitted <= MOST


# -- who has forgotten -----------------------------------------------------------------------------


def test_a_flood_of_one_kind_forgets_nobody_of_another() -> None:
    callers: RememberedCallers[int] = RememberedCallers(100)
    callers.remember("create", "user_001", 1)
    forgotten = [callers.remember("join", f"2001:db8:{n}::/64", n) for n in range(1000)]
    assert callers.seen("create", "user_001") == 1
    assert forgotten.count(None) == 99
    assert {one[0] for one in forgotten if one is not None} == {"join"}


def test_who_was_seen_longest_ago_is_forgotten() -> None:
    callers: RememberedCallers[str] = RememberedCallers(2)
    assert callers.remember("join", "a", "A") is None
    assert callers.remember("join", "b", "B") is None
    assert callers.seen("join", "a") == "A"
    assert callers.remember("join", "c", "C") == ("join", "B")
    assert callers.seen("join", "b") is None


async def test_a_flood_of_joins_opens_no_other_window(
    nodes: UnsureNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_windows, "CALLERS", 8)
    node = nodes.node(knows=1)
    assert await got_in(node, kind="create") == LIMIT
    for number in range(100):
        await gets_in(node, f"2001:db8:{number}::/64")
    decided = node.admit("create", "a", LIMIT, MINUTE)
    assert decided is not None
    assert decided is not False, "it knew without asking"


@pytest.mark.parametrize("number", [1, 2])
async def test_who_is_forgotten_gets_no_new_window(
    nodes: UnsureNodes, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """However often: each time a share more would be all of the limit in the end."""
    monkeypatch.setattr(shared_windows, "CALLERS", 4)
    several = [nodes.node(knows=number) for _ in range(number)]
    admitted = 0
    for _ in range(12):
        for node in several:
            admitted += await got_in(node, LIMIT)
            await has_told(node)
            for _ in range(8):
                await gets_in(node, secrets.token_hex(4))
    assert LIMIT <= admitted <= MOST


async def test_who_comes_first_after_a_caller_was_forgotten_is_asked_about_once(
    nodes: UnsureNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where nobody had to be forgotten, not at all."""
    monkeypatch.setattr(shared_windows, "CALLERS", 2)
    now = time.monotonic()
    node = nodes.node(knows=1, clock=lambda: now)
    for who in ("a", "b"):
        assert node.admit("join", who, LIMIT, MINUTE) is None
    assert node.admit("join", "c", LIMIT, MINUTE) is False, "a was forgotten for it"
    assert await node.ask("join", "c", LIMIT, MINUTE) is None
    assert node.admit("join", "c", LIMIT, MINUTE) is None
    now += MINUTE
    assert node.admit("join", "d", LIMIT, MINUTE) is None, "what was forgotten counts no more"


async def test_what_is_untold_is_bounded_while_redis_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_windows, "CALLERS", 50)
    redis = fail_fast_redis(f"redis://127.0.0.1:{free_port()}/0")
    node = UnsureNodes(redis).node(knows=2)
    for number in range(1000):
        assert node.admit_alone("join", f"caller {number}", LIMIT, MINUTE) is None
    assert len(node._dirty) <= 101
    await node.close()
    await redis.aclose()


# -- who is told late ------------------------------------------------------------------------------


async def test_a_node_that_ends_tells_what_it_has_admitted(nodes: UnsureNodes) -> None:
    ends, stays = nodes.node(knows=2), nodes.node(knows=2)
    assert ends.admit("join", "a", 20, MINUTE) is None
    await ends.close()
    assert sum([await gets_in(stays, limit=20) for _ in range(30)]) == 19


async def test_what_is_told_late_counts_where_nobody_asked_for_it(
    nodes: UnsureNodes, redis: RedisClient
) -> None:
    """A node that was cut off from Redis tells of requests of long before the others' last look."""
    ago, is_cut_off = 10.0, True

    def evaluate(script: str, key: str, *arguments: Any) -> Awaitable[Any]:
        if is_cut_off:
            raise RedisIsAway
        return redis.eval(script, 1, key, *arguments)

    late = nodes.node(knows=2, clock=lambda: time.monotonic() - ago, quick_eval=evaluate)
    other = nodes.node(knows=2)
    for _ in range(LIMIT):
        assert late.admit_alone("join", "a", LIMIT, MINUTE) is None
    assert await other.ask("join", "a", LIMIT, MINUTE) is None
    ago, is_cut_off = 0.0, False
    await has_told(late)
    assert await got_in(other, 4 * LIMIT) <= LIMIT // TENTH


async def test_new_nodes_that_ask_before_each_request_hear_of_each_others_about_once(
    nodes: UnsureNodes, redis: RedisClient
) -> None:
    """Else, the more requests there are, the more each of them makes Redis tell."""
    heard = 0

    async def evaluate(script: str, key: str, *arguments: Any) -> Any:
        nonlocal heard
        answer = await redis.eval(script, 1, key, *arguments)
        heard += len(answer[2]) // 2
        return answer

    at = time.monotonic()  # all of it within one look back
    both = [nodes.node(knows=2, age=0, clock=lambda: at, quick_eval=evaluate) for _ in range(2)]
    for _ in range(100):
        for node in both:
            assert await node.ask("join", "a", 100_000, MINUTE) is None

    assert 198 <= heard < 2_000, "ten thousand, where each hears of all"


async def test_a_request_that_redis_has_not_answered_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis may have counted it before the node did; else the caller is refused one too early."""
    monkeypatch.setattr(shared_windows, "REDIS_SECONDS", 0.25)
    with EmbeddedRedis(tmp_path) as server:
        redis = fail_fast_redis(server.url)
        node = UnsureNodes(redis).node(knows=2, age=0)
        assert await gets_in(node)
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        assert await gets_in(node)
        server.process.send_signal(signal.SIGCONT)
        monkeypatch.setattr(shared_windows, "REDIS_SECONDS", 5.0)
        await has_told(node)
        assert await redis.zcard(f"{node._prefix}:join:a") == 2
        await node.close()
        await redis.aclose()


async def test_a_server_that_is_away_keeps_nobody_from_the_others(
    nodes: UnsureNodes, redis: RedisClient
) -> None:
    """Of a cluster, one; its callers come first."""

    def evaluate(script: str, key: str, *arguments: Any) -> Awaitable[Any]:
        if "lost" in key:
            raise RedisIsAway
        return redis.eval(script, 1, key, *arguments)

    node = nodes.node(knows=2, quick_eval=evaluate)
    for number in range(AT_ONCE):
        assert node.admit("join", f"lost {number}", LIMIT, MINUTE) is None
    assert node.admit("join", "a", LIMIT, MINUTE) is None
    async with asyncio.timeout(10):
        while not await redis.exists(f"{nodes.prefix}:join:a"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_redis_dies_while_a_caller_hops(tmp_path: Path) -> None:
    """Each node counts for itself then, on top of what it knew of the others."""
    server = EmbeddedRedis(tmp_path)
    redis = fail_fast_redis(server.url)
    nodes = UnsureNodes(redis)
    several = [nodes.node(knows=3) for _ in range(3)]
    with server:
        for number in range(LIMIT // 2):
            assert await gets_in(several[number % 3])
        for node in several:
            await has_told(node)
    for number in range(LIMIT // 2):
        assert await gets_in(several[number % 3])
    more = [await got_in(node) for node in several]
    assert sum(more) <= 2 * LIMIT
    with server:
        assert [await gets_in(node) for node in several] == [False] * 3
        for node in several:
            await node.close()
    await redis.aclose()

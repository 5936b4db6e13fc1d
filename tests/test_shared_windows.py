"""Windows that nodes count together without asking first: on a real Redis, by one clock."""

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

from coordinator.redis import AWAY, RedisClient, fail_fast_redis
from coordinator.redis_connection import connect
from coordinator.redis_url import parse_redis_url
from coordinator.standins.servers import EmbeddedRedis
from coordinator.web import shared_windows
from coordinator.web.shared_windows import TENTH, SharedWindows, nothing_open
from tests.harness.limited import wait_for_redis
from tests.harness.patience import long_enough, patient, untraced
from tests.harness.ports import free_port
from tests.harness.windows import LIMIT, MINUTE, gets_in, has_told


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy test machine is not a dead Redis; and the nodes are not new."""
    wait_for_redis(monkeypatch)
    monkeypatch.setattr(shared_windows, "NEW_SECONDS", 0.0)


@pytest_asyncio.fixture
async def redis(patience: None, redis_url: str) -> AsyncIterator[RedisClient]:
    client = fail_fast_redis(redis_url)
    yield client
    await client.aclose()


MakeNodes = Callable[[int], list[SharedWindows]]


@pytest_asyncio.fixture(params=["by the client", "by an open connection"])
async def nodes(
    request: pytest.FixtureRequest, redis: RedisClient, redis_url: str
) -> AsyncIterator[MakeNodes]:
    """Makes so many nodes that count together."""
    made: list[SharedWindows] = []
    target = parse_redis_url(redis_url)
    connection = await connect(target, (target.addresses or (None,))[0], lambda *_: None)

    def evaluate(script: str, key: str, *arguments: Any) -> Awaitable[Any]:
        return connection.request(b"EVAL", script, 1, key, *arguments)

    quick_eval = nothing_open if request.param == "by the client" else evaluate

    def make(number: int) -> list[SharedWindows]:
        prefix = secrets.token_hex(4)
        new = [
            SharedWindows(redis, prefix, lambda: number, time.monotonic, quick_eval)
            for _ in range(number)
        ]
        made.extend(new)
        return new

    yield make
    for node in made:
        await node.close()
    connection.abort("done")


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_caller_that_hops_is_not_refused_below_the_limit_and_gets_little_above(
    nodes: MakeNodes, number: int, seed: int
) -> None:
    chance = random.Random(seed)
    several = nodes(number)
    admitted = 0
    for _ in range(4 * LIMIT):
        node = chance.choice(several) if chance.random() < 0.5 else several[0]
        is_in = await gets_in(node)
        assert is_in or admitted >= LIMIT
        admitted += is_in
        if chance.random() < 0.05:
            await asyncio.sleep(chance.choice((0, 0.001, 0.06)))
    share = LIMIT // (TENTH * number)
    assert LIMIT <= admitted <= LIMIT + (number - 1) * share


@pytest.mark.parametrize("number", [2, 3])
async def test_a_flood_at_all_nodes_at_once_gets_little_above_the_limit(
    nodes: MakeNodes, number: int
) -> None:
    calls = [gets_in(node) for node in nodes(number) for _ in range(2 * LIMIT)]
    admitted = sum(await asyncio.gather(*calls))
    assert LIMIT <= admitted <= LIMIT + LIMIT // TENTH


async def test_the_usual_request_awaits_nothing(nodes: MakeNodes) -> None:
    node, _ = nodes(2)
    assert node.admit("join", "a", LIMIT, MINUTE) is None
    await has_told(node)
    assert node.admit("join", "a", LIMIT, MINUTE) is None


async def test_a_high_limit_costs_no_more_than_a_low_one(nodes: MakeNodes) -> None:
    """Of requests that leave a window one by one, and of those that find it full."""
    node, _ = nodes(2)
    now, limit = time.monotonic(), 100_000
    node._clock = lambda: now
    assert await gets_in(node, limit=limit)
    window = node._callers.seen("join", "a")
    assert window is not None
    window.others = {b"other:%d" % n: now - MINUTE + n / 1000 for n in range(limit // 2)}
    began = time.process_time()
    with untraced():
        for _ in range(500):
            now += 0.001
            assert node.admit("join", "a", limit, MINUTE) is None
        window.others |= {b"more:%d" % n: now for n in range(limit)}
        for _ in range(500):
            assert node.admit("join", "a", limit, MINUTE) not in (None, False)
    assert time.process_time() - began < 0.5


async def test_a_new_node_asks_first(
    nodes: MakeNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_windows, "NEW_SECONDS", 10.0)
    old, new = nodes(2)
    monkeypatch.setattr(old, "_started_at", time.monotonic() - 20)
    for _ in range(LIMIT):
        assert await gets_in(old)
    await has_told(old)
    assert new.admit("join", "a", LIMIT, MINUTE) is False
    assert not await gets_in(new)


async def test_a_new_node_that_is_alone_asks_once_for_each_caller(
    nodes: MakeNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the one before, started anew; afterwards it knows what that one had admitted."""
    monkeypatch.setattr(shared_windows, "NEW_SECONDS", 10.0)
    before, restarted = nodes(2)
    monkeypatch.setattr(restarted, "_nodes", lambda: 1)
    for _ in range(LIMIT - 2):
        assert await gets_in(before)
    assert restarted.admit("join", "a", LIMIT, MINUTE) is False
    assert await restarted.ask("join", "a", LIMIT, MINUTE) is None
    assert restarted.admit("join", "a", LIMIT, MINUTE) is None
    assert restarted.admit("join", "a", LIMIT, MINUTE) not in (None, False)


async def test_what_the_others_admitted_counts(nodes: MakeNodes) -> None:
    one, other = nodes(2)
    for _ in range(LIMIT):
        assert await gets_in(one)
    await has_told(one)
    assert sum([await gets_in(other) for _ in range(LIMIT)]) <= LIMIT // TENTH


async def test_callers_and_kinds_have_windows_of_their_own(nodes: MakeNodes) -> None:
    (node,) = nodes(1)
    assert sum([await gets_in(node, "a", limit=3) for _ in range(5)]) == 3
    assert sum([await gets_in(node, "b", limit=3) for _ in range(5)]) == 3
    assert await gets_in(node, "a", limit=3, kind="view")


async def test_the_window_slides_on_every_node(nodes: MakeNodes) -> None:
    one, other = nodes(2)
    window = long_enough(1)  # in which fourteen requests have to be made
    assert sum([await gets_in(one, limit=5, seconds=window) for _ in range(9)]) == 5
    wait = await other.ask("join", "a", 5, window)
    assert wait is not None
    assert 0 < wait <= window
    await asyncio.sleep(wait + 0.05)
    assert await gets_in(other, limit=5, seconds=window)
    assert await gets_in(one, limit=5, seconds=window)


async def test_nobody_waits_for_a_redis_that_is_away() -> None:
    redis = fail_fast_redis(f"redis://127.0.0.1:{free_port()}/0")
    node = SharedWindows(redis, "x", lambda: 1, time.monotonic, nothing_open)
    started = time.monotonic()
    admitted = sum([await gets_in(node) for _ in range(2 * LIMIT)])
    assert admitted == LIMIT
    assert time.monotonic() - started < 1
    await node.close()
    await redis.aclose()


async def test_a_redis_that_returns_hears_what_was_admitted_without_it(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    redis = fail_fast_redis(server.url)
    one, other = [
        SharedWindows(redis, "x", lambda: 2, time.monotonic, nothing_open) for _ in range(2)
    ]
    for _ in range(LIMIT):
        assert one.admit_alone("join", "a", LIMIT, MINUTE) is None
    with server:
        async with asyncio.timeout(patient(20)):
            while await other.ask("join", "a", LIMIT, MINUTE) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    for node in (one, other):
        await node.close()
    await redis.aclose()


async def test_who_waits_behind_others_waits_for_a_hung_redis_no_longer_than_they(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a burst of joins at a node that has just started is refused after its 5 s."""
    monkeypatch.setattr(shared_windows, "REDIS_SECONDS", 0.25)
    monkeypatch.setattr(shared_windows, "NEW_SECONDS", MINUTE)
    with EmbeddedRedis(tmp_path) as server:
        redis = fail_fast_redis(server.url)
        tries = 0

        def evaluate(*arguments: Any, ask: Any = redis.eval) -> Any:
            nonlocal tries
            tries += 1
            return ask(*arguments)

        monkeypatch.setattr(redis, "eval", evaluate)
        node = SharedWindows(redis, "x", lambda: 2, time.monotonic, nothing_open)
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        one = [node.ask("join", "a", LIMIT, MINUTE) for _ in range(40)]
        many = [node.ask("join", f"caller {number}", LIMIT, MINUTE) for number in range(40)]
        answers = await asyncio.gather(*one, *many, return_exceptions=True)
        server.process.send_signal(signal.SIGCONT)

        assert all(isinstance(answer, AWAY) for answer in answers), answers
        assert tries <= shared_windows.AT_ONCE
        await node.close()
        await redis.aclose()

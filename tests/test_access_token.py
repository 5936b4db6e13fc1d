"""WeChat's access token: one for all nodes, whatever happens to it, to Redis or to WeChat."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from coordinator.domain.errors import Unavailable
from coordinator.platforms.access_token import AccessTokens
from coordinator.redis import RedisClient, fail_fast_redis
from tests.harness.ports import free_port


class Platform:
    """Hands out `token-1`, `token-2` …; the same one again unless `switches` or by force."""

    def __init__(self) -> None:
        self.asked: list[bool] = []
        self.was_asked = asyncio.Event()
        self.number = 1
        self.switches = False
        self.lifetime = 7200.0
        self.down = False
        self.slow = 0.05
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def fetch(self, force: bool) -> tuple[str, float]:
        self.asked.append(force)
        self.was_asked.set()
        await asyncio.sleep(self.slow)
        await self.may_answer.wait()
        if self.down:
            raise Unavailable
        if force or (self.switches and len(self.asked) > 1):
            self.number += 1
        return f"token-{self.number}", self.lifetime


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """As patient as a busy test machine needs it."""
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def nodes(platform: Platform, clock: Clock, redis: Redis) -> tuple[AccessTokens, AccessTokens]:
    """Two nodes of one deployment."""
    prefix = secrets.token_hex(4)
    return (
        AccessTokens(platform.fetch, redis, prefix, clock=clock),
        AccessTokens(platform.fetch, redis, prefix, clock=clock),
    )


Nodes = tuple[AccessTokens, AccessTokens]


async def test_twenty_calls_on_two_nodes_fetch_one_token(nodes: Nodes, platform: Platform) -> None:
    tokens = await asyncio.gather(*(nodes[i % 2].current() for i in range(20)))
    assert set(tokens) == {"token-1"}
    assert platform.asked == [False]


async def test_a_token_is_renewed_five_minutes_before_its_end(
    nodes: Nodes, platform: Platform, clock: Clock
) -> None:
    platform.switches = True
    await nodes[0].current()
    clock.now += 7200 - 301
    assert await nodes[0].current() == "token-1"
    clock.now += 4
    assert await nodes[0].current() == "token-2"
    assert await nodes[1].current() == "token-2"
    assert len(platform.asked) == 2


async def test_while_one_node_renews_the_others_use_the_old_token(
    nodes: Nodes, platform: Platform, clock: Clock
) -> None:
    platform.switches = True
    await nodes[0].current()
    await nodes[1].current()
    clock.now += 7200 - 290
    platform.may_answer.clear()
    platform.was_asked.clear()
    renewing = asyncio.create_task(nodes[0].current())
    await platform.was_asked.wait()
    assert await nodes[1].current() == "token-1"
    assert not renewing.done()
    platform.may_answer.set()
    assert await renewing == "token-2"


async def test_a_refused_token_is_fetched_anew_once_for_everybody(
    nodes: Nodes, platform: Platform
) -> None:
    await asyncio.gather(nodes[0].current(), nodes[1].current())
    platform.switches = True
    tokens = await asyncio.gather(*(nodes[i % 2].after_refusal("token-1") for i in range(20)))
    assert set(tokens) == {"token-2"}
    assert platform.asked == [False, False]


async def test_a_late_refusal_of_the_old_token_does_not_cost_the_new_one(
    nodes: Nodes, platform: Platform
) -> None:
    await nodes[0].current()
    platform.switches = True
    assert await nodes[0].after_refusal("token-1") == "token-2"
    assert await nodes[0].after_refusal("token-1") == "token-2"
    assert await nodes[1].after_refusal("token-1") == "token-2"
    assert len(platform.asked) == 2


async def test_the_same_bad_token_again_is_replaced_by_force_and_not_twice(
    nodes: Nodes, platform: Platform
) -> None:
    await nodes[0].current()
    assert await nodes[0].after_refusal("token-1") == "token-2"
    assert platform.asked == [False, False, True]
    assert await nodes[1].after_refusal("token-2") == "token-2"
    assert platform.asked == [False, False, True, False]


async def test_a_good_token_outlives_a_platform_that_is_down(
    nodes: Nodes, platform: Platform, clock: Clock
) -> None:
    await nodes[0].current()
    clock.now += 7200 - 200
    platform.down = True
    assert await nodes[0].current() == "token-1"
    assert await nodes[0].current() == "token-1"
    assert len(platform.asked) == 2, "a failed renewal is not repeated by every call"


async def test_after_a_failure_the_next_call_works(nodes: Nodes, platform: Platform) -> None:
    platform.down = True
    with pytest.raises(Unavailable):
        await nodes[0].current()
    platform.down = False
    assert await nodes[1].current() == "token-1"


async def test_who_gives_up_waiting_does_not_take_the_token_from_the_others(
    nodes: Nodes, platform: Platform
) -> None:
    platform.slow = 0.5
    impatient = asyncio.create_task(nodes[0].current())
    patient = asyncio.create_task(nodes[0].current())
    await platform.was_asked.wait()
    impatient.cancel()
    assert await patient == "token-1"
    assert platform.asked == [False]


async def test_without_redis_each_node_has_a_token(platform: Platform) -> None:
    redis = fail_fast_redis(f"redis://127.0.0.1:{free_port()}/0")
    one, two = (AccessTokens(platform.fetch, redis, "p") for _ in range(2))
    for _ in range(3):
        assert await one.current() == await two.current() == "token-1"
    assert len(platform.asked) == 2
    platform.switches = True
    assert await one.after_refusal("token-1") == "token-2"


@pytest.fixture
def silent_redis() -> Iterator[RedisClient]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield fail_fast_redis(f"redis://127.0.0.1:{server.getsockname()[1]}/0")


async def test_a_redis_that_hangs_holds_nobody_up(
    silent_redis: RedisClient, platform: Platform
) -> None:
    tokens = AccessTokens(platform.fetch, silent_redis, "p")
    started = time.monotonic()
    assert await tokens.current() == "token-1"
    assert time.monotonic() - started < 2.5


async def test_a_node_that_died_while_fetching_holds_the_others_up_for_seconds_only(
    nodes: Nodes, platform: Platform, redis: Redis
) -> None:
    key = nodes[0]._key
    await redis.set(f"{key}:lock", "the dead node", px=400)
    assert await nodes[0].current() == "token-1"


async def test_rubbish_in_redis_is_written_over(
    nodes: Nodes, platform: Platform, redis: Redis
) -> None:
    await redis.set(nodes[0]._key, b"rubbish")
    assert await nodes[0].current() == "token-1"
    assert await nodes[1].current() == "token-1"
    assert len(platform.asked) == 1

"""A node that alone loses Postgres or Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis
from coordinator.store.database import Database
from tests.harness.node import Deployment, NodeProcess
from tests.harness.observing import becomes, gapless, joins_are_seen, kinds_of
from tests.harness.people import (
    Api,
    Guest,
    Host,
)
from tests.harness.promises import deliveries_within, logged
from tests.harness.tcp_proxy import TcpProxy


class Wired:
    """A node that reaches Postgres and Redis through cables of its own."""

    def __init__(self, ground: Deployment, postgres: EmbeddedPostgres, redis: EmbeddedRedis):
        assert postgres.port is not None
        self.ground = ground
        self.postgres = TcpProxy(postgres.port)
        self.redis = TcpProxy(redis.port)

    async def start(self) -> NodeProcess:
        await self.postgres.start()
        await self.redis.start()
        return await asyncio.to_thread(
            self.ground.node,
            DATABASE_URL=f"postgresql://postgres@127.0.0.1:{self.postgres.port}/coordinator",
            REDIS_URL=f"redis://127.0.0.1:{self.redis.port}/0",
        )


@pytest_asyncio.fixture
async def wired(
    ground: Deployment, postgres: EmbeddedPostgres, redis: EmbeddedRedis
) -> AsyncIterator[Wired]:
    one = Wired(ground, postgres, redis)
    yield one
    await one.postgres.close()
    await one.redis.close()


@pytest.mark.parametrize("how", ["cut", "hang"])
async def test_a_node_that_alone_loses_postgres_moves_its_clients(
    ground: Deployment, apis: Callable[[NodeProcess], Api], own: Database, wired: Wired, how: str
) -> None:
    a, b = apis(await asyncio.to_thread(ground.node)), apis(await wired.start())
    boss = await Host.hired(own, a)
    room = await boss.creates()
    watching = await boss.connects(room, at=a)
    guest = await Guest(b).joins(room)
    live = await guest.connects(at=b)

    cut = time.time()
    getattr(wired.postgres, how)()
    assert await live.is_put_out(20) == 4200
    assert await logged(b.node, "cut_off_from_postgres", after=cut) - cut < 20
    await guest.connects(at=a)  # at once: soon a's judge counts it as away, then as gone
    refused = await b.watch(room, guest.token)
    assert await refused.is_put_out() == 4200
    wired.postgres.mend()
    await becomes(b, "ready")
    await asyncio.sleep(0.5)
    await (await guest.connects(at=b)).hears_pong()
    assert "left" not in kinds_of(await boss.log(room), guest.user_id)
    assert gapless(watching)


@pytest.mark.parametrize("how", ["cut", "hang"])
async def test_a_node_that_alone_loses_redis_misses_nothing(
    ground: Deployment, apis: Callable[[NodeProcess], Api], own: Database, wired: Wired, how: str
) -> None:
    a, b = apis(await asyncio.to_thread(ground.node)), apis(await wired.start())
    boss = await Host.hired(own, a)
    room = await boss.creates()
    watching = [await boss.connects(room, at=a), await boss.connects(room, at=b)]

    getattr(wired.redis, how)()
    async with deliveries_within(5, a, b):  # the contract's limit for what no message tells
        for at in (a, b):
            await joins_are_seen(at, room, watching)
    await becomes(b, "degraded")
    wired.redis.mend()
    for at in (a, b):  # the other one may have found this one deaf
        await becomes(at, "ready")
    async with deliveries_within(1, a, b):  # less than any poll takes
        for at in (a, b):
            await joins_are_seen(at, room, watching)
    assert all(gapless(live) for live in watching)

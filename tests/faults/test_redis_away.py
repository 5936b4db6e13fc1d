"""Redis dies, hangs or forgets: everything goes on, and nothing is lost."""

from __future__ import annotations

import signal
import socket
import time

from coordinator.standins.servers import EmbeddedRedis
from tests.harness.observing import becomes, gapless, joins_are_seen
from tests.harness.people import (
    Api,
    Guest,
    Host,
)
from tests.harness.promises import deliveries_within, logged

RESET_NOTICED, HALF_OPEN_NOTICED, FULL_USE = 1, 5, 5
"""Seconds: until a node knows that Redis is away, and until it is of full use after its return."""
REPAIR, DEGRADED_DELIVERY = 5, 2
"""Seconds from commit to delivery where no message tells of an event; the same without Redis."""
ANNOUNCED_DELIVERY = 1
"""The same where a message tells of it: less than any poll takes."""


async def both_use_redis(pair: tuple[Api, Api]) -> None:
    """What the test before did to Redis is over: who knows already that it is away notices nothing.
    """
    for each in pair:
        await becomes(each, "ready")


async def test_redis_killed_everything_goes_on_and_nothing_is_lost(
    pair: tuple[Api, Api], boss: Host, redis: EmbeddedRedis
) -> None:
    a, b = pair
    room = await boss.creates()
    watching = [await boss.connects(room, at=a), await boss.connects(room, at=b)]
    await both_use_redis(pair)
    killed = time.time()
    try:
        redis.kill()
        for each in pair:
            await becomes(each, "degraded")
            assert await logged(each.node, "redis_down", after=killed) - killed < RESET_NOTICED
        assert (await a.get("/health/ready")).status_code == 200
        async with deliveries_within(DEGRADED_DELIVERY, a, b):
            for at in (a, b, a, b):
                await joins_are_seen(at, room, watching)
        guest = await Guest(b).joins(room)
        await (await guest.connects(at=b)).hears_pong()
    finally:
        redis.start()
    is_back = time.time()
    for each in pair:
        await becomes(each, "ready")
        assert await logged(each.node, "redis_up", after=killed) - is_back < FULL_USE
    async with deliveries_within(ANNOUNCED_DELIVERY, a, b):
        for at in (a, b):
            await joins_are_seen(at, room, watching)
    assert all(gapless(live) for live in watching)


async def test_redis_that_hangs_is_noticed_and_nothing_is_lost(
    pair: tuple[Api, Api], boss: Host, redis: EmbeddedRedis
) -> None:
    a, b = pair
    room = await boss.creates()
    watching = [await boss.connects(room, at=a), await boss.connects(room, at=b)]
    assert redis.process is not None
    await both_use_redis(pair)
    hung = time.time()
    redis.process.send_signal(signal.SIGSTOP)
    try:
        async with deliveries_within(REPAIR, a, b):
            await joins_are_seen(a, room, watching)
        for each in pair:
            await becomes(each, "degraded")
            assert await logged(each.node, "redis_down", after=hung) - hung < HALF_OPEN_NOTICED
        async with deliveries_within(DEGRADED_DELIVERY, a, b):
            for at in (a, b):
                await joins_are_seen(at, room, watching)
    finally:
        is_back = time.time()
        redis.process.send_signal(signal.SIGCONT)
    for each in pair:
        await becomes(each, "ready")
        assert await logged(each.node, "redis_up", after=is_back) - is_back < FULL_USE
    async with deliveries_within(ANNOUNCED_DELIVERY, a, b):
        await joins_are_seen(a, room, watching)
    assert all(gapless(live) for live in watching)


async def test_a_sixth_connection_closes_the_oldest_also_where_redis_is_away(
    pair: tuple[Api, Api], boss: Host, redis: EmbeddedRedis
) -> None:
    """Else the oldest would come back, push out the next one, and so on for ever."""
    a, b = pair
    guest = await Guest(a).joins(await boss.creates())
    lives = [await guest.connects(at=a) for _ in range(5)]
    redis.kill()
    try:
        await becomes(b, "degraded")
        sixth = await guest.connects(at=b)
        assert await lives[0].is_put_out(7) == 4006
        for live in (*lives[1:], sixth):
            await live.hears_pong()
    finally:
        redis.start()
    await becomes(a, "ready")
    await becomes(b, "ready")


async def test_redis_flushed_loses_nothing(
    pair: tuple[Api, Api], boss: Host, redis: EmbeddedRedis
) -> None:
    a, b = pair
    room = await boss.creates()
    watching = [await boss.connects(room, at=a), await boss.connects(room, at=b)]
    for command in (b"FLUSHALL\r\n", b"CLIENT KILL TYPE pubsub\r\n"):
        with socket.create_connection(("127.0.0.1", redis.port)) as connection:
            connection.sendall(command)
            connection.recv(100)
    async with deliveries_within(REPAIR, a, b):
        for at in (a, b, a):
            await joins_are_seen(at, room, watching)
    await becomes(a, "ready")
    assert all(gapless(live) for live in watching)

"""Redis dies, hangs or forgets: everything goes on, and nothing is lost."""

from __future__ import annotations

import signal
import socket

from coordinator.standins.servers import EmbeddedRedis
from tests.harness.observing import becomes, gapless, joins_are_seen
from tests.harness.people import (
    Api,
    Guest,
    Host,
)


async def test_redis_killed_everything_goes_on_and_nothing_is_lost(
    pair: tuple[Api, Api], boss: Host, redis: EmbeddedRedis
) -> None:
    a, b = pair
    room = await boss.creates()
    watching = [await boss.connects(room, at=a), await boss.connects(room, at=b)]
    try:
        redis.kill()
        await becomes(a, "degraded", within=1.5)
        await becomes(b, "degraded", within=1.5)
        assert (await a.get("/health/ready")).status_code == 200
        for at in (a, b, a, b):
            await joins_are_seen(at, room, watching, within=2.3)
        guest = await Guest(b).joins(room)
        await (await guest.connects(at=b)).hears_pong()
    finally:
        redis.start()
    await becomes(a, "ready", within=5)
    await becomes(b, "ready", within=5)
    for at in (a, b):
        await joins_are_seen(at, room, watching, within=0.5)
    assert all(gapless(live) for live in watching)


async def test_redis_that_hangs_is_noticed_and_nothing_is_lost(
    pair: tuple[Api, Api], boss: Host, redis: EmbeddedRedis
) -> None:
    a, b = pair
    room = await boss.creates()
    watching = [await boss.connects(room, at=a), await boss.connects(room, at=b)]
    assert redis.process is not None
    redis.process.send_signal(signal.SIGSTOP)
    try:
        await joins_are_seen(a, room, watching, within=5.0)
        await becomes(a, "degraded", within=5.0)
        await becomes(b, "degraded", within=1.0)
        for at in (a, b):
            await joins_are_seen(at, room, watching, within=2.3)
    finally:
        redis.process.send_signal(signal.SIGCONT)
    await becomes(a, "ready", within=5)
    await becomes(b, "ready", within=5)
    await joins_are_seen(a, room, watching, within=1)
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
        await becomes(b, "degraded", within=1.5)
        sixth = await guest.connects(at=b)
        assert await lives[0].is_put_out(7) == 4006
        for live in (*lives[1:], sixth):
            await live.hears_pong()
    finally:
        redis.start()
    await becomes(a, "ready", within=5)
    await becomes(b, "ready", within=5)


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
    for at in (a, b, a):
        await joins_are_seen(at, room, watching, within=5)
    await becomes(a, "ready", within=5)
    assert all(gapless(live) for live in watching)

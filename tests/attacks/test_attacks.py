"""Strangers at work, on loopback and bounded: an honest room beside them does not notice.

Slow heads and bodies, floods of connections and of pipelined requests, large answers that nobody
reads. What is promised under attack: an event is heard within a second, `/health/live` answers
within half a second. A machine that is slow before the attack is not slow because of it: the bounds
grow with what was measured in peace.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from coordinator.store.database import Database
from tests.harness.node import Deployment
from tests.harness.people import Api, Guest, Host

SECONDS = 5.0
EVENT_SECONDS, HEALTH_SECONDS = 1.0, 0.5
LORISES, FLOODERS, DEAF = 150, 20, 20

Attack = Callable[[int, str], Awaitable[None]]


async def slow_loris(port: int, room: str) -> None:
    """A head that never ends, a few bytes at a time."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /api/interview/guest/join HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n")
    while True:
        writer.write(b"x: y\r\n")
        await asyncio.sleep(0.1)


async def flood(port: int, room: str) -> None:
    """Connections that come, ask many things at once, and go."""
    request = f"GET /api/interview/room/{room} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request * 20 + b"nonsense\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        await asyncio.sleep(0.05)


async def amplification(port: int, room: str) -> None:
    """Small questions for large answers, which are never read."""
    request = f"GET /api/interview/room/{room} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    transport = writer.transport
    assert isinstance(transport, asyncio.ReadTransport)
    transport.pause_reading()
    while True:
        if transport.get_write_buffer_size() < 65536:
            writer.write(request * 10)
        await asyncio.sleep(0.05)


ATTACKS: dict[Attack, int] = {slow_loris: LORISES, flood: FLOODERS, amplification: DEAF}


@contextlib.asynccontextmanager
async def under_attack(port: int, room: str) -> AsyncIterator[None]:
    """All of them together."""
    attackers = [
        asyncio.create_task(_again(attack, port, room))
        for attack, number in ATTACKS.items()
        for _ in range(number)
    ]
    yield
    for attacker in attackers:
        attacker.cancel()
    await asyncio.gather(*attackers, return_exceptions=True)


async def _again(attack: Attack, port: int, room: str) -> None:
    while True:
        with contextlib.suppress(OSError):
            await attack(port, room)
        await asyncio.sleep(0.05)


async def measured(api: Api, host: Host, room: str, seconds: float) -> tuple[float, float]:
    """The slowest event (from the call to the other's ear) and the slowest health, in seconds."""
    live = await host.connects(room, at=api)
    event = health = 0.0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        started = time.monotonic()
        assert (await api.get("/health/live")).status_code == 200
        health = max(health, time.monotonic() - started)
        started = time.monotonic()
        guest = await Guest(api).joins(room)
        await live.sees("participant_joined", patience=30, user_id=guest.user_id)
        event = max(event, time.monotonic() - started)
        await asyncio.sleep(0.1)
    await live.hangs_up()
    return event, health


@pytest_asyncio.fixture
async def attacked(deployment: Deployment) -> AsyncIterator[Api]:
    api = Api(deployment.node(RATE_LIMITS="join=1000000/minute"))
    yield api
    await api.aclose()


@pytest.mark.timeout(120)
async def test_an_honest_room_does_not_notice_an_attack(
    attacked: Api, database: Database
) -> None:
    host = await Host.hired(database, attacked)
    honest, crowded = await host.creates(), await host.creates()
    await database.execute(
        """
        INSERT INTO interview_participants
            (room_id, user_id, user_name, role, joined_at, joined_seq)
        SELECT $1, 'guest_' || n, repeat('李', 100), 'guest', clock_timestamp(), 1 + n
        FROM generate_series(1, 2000) AS n
        """,
        crowded,
    )
    await database.execute(
        "UPDATE interview_rooms SET present = 2001, guests = 2000 WHERE room_id = $1", crowded
    )
    quiet_event, quiet_health = await measured(attacked, host, honest, SECONDS / 2)
    async with under_attack(attacked.node.port, crowded):
        event, health = await measured(attacked, host, honest, SECONDS)
    assert event < max(EVENT_SECONDS, 10 * quiet_event), (event, quiet_event)
    assert health < max(HEALTH_SECONDS, 10 * quiet_health), (health, quiet_health)
    assert "request_failed" not in attacked.node.logs()

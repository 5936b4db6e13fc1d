"""Strangers at work, on loopback and bounded: everything at once that was ever tried on a node.

    python -m tests.attacks.strangers '{"port": 3000, …}'      until its input ends

runs in a process of its own, so that whoever measures beside it does not wait for it. Each attack
goes on for ever: where the node hangs up it comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import Awaitable, Callable

import msgspec
from redis.asyncio import Redis

from tests.harness.wire import BINARY, PING, TEXT, frame, upgrade


class AttackTarget(msgspec.Struct, frozen=True, kw_only=True):
    """What the strangers know.

    Attributes:
        room: one with many people in it.
        guest: the token of one of them.
        key: of the open API; `interview` has a report as large as it may be.
        redis_url: whoever got there may publish what it likes.
    """

    port: int
    room: str
    guest: str
    key: str
    interview: str
    redis_url: str


Attack = Callable[[AttackTarget], Awaitable[None]]
PACE = 0.05


async def _connection(target: AttackTarget) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", target.port)


def _get(path: str, *headers: str) -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", "host: x", *headers, "", "")).encode()


async def slow_heads(target: AttackTarget) -> None:
    """A head that never ends, a few bytes at a time."""
    _, writer = await _connection(target)
    writer.write(b"POST /api/interview/guest/join HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n")
    while not writer.is_closing():
        writer.write(b"x: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.1)


async def slow_bodies(target: AttackTarget) -> None:
    """A body that never ends."""
    _, writer = await _connection(target)
    writer.write(
        b"POST /api/interview/guest/join HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n{"
    )
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.1)


async def idlers(target: AttackTarget) -> None:
    """One request, and then only line ends, which used to keep a connection for ever."""
    _, writer = await _connection(target)
    writer.write(_get("/health/live"))
    while not writer.is_closing():
        writer.write(b"\r\n")
        await writer.drain()
        await asyncio.sleep(0.1)


async def large_heads(target: AttackTarget) -> None:
    """Headers by the megabyte, large and small ones."""
    for line in (b"x: " + b"y" * 1_000_000, b"x: y\r\n" * 100_000):
        reader, writer = await _connection(target)
        writer.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\n" + line)
        await reader.read()
        writer.close()
        await asyncio.sleep(PACE)


async def flood(target: AttackTarget) -> None:
    """Connections that come, ask many things at once, and go."""
    reader, writer = await _connection(target)
    writer.write(_get(f"/api/interview/room/{target.room}") * 20 + b"nonsense\r\n\r\n")
    await reader.read()
    writer.close()
    await asyncio.sleep(PACE)


async def amplification(target: AttackTarget) -> None:
    """Small questions for large answers, which are never read."""
    _, writer = await _connection(target)
    transport = writer.transport
    assert isinstance(transport, asyncio.ReadTransport)
    transport.pause_reading()
    while not writer.is_closing():
        if transport.get_write_buffer_size() < 65536:
            writer.write(_get(f"/api/interview/room/{target.room}") * 10)
        await asyncio.sleep(PACE)


async def reports(target: AttackTarget) -> None:
    """The largest report that there may be, and lists of a hundred, again and again."""
    reader, writer = await _connection(target)
    key = f"X-API-Key: {target.key}"
    path = f"/api/open/interviews/{target.interview}"
    for asked in (path, f"{path}/report", "/api/open/interviews?pageSize=100"):
        writer.write(_get(asked, key))
    writer.write(_get("/health/live", "connection: close"))
    await reader.read()
    writer.close()


async def wrong_keys(target: AttackTarget) -> None:
    """Guesses at a key."""
    reader, writer = await _connection(target)
    for _ in range(20):
        writer.write(_get("/api/open/jobs", f"X-API-Key: {secrets.token_hex(16)}"))
    writer.write(_get("/health/live", "connection: close"))
    await reader.read()
    writer.close()
    await asyncio.sleep(PACE)


async def joiners(target: AttackTarget) -> None:
    """Guests who join and never connect."""
    body = msgspec.json.encode({"roomId": target.room, "userName": secrets.token_hex(8)})
    reader, writer = await _connection(target)
    head = f"POST /api/interview/guest/join HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    writer.write((head.encode() + b"\r\n" + body) * 10 + _get("/x", "connection: close"))
    await reader.read()
    writer.close()
    await asyncio.sleep(PACE)


async def frames(target: AttackTarget) -> None:
    """Frames of every kind as fast as they go, over a connection that is let in."""
    path = f"/api/interview/room/{target.room}/live"
    reader, writer = await _connection(target)
    writer.write(upgrade("x", path, (f"Authorization: Bearer {target.guest}",)))
    many = (frame(PING, b"") + frame(TEXT, b'{"type":"sync"}') + frame(BINARY, b"x" * 1000)) * 100
    listening = asyncio.create_task(reader.read(-1))
    try:
        while not writer.is_closing() and not listening.done():
            writer.write(many)
            await writer.drain()
            await asyncio.sleep(0)
    finally:
        listening.cancel()


async def silent_sockets(target: AttackTarget) -> None:
    """Upgrades that never say who they are."""
    reader, writer = await _connection(target)
    writer.write(upgrade("x", f"/api/interview/room/{target.room}/live"))
    await reader.read()
    writer.close()


async def forgers(target: AttackTarget) -> None:
    """Whoever reaches Redis says what it likes on the nodes' channels."""
    redis = Redis.from_url(target.redis_url)
    while True:
        for channel in await redis.pubsub_channels():
            await redis.publish(channel, os.urandom(200))
        await asyncio.sleep(0.02)


ATTACKS: dict[Attack, int] = {
    slow_heads: 60, slow_bodies: 40, idlers: 40, large_heads: 4, flood: 10, amplification: 10,
    reports: 2, wrong_keys: 4, joiners: 4, frames: 3, silent_sockets: 40, forgers: 1,
}  # fmt: skip
"""How many of each are at work at once."""


async def _again(attack: Attack, target: AttackTarget) -> None:
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await attack(target)
        await asyncio.sleep(PACE)


async def _all(target: AttackTarget) -> None:
    attackers = [
        asyncio.create_task(_again(attack, target))
        for attack, number in ATTACKS.items()
        for _ in range(number)
    ]
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.wait([ended, *attackers], return_when=asyncio.FIRST_COMPLETED)
    at_work = set(attackers)
    while at_work:  # redis-py loses a cancel now and then, by Python 3.11's `asyncio.wait_for`
        for attacker in at_work:
            attacker.cancel()
        _, at_work = await asyncio.wait(at_work, timeout=0.5)
    for error in await asyncio.gather(*attackers, return_exceptions=True):
        if not isinstance(error, asyncio.CancelledError):
            raise RuntimeError("an attack has ended") from error


if __name__ == "__main__":
    asyncio.run(_all(msgspec.json.decode(sys.argv[1], type=AttackTarget)))

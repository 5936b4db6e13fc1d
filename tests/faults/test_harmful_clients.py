"""Clients that do harm: they stop reading, never finish, come in crowds."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from coordinator.store.database import Database
from coordinator.web.handshake import AUTH_SECONDS
from tests.harness.node import Deployment, NodeProcess
from tests.harness.observing import gapless, joins_are_seen, metrics
from tests.harness.patience import patient
from tests.harness.people import (
    Api,
    Guest,
    Host,
)
from tests.harness.promises import deliveries_within
from tests.harness.raw_socket import asks_for_upgrade, has_ended, raw_socket
from tests.harness.wire import upgrade


async def test_a_slow_reader_is_hung_up_on_and_slows_nobody(
    ground: Deployment, apis: Callable[[NodeProcess], Api], own: Database
) -> None:
    """It stops reading while the room lives on: nobody else waits, and the node does not grow."""
    a = apis(await asyncio.to_thread(ground.node, LIVE_BUFFER="16384"))
    boss = await Host.hired(own, a)
    room = await boss.creates()
    watching = [await boss.connects(room, at=a) for _ in range(2)]
    guest = await Guest(a).joins(room)
    reader, writer = await raw_socket(a.node, room, guest.token)
    await reader.readuntil(b"welcome")
    late_subscriber = await boss.connects(room, at=a)
    before = _memory_kib(a.node)

    writer.transport.pause_reading()  # type: ignore[attr-defined]
    async with deliveries_within(2, a):
        for _ in range(12):
            many = await asyncio.gather(*(Guest(a, "长" * 100).joins(room) for _ in range(60)))
            await asyncio.gather(*(many[0].leaves(), many[1].leaves()))
            for live in (*watching, late_subscriber):
                await live.reaches(max(one.seq for one in many))
            if (await metrics(a))["coordinator_slow_consumers_total"] == 1:
                break
    assert (await metrics(a))["coordinator_slow_consumers_total"] == 1
    await watching[0].sees("participant_away", 3, user_id=guest.user_id)
    assert _memory_kib(a.node) - before < 16 * 1024
    assert all(gapless(live) for live in (*watching, late_subscriber))
    writer.transport.abort()


async def test_handshakes_that_never_end_are_cut_after_ten_seconds(
    ground: Deployment, apis: Callable[[NodeProcess], Api], own: Database
) -> None:
    a = apis(await asyncio.to_thread(ground.node))
    boss = await Host.hired(own, a)
    room = await boss.creates()
    whole = upgrade(f"127.0.0.1:{a.node.port}", f"/api/interview/room/{room}/live")

    async def drips() -> tuple[float, float]:
        """Seconds since it began to connect, and since it had."""
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", a.node.port)
        connected = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in whole[:100]:
                writer.write(bytes((byte,)))
                if await has_ended(reader, within=0.4):
                    break
        writer.transport.abort()
        return time.monotonic() - began, time.monotonic() - connected

    dripping = asyncio.gather(*(drips() for _ in range(50)))
    await asyncio.sleep(2)
    async with deliveries_within(1, a):
        await joins_are_seen(a, room, [await boss.connects(room, at=a)])
    for since_began, since_connected in await dripping:
        assert since_began > 9
        assert since_connected < 12


async def test_a_thousand_sockets_wait_unauthenticated_and_no_more(
    ground: Deployment, apis: Callable[[NodeProcess], Api], own: Database
) -> None:
    a = apis(await asyncio.to_thread(ground.node))
    boss = await Host.hired(own, a)
    room = await boss.creates()
    for _ in range(5):
        a.node.freeze()  # the system takes connections for it: all of them begin to wait at once
        silent = await asyncio.gather(*(asks_for_upgrade(a.node, room, None) for _ in range(1000)))
        try:
            late = [asyncio.create_task(a.watch(room, None)) for _ in range(3)]
            # Who presents a token at once is not counted.
            honest = asyncio.create_task(boss.connects(room, at=a))
            await asyncio.sleep(0.1)  # they are behind the others
            a.node.wake()
            woken = time.monotonic()
            beyond = await asyncio.gather(*late)
            took = time.monotonic() - woken
            codes = [await one.is_put_out() for one in beyond]
            async with deliveries_within(2, a):
                await joins_are_seen(a, room, [await honest])
            await asyncio.gather(*(reader.readuntil(b"\r\n\r\n") for reader, _ in silent))
            async with asyncio.timeout(patient(7)):
                told = await asyncio.gather(*(reader.read(500) for reader, _ in silent))
        finally:
            for _, writer in silent:
                writer.transport.abort()
        if took < AUTH_SECONDS - 1:
            break  # else the first of them no longer waited when the last were let in
    assert codes == [4100] * 3
    assert sum(b"4301" in text for text in told) == 1000
    by_frame = await a.watch(room, boss.token, by="frame")
    await by_frame.sees("welcome")


async def test_a_client_that_hangs_up_within_its_request_is_no_error_of_ours(
    ground: Deployment, apis: Callable[[NodeProcess], Api], own: Database
) -> None:
    a = apis(await asyncio.to_thread(ground.node))
    boss = await Host.hired(own, a)
    for path in ("create-room", "guest/join"):
        _, writer = await asyncio.open_connection("127.0.0.1", a.node.port)
        head = f"POST /api/interview/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n"
        writer.write(f'{head}Authorization: Bearer {boss.token}\r\n\r\n{{"roomId": '.encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    await boss.creates(at=a)
    assert await asyncio.to_thread(a.node.stop) == 0
    assert '"error"' not in a.node.logs()


def _memory_kib(node: NodeProcess) -> int:
    """What the process holds in memory (Linux; 0 elsewhere)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{node.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
    return 0

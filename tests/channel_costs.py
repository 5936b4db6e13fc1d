"""What the number of the bus's channels costs: `python -m tests.channel_costs`.

For each number, in turn and several times: a node with 1,000 open rooms hears another node's
commits in 20,000 rooms that it does not have open. Measured are the CPU of the one that hears and
of the one that tells, per event; what it costs to open a feed; and Valkey's memory. A lone event is
a message of its own; in batches 32 events of as many rooms are committed at once.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from coordinator.domain.events import ROOM, Event, FeedKey
from coordinator.live import pubsub
from coordinator.redis_connection import connect
from coordinator.redis_url import parse_redis_url
from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis
from coordinator.store.database import Database
from coordinator.store.migrations import migrate
from tests.harness.bus_nodes import BusNode
from tests.harness.node import JWT_SECRET

OPEN_ROOMS, FOREIGN_ROOMS, EVENTS, BATCH = 1_000, 20_000, 4_000, 32
NUMBERS = [1, 64, 1_024, 16_384, 65_536, 262_144]
PEOPLE = {"participant": {"userId": "guest_1", "userName": "李明", "role": "guest"}}


def cpu() -> float:
    """Seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def node(postgres: str, redis: str, channels: int) -> tuple[Database, BusNode]:
    database = Database(postgres)
    await database.open()
    site = BusNode(database, redis, prefix=f"k{channels}", secrets=[JWT_SECRET], channels=channels)
    await site.start()
    await site.until(lambda: any(link.is_connected for link in site.bus.links.all()))
    return database, site


def foreign_events(first: int) -> list[Event]:
    at = "2026-01-01T00:00:00.000Z"
    return [
        Event(FeedKey(ROOM, f"foreign_{n % FOREIGN_ROOMS}"), n, "participant_joined", at, PEOPLE)
        for n in range(first, first + EVENTS)
    ]


async def tell(site: BusNode, size: int, first: int) -> float:
    """Commits `EVENTS` events, `size` at once; CPU seconds."""
    events, began = foreign_events(first), cpu()
    for start in range(0, EVENTS, size):
        site.bus.publish(events[start : start + size], 1.0)
        while site.bus.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.0001)
    return cpu() - began


async def teller(postgres: str, redis: str, channels: int, orders: Connection) -> None:
    """The other node, in a process of its own: each order is a size of batches."""
    database, site = await node(postgres, redis, channels)
    pubsub.PACE_SECONDS = 0.0  # as fast as it can: what costs is counted, not how long it takes
    orders.send("ready")
    for first in range(0, 1_000_000_000, EVENTS):
        size = await asyncio.to_thread(orders.recv)
        if not size:
            break
        orders.send(await tell(site, size, first))
        await site.bus.links.all()[0]._connection.ask("PING")  # type: ignore[union-attr]
    await site.stop()
    await database.close()


def run_teller(postgres: str, redis: str, channels: int, orders: Connection) -> None:
    asyncio.run(teller(postgres, redis, channels, orders))


async def memory(redis: str) -> int:
    """Bytes that Valkey uses."""
    target = parse_redis_url(redis)
    connection = await connect(target, (target.addresses or (None,))[0], lambda *_: None)
    text = await connection.ask("INFO", "memory")
    connection.abort("done")
    lines = text.decode() if isinstance(text, bytes) else str(text)
    return int(next(x for x in lines.splitlines() if x.startswith("used_memory:"))[12:])


async def measure(postgres: str, redis: str, channels: int, found: dict[str, list[float]]) -> None:
    orders, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    arguments = postgres, redis, channels, theirs
    process = context.Process(target=run_teller, args=arguments, daemon=True)
    process.start()
    await asyncio.to_thread(orders.recv)
    database, site = await node(postgres, redis, channels)
    site.ear.open = [FeedKey(ROOM, f"mine_{n}") for n in range(OPEN_ROOMS)]
    before, cpu_before, began = await memory(redis), cpu(), time.monotonic()
    for key in site.ear.open:
        await site.bus.listen(key)
    found["open: µs CPU"].append((cpu() - cpu_before) / OPEN_ROOMS * 1e6)
    found["open: µs"].append((time.monotonic() - began) / OPEN_ROOMS * 1e6)
    found["Valkey: bytes a feed"].append((await memory(redis) - before) / OPEN_ROOMS)
    for name, size in (("lone", 1), ("batch", BATCH)):
        idle = await hear(None, orders)
        heard = await hear(size, orders)
        found[f"{name}: hear"].append((heard[0] - idle[0] / idle[1] * heard[1]) / EVENTS * 1e6)
        found[f"{name}: tell"].append(heard[2] / EVENTS * 1e6)
    orders.send(0)
    await asyncio.to_thread(process.join)
    await site.stop()
    await database.close()


async def hear(size: int | None, orders: Connection) -> tuple[float, float, float]:
    """CPU of this node, seconds that went by, and CPU of the one that tells. None: silence."""
    began, before, theirs = time.monotonic(), cpu(), 0.0
    if size is not None:
        orders.send(size)
        theirs = await asyncio.to_thread(orders.recv)
    await asyncio.sleep(0.5)
    return cpu() - before, time.monotonic() - began, theirs


async def run(console: Console, numbers: Sequence[int], rounds: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="coordinator-channels-"))
    found: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    try:
        with (
            EmbeddedPostgres(folder / "postgres", options=("fsync=off",)) as postgres,
            EmbeddedRedis(folder / "redis") as redis,
        ):
            database = Database(postgres.url)
            await migrate(database)
            for _ in range(rounds):
                for channels in numbers:
                    await measure(postgres.url, redis.url, channels, found[channels])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(console, found)


def show(console: Console, found: dict[int, dict[str, list[float]]]) -> None:
    names = list(next(iter(found.values())))
    table = Table("channels", *names)
    for channels, figures in found.items():
        middles: list[Any] = [f"{statistics.median(figures[name]):.2f}" for name in names]
        table.add_row(f"{channels:,}", *middles)
    console.print(table)


def main() -> None:
    one = argparse.ArgumentParser(prog="python -m tests.channel_costs", description=__doc__)
    one.add_argument("--channels", type=int, nargs="+", default=NUMBERS)
    one.add_argument("--rounds", type=int, default=5)
    arguments = one.parse_args()
    asyncio.run(run(Console(width=140), arguments.channels, arguments.rounds))


if __name__ == "__main__":
    main()

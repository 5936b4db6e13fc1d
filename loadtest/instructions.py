"""How many instructions of a node one lone join costs, counted by callgrind: `python -m
loadtest.instructions` (needs `valgrind`; takes about a minute).

Instructions are the same on a busy machine as on a quiet one, within some percent: they tell
whether a change made a join cheaper where clocks cannot. A node with production's settings (limits
on, and raised) serves joins one at a time over one connection, in rooms that it knows; then nobody
asks it anything for as long, and what it does by itself is subtracted. That is done several times,
and the median counts: what a node does now and then (collecting garbage, looking after old rows)
takes as much as a hundred joins, and falls into one of the parts or another. The kernel's,
PostgreSQL's and Redis's instructions are not counted.

A join makes the node tell Redis of it within 200 ms. Callgrind slows the node down so far that few
joins share such a telling, where in life a hundred do; how many there were is told besides.

    --joins 350        how many are counted
    --watchers 10      live connections in each room, that each join is told to
    --keep FOLDER      callgrind's files, for callgrind_annotate
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import redis
import websockets

from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis
from loadtest.deployment import RAISED_LIMITS
from tests.harness.node import Node, environment, hired, printed

ROOMS = 20
PARTS = 7
"""Of the joins; each is followed by as long a silence."""
WARM_UP = 6
"""Joins of each room before the counted ones: the first are written under lock."""
START_SECONDS = 180.0
CALLGRIND = ("valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet")
JOIN = "/api/interview/guest/join"


class CountedNode(Node):
    """A node under callgrind. Counting begins when it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "node.log", under=CALLGRIND)
        self.folder = folder

    async def count(self) -> int:
        """Instructions since the last count."""
        before = set(self.folder.glob("callgrind.out.*"))
        await self.control("--dump")
        (new,) = set(self.folder.glob("callgrind.out.*")) - before
        found = re.search(r"^(?:totals|summary): (\d+)", new.read_text(), re.MULTILINE)
        return int(found[1]) if found else 0

    async def control(self, *what: str) -> None:
        """Has callgrind do something."""
        command = await asyncio.create_subprocess_exec(
            "callgrind_control", *what, str(self.process.pid),
            stdout=subprocess.DEVNULL, cwd=self.folder,
        )  # fmt: skip
        await command.wait()


class People:
    """Who makes rooms, joins and watches."""

    def __init__(self, url: str, token: str) -> None:
        self.http = httpx.AsyncClient(base_url=url, timeout=60)
        self.http.headers.clear()  # as `loadtest rest` asks, and Fastify beside it
        self.ws = url.replace("http", "ws", 1)
        self.token = {"Authorization": f"Bearer {token}"}
        self.rooms = [f"instructions_{number}" for number in range(ROOMS)]
        self.joined = 0

    async def make_rooms(self) -> None:
        for room in self.rooms:
            body = {"roomId": room, "roomName": "Load test", "hostName": "Load test"}
            made = await self.http.post(
                "/api/interview/create-room", json=body, headers=self.token
            )
            made.raise_for_status()

    async def watch(self, stack: ExitStack, count: int) -> None:
        """Opens `count` connections to each room, which read what comes."""
        for room in self.rooms * count:
            live = await websockets.connect(
                f"{self.ws}/api/interview/room/{room}/live",
                additional_headers=self.token, open_timeout=60,
            )  # fmt: skip
            reading = asyncio.create_task(_read(live))
            stack.callback(reading.cancel)

    async def join(self, count: int) -> None:
        """One after the other, over one connection."""
        for _ in range(count):
            self.joined += 1
            body = {
                "roomId": self.rooms[self.joined % ROOMS],
                "userName": f"Visitor {self.joined}",
                "identity": "candidate",
            }
            (await self.http.post(JOIN, json=body)).raise_for_status()


async def _read(live: Any) -> None:
    async for _ in live:
        pass


async def measure(
    node: CountedNode, token: str, valkey: redis.Redis, *, joins: int, watchers: int
) -> float:
    """Instructions of one join."""
    people = People(node.url, token)
    with ExitStack() as stack:
        await people.make_rooms()
        await people.watch(stack, watchers)
        await people.join(WARM_UP * ROOMS)
        await node.control("--instr=on")
        await people.join(ROOMS)
        await node.count()
        parts, told = [], _tellings(valkey)
        for _ in range(PARTS):
            began = time.monotonic()
            await people.join(joins // PARTS)
            seconds = time.monotonic() - began
            busy = await node.count()
            await asyncio.sleep(seconds)
            idle = await node.count()
            parts.append((busy - idle) / (joins // PARTS))
            print(f"{joins // PARTS} joins in {seconds:.1f} s: {busy:,}; nothing as long: {idle:,}")
        share = (_tellings(valkey) - told) / (joins // PARTS * PARTS)
        print(f"Redis was told of counted requests {share:.2f} times for each join")
        return statistics.median(parts)


def _tellings(valkey: redis.Redis) -> int:
    """How many scripts Redis has run: limits alone have any."""
    stats: Any = valkey.info("commandstats")
    return int(stats.get("cmdstat_eval", {}).get("calls", 0))


def main() -> int:
    """Prints thousands of instructions per join; exit status 2 where there is no valgrind."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--joins", type=int, default=350)
    parser.add_argument("--watchers", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("valgrind is not installed (Debian: apt-get install valgrind)")
        return 2
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="instructions-")))
        postgres = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
        server = stack.enter_context(EmbeddedRedis(folder / "redis"))
        env = environment(
            DATABASE_URL=postgres.url, REDIS_URL=server.url, RATE_LIMITS=RAISED_LIMITS,
            ROOM_CAPACITY="100000", LOG_LEVEL="warning",
        )  # fmt: skip
        printed(env, "migrate")
        token = hired(env, "watch", "admin")
        node = CountedNode(arguments.keep or folder).start(env)
        stack.callback(node.stop)
        node.wait_ready(within=START_SECONDS)
        per_join = asyncio.run(
            measure(
                node, token, redis.Redis.from_url(server.url), joins=arguments.joins,
                watchers=arguments.watchers,
            )
        )
        print(f"{per_join / 1000:,.0f} thousand instructions per join")
    return 0


if __name__ == "__main__":
    sys.exit(main())

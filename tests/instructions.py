"""How many instructions of a node one lone join costs, counted by callgrind: `python -m
tests.instructions` (needs `valgrind`; takes about a minute).

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
    --webhook          each part twice, without a webhook and with one that another node sends to:
                       what it costs a node that only commits
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
from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import redis
import websockets

from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis
from loadtest.deployment import RAISED_LIMITS
from tests.harness.eager_receiver import EagerReceiver
from tests.harness.node import NodeProcess, environment, hired, printed
from tests.harness.outputs import output_folder

WEBHOOK_SETTINGS = {
    "DATA_KEYS": b64encode(bytes(32)).decode(),
    "WEBHOOK_ALLOW_PRIVATE": "127.0.0.0/8",
}
SETTLE_SECONDS = 8.0
"""Until the counted node knows that there is a webhook, or none."""
ROOMS = 20
PARTS = 7
"""Of the joins; each is followed by as long a silence."""
WARM_UP = 6
"""Joins of each room before the counted ones: the first are written under lock."""
START_SECONDS = 180.0
CALLGRIND = ("valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet")
JOIN = "/api/interview/guest/join"


class CountedNode(NodeProcess):
    """A node under callgrind. InstructionCount begins when it is told to."""

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


class Callers:
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


class InstructionCount:
    """A node under callgrind, the people who join there, and the Redis that it tells of them."""

    def __init__(self, node: CountedNode, token: str, valkey: redis.Redis) -> None:
        self.node = node
        self.people = Callers(node.url, token)
        self.valkey = valkey

    async def warm_up(self) -> None:
        """Joins into rooms that are there; then counting begins."""
        await self.people.join(WARM_UP * ROOMS)
        await self.node.control("--instr=on")
        await self.people.join(ROOMS)

    async def part(self, joins: int) -> float:
        """Instructions of one join; those of as long a silence are subtracted."""
        await self.node.count()
        began = time.monotonic()
        await self.people.join(joins)
        seconds = time.monotonic() - began
        busy = await self.node.count()
        await asyncio.sleep(seconds)
        idle = await self.node.count()
        print(f"{joins} joins in {seconds:.1f} s: {busy:,}; nothing as long: {idle:,}")
        return (busy - idle) / joins

    async def lone_join(self, joins: int, watchers: int) -> None:
        """Prints what a join costs."""
        with ExitStack() as stack:
            await self.people.make_rooms()
            await self.people.watch(stack, watchers)
            await self.warm_up()
            told = _tellings(self.valkey)
            parts = [await self.part(joins // PARTS) for _ in range(PARTS)]
            share = (_tellings(self.valkey) - told) / (joins // PARTS * PARTS)
            print(f"Redis was told of counted requests {share:.2f} times for each join")
            print(f"{statistics.median(parts) / 1000:,.0f} thousand instructions per join")

    async def beside_webhook(self, joins: int, sender: NodeProcess) -> None:
        """Prints what a join costs without a webhook, and with one that `sender` sends to."""
        receiver = EagerReceiver()
        body = {"url": await receiver.listen(), "name": "instructions"}
        async with httpx.AsyncClient(base_url=sender.url, headers=self.people.token) as admin:
            made = await admin.post("/api/webhooks", json=body)
            webhook = f"/api/webhooks/{made.raise_for_status().json()['data']['id']}"
            await self.people.make_rooms()
            await self.warm_up()
            parts: dict[bool, list[float]] = {False: [], True: []}
            for enabled in (False, True) * PARTS:
                changed = await admin.patch(webhook, json={"enabled": enabled})
                changed.raise_for_status()
                await asyncio.sleep(SETTLE_SECONDS)
                parts[enabled].append(await self.part(joins // PARTS))
                print("    with a webhook" if enabled else "    without")
        receiver.close()
        without, told = (statistics.median(parts[enabled]) for enabled in (False, True))
        print(f"without a webhook {without / 1000:,.0f}, with one {told / 1000:,.0f}: "
              f"{(told / without - 1) * 100:+.1f} %")  # fmt: skip


def _tellings(valkey: redis.Redis) -> int:
    """How many scripts Redis has run: limits alone have any."""
    stats: Any = valkey.info("commandstats")
    return int(stats.get("cmdstat_eval", {}).get("calls", 0))


def main() -> int:
    """Prints thousands of instructions per join; exit status 2 where there is no valgrind."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--joins", type=int, default=350)
    parser.add_argument("--watchers", type=int, default=0)
    parser.add_argument("--webhook", action="store_true")
    parser.add_argument("--keep", type=output_folder)
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
            ROOM_CAPACITY="100000", LOG_LEVEL="warning", **WEBHOOK_SETTINGS,
        )  # fmt: skip
        printed(env, "migrate")
        token = hired(env, "watch", "admin")
        sender = None
        if arguments.webhook:  # started first, it is the one that sends
            sender = NodeProcess(folder / "sender.log").start(env)
            stack.callback(sender.stop)
            sender.wait_ready()
        node = CountedNode(arguments.keep or folder).start(env)
        stack.callback(node.stop)
        node.wait_ready(within=START_SECONDS)
        counting = InstructionCount(node, token, redis.Redis.from_url(server.url))
        if sender is not None:
            asyncio.run(counting.beside_webhook(arguments.joins, sender))
        else:
            asyncio.run(counting.lone_join(arguments.joins, arguments.watchers))
    return 0


if __name__ == "__main__":
    sys.exit(main())

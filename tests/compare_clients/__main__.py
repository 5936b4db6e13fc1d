"""Runs the comparison and prints it as Markdown; see the package."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from loadtest.peers.start import cache_folder
from tests.compare_clients.servers import (
    GO_PACKAGES,
    HERE,
    ComparedServers,
    Coordinator,
    Peer,
    centrifuge,
)
from tests.harness.node_runtime import NODE, NPM

PACKAGES = (
    "socket.io@4.8.4", "socket.io-client@4.8.4", "@socket.io/redis-streams-adapter@0.3", "redis@4",
    "centrifuge@2.8.5", "centrifuge5@npm:centrifuge@5.8.0", "ws@8",
)  # fmt: skip
CLIENT = HERE.parent.parent / "coordinator/client/room.js"
PERIOD = 0.05
"""Seconds between events."""
BEFORE, AFTER = 2.0, 9.0
"""Seconds of quiet before the first harm, and after each."""
HARMS = (
    "node killed", "all connections cut", "node frozen 4 s", "Redis killed", "network away 5 s"
)  # fmt: skip


@dataclass(slots=True)
class Told:
    """What came of a contender.

    Attributes:
        harm: when each began, by the wall clock.
        taken: when the events that a node took were asked for.
    """

    name: str
    harm: dict[str, float] = field(default_factory=dict)
    taken: dict[int, float] = field(default_factory=dict)
    bytes: int = 0
    clients: list[list[tuple[int, int]]] = field(default_factory=list)


async def measured(name: str, servers: ComparedServers, modules: Path, clients: int) -> Told:
    """One contender through all harms."""
    told = Told(name)
    async with servers:
        watchers = await _watchers(name, servers, modules, clients)
        publishing = asyncio.create_task(_publish(servers, told))
        await asyncio.sleep(BEFORE)
        for harm in HARMS:
            told.harm[harm] = time.time()
            await _do(harm, servers, watchers)
            await asyncio.sleep(AFTER)
        publishing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await publishing
        await asyncio.sleep(AFTER)
        report = await _asked(watchers, "report")
        told.bytes, told.clients = report["bytes"], report["clients"]
        await watchers.wait()
    return told


async def _do(harm: str, servers: ComparedServers, watchers: asyncio.subprocess.Process) -> None:
    if harm == "node killed":
        servers.signal(0, signal.SIGKILL)
        await asyncio.sleep(3)
        await servers.start(0)
    elif harm == "node frozen 4 s":
        servers.signal(1, signal.SIGSTOP)
        await asyncio.sleep(4)
        servers.signal(1, signal.SIGCONT)
    elif harm == "Redis killed":
        await asyncio.to_thread(servers.redis.kill)
        await asyncio.sleep(2)
        await asyncio.to_thread(servers.redis.start)
    elif harm == "network away 5 s":
        await _says(watchers, "away")
        await asyncio.sleep(5)
        await _says(watchers, "back")
    else:
        await _says(watchers, "cut")


async def _publish(servers: ComparedServers, told: Told) -> None:
    """Twenty events a second, each asked for once; slow answers hold nothing up."""

    async def publish(number: int) -> None:
        at = time.time()
        if await servers.publish(number):
            told.taken[number] = at

    async with asyncio.TaskGroup() as group:
        number = 0
        while True:
            group.create_task(publish(number := number + 1))
            await asyncio.sleep(PERIOD)


async def _watchers(
    name: str, servers: ComparedServers, modules: Path, clients: int
) -> asyncio.subprocess.Process:
    about = {"kind": name, "ports": servers.ports, "clients": clients, "modules": str(modules),
             "room": servers.room, "token": servers.token}  # fmt: skip
    watchers = await asyncio.create_subprocess_exec(
        str(NODE), str(HERE / "watchers.mjs"), limit=1 << 28,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "ABOUT": json.dumps(about)},
    )  # fmt: skip
    await asyncio.wait_for(_heard(watchers), 60)
    return watchers


async def _says(watchers: asyncio.subprocess.Process, what: str) -> None:
    assert watchers.stdin is not None
    watchers.stdin.write(json.dumps({"do": what}).encode() + b"\n")
    await watchers.stdin.drain()


async def _asked(watchers: asyncio.subprocess.Process, what: str) -> Any:
    await _says(watchers, what)
    return await asyncio.wait_for(_heard(watchers), 60)


async def _heard(watchers: asyncio.subprocess.Process) -> Any:
    assert watchers.stdout is not None
    line = await watchers.stdout.readline()
    assert line, "the watchers have ended"
    return json.loads(line)


def lost_and_doubled(told: Told) -> dict[str, tuple[int, int]]:
    """Of all clients together, by the harm under which an event was asked for.

    Lost: a node took it and a client never heard of it. Doubled: heard again.
    """
    begins = sorted(((at, harm) for harm, at in told.harm.items()), reverse=True)

    def harm_of(number: int) -> str:
        at = told.taken.get(number, 0.0)
        return next((harm for began, harm in begins if began <= at), "")

    lost: Counter[str] = Counter()
    doubled: Counter[str] = Counter()
    for heard in told.clients:
        counts = Counter(number for number, _ in heard)
        for number in told.taken:
            lost[harm_of(number)] += number not in counts
        for number, count in counts.items():
            doubled[harm_of(number)] += count - 1
    return {harm: (lost[harm], doubled[harm]) for harm in HARMS}


def silences(told: Told, harm: str) -> list[float]:
    """Each client's longest wait for the next event after a harm, in seconds."""
    began = told.harm[harm]
    longest = []
    for heard in told.clients:
        end = began + AFTER
        at = [began, *(ms / 1000 for _, ms in heard if began <= ms / 1000 < end), end]
        longest.append(max(later - earlier for earlier, later in itertools.pairwise(at)))
    return sorted(longest, reverse=True)


def table(all_told: list[Told]) -> str:
    """Markdown: what was lost and doubled, and how long it took to go on."""
    head = "| " + " | ".join(["lost / doubled", *HARMS, "silence after the kill: half, worst",
                              "bytes per event and client"]) + " |"  # fmt: skip
    lines = [head, "|---" * (len(HARMS) + 3) + "|"]
    for told in all_told:
        cells = [f"{lost:,} / {twice:,}" for lost, twice in lost_and_doubled(told).values()]
        # Half of the clients were at the node that died: theirs are the longer silences.
        after_kill = silences(told, "node killed")[: len(told.clients) // 2]
        silence = f"{statistics.median(after_kill):.2f} s, {after_kill[0]:.2f} s"
        each = told.bytes / max(1, sum(len(heard) for heard in told.clients))
        lines.append("| " + " | ".join([told.name, *cells, silence, f"{each:.0f}"]) + " |")
        lines.append("")
    return "\n".join(line for line in lines if line)


def sizes(modules: Path) -> str:
    """What an application ships: bytes, and gzipped."""
    shipped = {
        "coordinator-client (readable)": CLIENT,
        "socket.io-client 4.8.4 (minified)": modules / "socket.io-client/dist/socket.io.min.js",
        "centrifuge-js 5.8.0 (minified)": modules / "centrifuge5/dist/centrifuge.js",
    }
    rows = ["| | bytes | gzipped |", "|---|---|---|"]
    for name, path in shipped.items():
        text = path.read_bytes()
        rows.append(f"| {name} | {len(text):,} | {len(gzip.compress(text, mtime=0)):,} |")
    return "\n".join(rows)


def install() -> Path:
    """npm's packages in the cache; its node_modules."""
    folder = cache_folder() / "clients"
    modules = folder / "node_modules"
    if not all((modules / name).is_dir() for name in ("socket.io", "centrifuge", "centrifuge5")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}\n')
        subprocess.run(
            [str(NPM), "install", "--no-fund", "--no-audit", "--ignore-scripts", *PACKAGES],
            cwd=folder, check=True, timeout=300, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return modules


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", default="coordinator,socketio,centrifuge")
    options.add_argument("--clients", type=int, default=50)
    chosen = options.parse_args()
    modules = install()
    console = Console(highlight=False)
    contenders: dict[str, ComparedServers] = {}
    for name in chosen.only.split(","):
        if name == "coordinator":
            contenders[name] = Coordinator()
        elif name == "socketio":
            contenders[name] = Peer([str(NODE), str(HERE / "socketio_server.js")], modules)
        elif (command := centrifuge(modules.parent)) is not None:
            contenders[name] = Peer(command, modules)
        else:
            console.print(f"centrifuge is left out; it needs: apt-get install {GO_PACKAGES}")
    told = [
        asyncio.run(measured(name, servers, modules, chosen.clients))
        for name, servers in contenders.items()
    ]
    console.print(table(told), "", sizes(modules), sep="\n", soft_wrap=True, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`compare`: our server beside Socket.IO with its Redis adapter and Litestar's ChannelsPlugin.

The same client asks the same of each, in turns, so that a slow spell of the machine meets them
all. Each has one core. The peers do less for a join (see `peers`): they keep nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coordinator.standins.servers import EmbeddedRedis, free_port
from loadtest.deployment import Deployment, NotStarted
from loadtest.fanout import SHAPES, Shape, scaled
from loadtest.figures import Result, median
from loadtest.http import Lines
from loadtest.measure import Bench, Run, Window, refusals, window
from loadtest.usage import Cores, Parties, machine, pin
from loadtest.watch import Opened, Place

NODE_PACKAGES = ("socket.io@4.8", "@socket.io/redis-adapter@8", "redis@4")
PEERS = Path(__file__).parent / "peers"
START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Contender:
    """One server of the comparison.

    Attributes:
        path: of the websocket that watches a room; `{room}` stands for its name.
        deployment: starts it and gives it for the length of a block.
    """

    name: str
    dialect: str
    path: str
    deployment: Callable[[], contextlib.AbstractContextManager[Deployment]]
    makes_rooms: bool = False


def cache_folder() -> Path:
    """Where npm's packages are kept between runs."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "coordinator-loadtest"


def install_node_packages() -> Path:
    """Installs Socket.IO on demand; returns its node_modules.

    Raises:
        NotStarted: there is no Node 20 or npm here, or the installation failed.
    """
    folder = cache_folder() / "socketio"
    modules = folder / "node_modules"
    if (modules / "socket.io").is_dir() and (modules / "redis").is_dir():
        return modules
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise NotStarted("Socket.IO needs Node >= 20 with npm; leave it out with --only")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < 20:
        raise NotStarted(f"Socket.IO needs Node >= 20, not {version.strip()}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}\n')
    done = subprocess.run(
        ["npm", "install", "--no-fund", "--no-audit", *NODE_PACKAGES],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode:
        raise NotStarted(f"npm could not install Socket.IO:\n{done.stderr[-800:]}")
    return modules


@contextmanager
def _peer(cores: Cores, command: list[str], env: dict[str, str]) -> Iterator[Deployment]:
    """A peer's process and a Redis for it; `{port}` and `{redis}` in the command are filled in."""
    with contextlib.ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix="coordinator-peer-"))
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        redis = undo.enter_context(EmbeddedRedis(folder))
        assert redis.process is not None
        pin(cores.others, redis.process.pid)
        port = free_port()
        filled = [part.format(port=port, redis=redis.url) for part in command]
        log = undo.enter_context((folder / "peer.log").open("w+b"))
        process = subprocess.Popen(
            filled, env={**os.environ, **env}, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            preexec_fn=lambda: pin(cores.server),
        )  # fmt: skip
        undo.callback(process.wait, 10)
        undo.callback(process.kill)
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                text = (folder / "peer.log").read_text(errors="replace")[-800:]
                raise NotStarted(f"{filled[0]} did not start:\n{text}")
            time.sleep(0.05)
        parties = Parties(servers=[process.pid], redis=[redis.process.pid])
        yield Deployment([f"http://127.0.0.1:{port}"], "", "", cores, parties)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 0.2).close()
        return True
    return False


def contenders(bench: Bench, only: list[str]) -> list[Contender]:
    """Those asked for, ours first; what they need is installed."""
    cores = bench.cores

    @contextmanager
    def ours() -> Iterator[Deployment]:
        with bench.run() as run:
            yield run.deployment

    found = [Contender("ours", "live", "/api/interview/room/{room}/live", ours, makes_rooms=True)]
    if not only or "socketio" in only:
        modules = str(install_node_packages())
        command = ["node", str(PEERS / "socketio_server.js"), "{port}", "{redis}"]
        env = {"NODE_PATH": modules, "NODE_ENV": "production"}
        path = "/socket.io/?EIO=4&transport=websocket&room={room}"
        found.append(Contender("socketio", "socketio", path, lambda: _peer(cores, command, env)))
    if not only or "channels" in only:
        channels = [sys.executable, "-m", "loadtest.peers.channels_server", "{port}", "{redis}"]
        here = {"PYTHONPATH": str(PEERS.parent.parent)}
        found.append(
            Contender("channels", "live", "/live/{room}", lambda: _peer(cores, channels, here))
        )
    return [one for one in found if not only or one.name in only]


NAMES = {
    "ours": "this server (durable: Postgres, history, presence)",
    "socketio": "Socket.IO 4.8 + Redis adapter (nothing kept)",
    "channels": "Litestar ChannelsPlugin + Redis (nothing kept)",
}


async def compare(
    bench: Bench, *, seconds: float, repeat: int, only: list[str], scale: float = 1.0
) -> Result:
    """All contenders in turn, `repeat` times; medians in one table."""
    result = Result(
        "compare",
        "The same load client asks the same of each server, in turns: joins over REST, watched by"
        " websockets. Each server process has one core.",
        {"seconds per shape": seconds, "repetitions": repeat, "scale": scale},
    )
    result.where = {"servers": bench.cores.text, **machine()}
    those = contenders(bench, only)
    measured: dict[tuple[str, str], list[Window]] = {}
    connects: dict[str, list[float]] = {}
    for turn in range(repeat):
        order = those[turn % len(those) :] + those[: turn % len(those)]
        for one in order:
            with one.deployment() as deployment:
                run = Run(deployment, bench.screen, bench.seed, bench.processes)
                for shape in SHAPES:
                    small = scaled(shape, scale)
                    async with bench.screen.step(f"{turn + 1}. {one.name}: {small.name}"):
                        opened, found = await _one_shape(run, one, small, seconds)
                    measured.setdefault((one.name, small.name), []).append(found)
                    connects.setdefault(one.name, []).append(opened.ready / opened.seconds)
    _write(result, [one.name for one in those], measured, connects)
    return result


async def _one_shape(
    run: Run, one: Contender, shape: Shape, seconds: float
) -> tuple[Opened, Window]:
    lines = Lines(run.deployment.addresses)
    rooms = run.room_names(shape.rooms)
    with run.watchers(one.dialect) as watchers:
        headers: tuple[str, ...] = ()
        if one.makes_rooms:
            await run.deployment.make_rooms(lines, rooms)
            headers = (f"Authorization: Bearer {run.deployment.watch_token}",)
        places = [
            Place(room, one.path.format(room=room), headers)
            for room in rooms
            for _ in range(shape.people)
        ]
        opened = await watchers.open(places)
        refusals(opened, len(places))
        for length in (min(1.0, seconds), seconds):  # the first one warms up
            found = await window(
                run, watchers, lines, rooms, in_flight=shape.in_flight, seconds=length,
                nap=shape.nap, per_second=shape.per_second,
            )  # fmt: skip
        await watchers.leave()
    lines.close()
    await asyncio.sleep(0.2)
    return opened, found


def _write(
    result: Result,
    names: list[str],
    measured: dict[tuple[str, str], list[Window]],
    connects: dict[str, list[float]],
) -> None:
    shapes = list(dict.fromkeys(shape for _, shape in measured))
    head = ["thousand deliveries/s (µs per delivery)"]
    result.table = [[*head, *(NAMES[name] for name in names)]]
    fast = [shape for shape in shapes if not shape.endswith("a second")]
    for shape in fast:
        row = [shape]
        for name in names:
            windows = measured[name, shape]
            speed = median(w.deliveries_per_second for w in windows)
            cost = median(w.server_us_per_delivery for w in windows)
            owners = {w.whose for w in windows}
            row.append(f"{'' if owners == {'server'} else '≥ '}{speed / 1000:,.1f} ({cost:.1f})")
            whose = "server" if owners == {"server"} else next(iter(owners - {"server"}))
            result.add(f"{name}: {shape}", speed, "deliveries/s", whose=whose,
                       note=windows[-1].usage.text())  # fmt: skip
        result.table.append(row)
    for shape in (shape for shape in shapes if shape not in fast):
        for share, label in ((0.5, "p50"), (0.99, "p99")):
            cells = [
                f"{median(w.heard.latency.percentile(share) for w in measured[name, shape]):.2f} ms"
                for name in names
            ]
            result.table.append([f"{shape}: join → seen, {label}", *cells])
        for name in names:
            for found in measured[name, shape]:
                whole = result.latencies.setdefault(f"{name}: join → seen", found.heard.latency)
                if whole is not found.heard.latency:
                    whole.merge(found.heard.latency)
    result.table.append(["connects/s", *(f"{median(connects[name]):,.0f}" for name in names)])
    for (name, shape), windows in measured.items():
        for found in windows:
            result.broken += found.faults(f"{name}: {shape}")
    if not result.broken:
        result.checked.append("every connection got every event once and in order, on each server")

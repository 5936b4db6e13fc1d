"""`compare`: our server beside those that one would build by hand, or take from the shelf.

All run at the same time, and the same client asks one after the other, question by question, so
that a slow spell of the machine meets them all. Each has one core, and each that keeps joins a
PostgreSQL of its own, set as ours (`synchronous_commit=on`). Ours counts its rate limits as in
production; nobody reaches them.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from loadtest.deployment import MeasuredDeployment
from loadtest.fanout import Shape, scaled
from loadtest.figures import Result, median
from loadtest.measure import Bench, Run, Window, refusals, window
from loadtest.peers.start import node_peer, python_peer
from loadtest.usage import machine
from tests.harness.held import Opened, Place
from tests.harness.http_lines import Lines

SHAPES = (
    Shape("one join at a time", 1, 1000, 1),
    Shape("16 joins at once", 1, 1000, 16),
    Shape("8 joins at once", 100, 10, 8),
    Shape("50 joins a second", 50, 20, 16, per_second=50, nap=0.0),
)
"""An interview is a small room whose events are lone ones: 100 × 10 is asked over few
connections."""
PACED_TIMES = 4
"""So many times as long as the others is what has an even pace: the slowest hundredth of 150 events
would be one or two."""


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
    deployment: Callable[[], AbstractContextManager[MeasuredDeployment]]


def contenders(bench: Bench, only: list[str]) -> list[Contender]:
    """Those asked for, ours first; what they need is installed."""
    cores = bench.cores

    @contextmanager
    def ours() -> Iterator[MeasuredDeployment]:
        with bench.run() as run:
            yield run.deployment

    socketio = "/socket.io/?EIO=4&transport=websocket&room={room}"
    ws = "/live/{room}"

    def node(file: str, *, keeps: bool) -> Callable[[], AbstractContextManager[MeasuredDeployment]]:
        return lambda: node_peer(cores, file, keeps=keeps)

    def bare() -> AbstractContextManager[MeasuredDeployment]:
        return python_peer(cores, "bare_server", keeps=True)

    def channels() -> AbstractContextManager[MeasuredDeployment]:
        return python_peer(cores, "channels_server", keeps=False)

    found = [
        Contender("ours", "live", "/api/interview/room/{room}/live", ours),
        Contender("ws-pg", "live", ws, node("ws_server.js", keeps=True)),
        Contender("socketio-pg", "socketio", socketio, node("socketio_server.js", keeps=True)),
        Contender("bare-pg", "live", ws, bare),
        Contender("ws", "live", ws, node("ws_server.js", keeps=False)),
        Contender("socketio", "socketio", socketio, node("socketio_server.js", keeps=False)),
        Contender("channels", "live", ws, channels),
    ]
    return [one for one in found if not only or one.name in only]


NAMES = {
    "ours": "this server (durable: Postgres, history, presence)",
    "ws-pg": "`ws` + pg + Redis by hand (joins durable)",
    "socketio-pg": "Socket.IO 4.8 + pg + Redis adapter (joins durable)",
    "bare-pg": "bare Python + asyncpg + Redis by hand (joins durable)",
    "ws": "`ws` + Redis by hand (nothing kept)",
    "socketio": "Socket.IO 4.8 + Redis adapter (nothing kept)",
    "channels": "Litestar ChannelsPlugin + Redis (nothing kept)",
}


async def compare(
    bench: Bench, *, seconds: float, repeat: int, only: list[str], scale: float = 1.0
) -> Result:
    """All contenders in turn, `repeat` times; medians in one table."""
    result = Result(
        "compare",
        "The same load client asks the same of each server, in turns, question by question: joins"
        " over REST, watched by websockets. Each server process has one core.",
        {"seconds per shape": seconds, "repetitions": repeat, "scale": scale},
    )
    result.where = {"servers": bench.cores.text, **machine()}
    those = contenders(bench, only)
    measured: dict[tuple[str, str], list[Window]] = {}
    connects: dict[str, list[float]] = {}
    with ExitStack() as stack:
        runs = []
        for one in those:
            deployment = stack.enter_context(one.deployment())
            runs.append((one, Run(deployment, bench.screen, bench.seed, bench.processes)))
        shapes = [scaled(shape, scale) for shape in SHAPES]
        for turn, shape in itertools.product(range(repeat), shapes):
            for one, run in runs[turn % len(runs) :] + runs[: turn % len(runs)]:
                async with bench.screen.step(f"{turn + 1}. {one.name}: {shape.name}"):
                    length = seconds * (PACED_TIMES if shape.per_second else 1)
                    opened, found = await _one_shape(run, one, shape, length)
                measured.setdefault((one.name, shape.name), []).append(found)
                connects.setdefault(one.name, []).append(opened.ready / opened.seconds)
    _write(result, [one.name for one in those], measured, connects)
    return result


async def _one_shape(
    run: Run, one: Contender, shape: Shape, seconds: float
) -> tuple[Opened, Window]:
    lines = Lines(run.deployment.addresses)
    rooms = run.room_names(shape.rooms)
    with run.watchers(one.dialect) as watchers:
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

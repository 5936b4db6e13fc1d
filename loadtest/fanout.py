"""`fanout`: how many deliveries a second, and how late the last one is seen.

Each event is a real join over REST: committed to Postgres, then sent to everybody who watches the
room. Four questions: one big room, asked one join at a time and sixteen at once (what waits
together is written together); a hundred small rooms; and, at an easy pace, how long from the
request until the others see the newcomer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from loadtest.figures import Result
from loadtest.measure import Bench, Run, Window, describe, watched, window

WARM_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Shape:
    """How a window is asked.

    Attributes:
        rooms, people: so many rooms with so many watching connections each.
        per_second: an even pace, for latencies; None: as fast as answers come.
        nap: see `watch`.
    """

    asked: str
    rooms: int
    people: int
    in_flight: int
    per_second: float | None = None
    nap: float = 0.03

    @property
    def name(self) -> str:
        return f"{self.rooms} × {self.people:,}, {self.asked}"


SHAPES = (
    Shape("one join at a time", 1, 1000, 1),
    Shape("16 joins at once", 1, 1000, 16),
    Shape("64 joins at once", 100, 10, 64),
    Shape("50 joins a second", 50, 20, 16, per_second=50, nap=0.0),
)


def scaled(shape: Shape, scale: float) -> Shape:
    """The same with fewer rooms; fewer people where it has one room."""
    if scale >= 1:
        return shape
    rooms = max(1, round(shape.rooms * scale)) if shape.rooms > 1 else 1
    people = max(1, round(shape.people * scale)) if shape.rooms == 1 else shape.people
    return replace(shape, rooms=rooms, people=people)


async def fanout(bench: Bench, *, seconds: float, scale: float = 1.0) -> Result:
    """All shapes one after the other, each with fresh rooms."""
    result = Result(
        "fanout",
        "People join over REST while others watch their rooms; each join is one event, sent to"
        " every connection of its room.",
        {"seconds per shape": seconds, "scale": scale, "watching processes": bench.processes},
    )
    with bench.run() as run:
        describe(run, result)
        for shape in SHAPES:
            small = scaled(shape, scale)
            add(result, small, await one_shape(run, small, seconds=seconds))
    if not result.broken:
        result.checked.append("every connection got every event of its room once and in order")
    return result


async def one_shape(run: Run, shape: Shape, *, seconds: float) -> Window:
    """Rooms, watchers, a warm-up, the measured window; the rooms are ended afterwards."""
    async with (
        run.rooms(shape.rooms) as (lines, rooms),
        watched(run, lines, rooms, shape.people) as watchers,
        run.screen.step(shape.name, lambda: {"deliveries": watchers.deliveries}),
    ):
        for length in (min(WARM_SECONDS, seconds), seconds):
            measured = await window(
                run, watchers, lines, rooms, in_flight=shape.in_flight, seconds=length,
                nap=shape.nap, per_second=shape.per_second,
            )  # fmt: skip
    return measured


def add(result: Result, shape: Shape, measured: Window) -> None:
    """Writes a window's figures into the result."""
    result.broken += measured.faults(shape.name)
    if shape.per_second:
        result.latencies["join → seen by the others: " + shape.name] = measured.heard.latency
        result.latencies["join → its own answer: " + shape.name] = measured.driven.latency
    else:
        note = f"{measured.usage.text()}; {measured.driven.per_second:,.0f} joins/s"
        result.add(
            shape.name, measured.deliveries_per_second, "deliveries/s",
            whose=measured.whose, note=note,
        )  # fmt: skip
        if measured.usage.servers:
            result.add(
                f"{shape.name}: server CPU", measured.server_us_per_delivery, "µs per delivery",
                note="all of the server's CPU, the joins included, over the deliveries",
            )  # fmt: skip
        result.timelines[f"deliveries per second: {shape.name}"] = measured.timeline()
    result.notes.append(f"{shape.name}: {measured.usage.text()}")

"""Many histories, spread over the cores: `python -m tests.simulation --histories 20000 --seed 1`.

Exit status 1: a promise was not kept; the seed that is printed repeats the history.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from rich.console import Console

from tests.simulation import scale
from tests.simulation.world import WorldHistory, history_of, quietly

PART = 100
"""Histories that a process lives through before it says what came of them."""


def parser() -> argparse.ArgumentParser:
    one = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    one.add_argument("--histories", type=int, default=2000)
    one.add_argument("--seed", type=int, default=1, help="of the first one")
    one.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    one.add_argument("--scale", action="store_true", help="count what large deployments cost")
    one.add_argument("--trace", action="store_true", help="tell what happened in each")
    return one


def histories_of(seeds: range, *, is_traced: bool) -> list[WorldHistory]:
    """One after the other. What they leave behind is looked through once, at the end."""
    gc.disable()
    with quietly():
        found = [history_of(seed) for seed in seeds]
    gc.collect()
    if not is_traced:
        for history in found:
            history.trace.clear()
    return found


def parts(first: int, count: int) -> Iterator[range]:
    """`count` seeds from `first` on, in parts."""
    for start in range(first, first + count, PART):
        yield range(start, min(start + PART, first + count))


def show(console: Console, history: WorldHistory) -> None:
    if history.trace:
        console.print("\n".join(history.trace), highlight=False, markup=False)
    for sentence in history.broken:
        console.print(f"seed {history.seed}: {sentence}", style="red", markup=False)


def main() -> int:
    arguments, console = parser().parse_args(), Console()
    if arguments.scale:
        scale.show(Console(width=200))
        return 0
    began, broken, events, deliveries = time.monotonic(), 0, 0, 0
    live = partial(histories_of, is_traced=arguments.trace)
    with ProcessPoolExecutor(arguments.processes) as processes:
        for part in processes.map(live, parts(arguments.seed, arguments.histories)):
            for history in part:
                show(console, history)
                broken += bool(history.broken)
                events += history.events
                deliveries += history.deliveries
    seconds = time.monotonic() - began
    console.print(
        f"{arguments.histories:,} histories in {seconds:.0f} s on {arguments.processes} processes:"
        f" {events:,} events, {deliveries:,} deliveries,"
        f" {broken} histories with a broken promise"
    )
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())

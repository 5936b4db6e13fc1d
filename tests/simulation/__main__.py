"""Many histories, one after the other: `python -m tests.simulation --histories 20000 --seed 1`.

Exit status 1: a promise was not kept; the seed that is printed repeats the history.
"""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console

from tests.simulation.world import History, history_of, quietly


def parser() -> argparse.ArgumentParser:
    one = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    one.add_argument("--histories", type=int, default=2000)
    one.add_argument("--seed", type=int, default=1, help="of the first one")
    one.add_argument("--trace", action="store_true", help="tell what happened in each")
    return one


def show(console: Console, history: History, *, trace: bool) -> None:
    if trace:
        console.print("\n".join(history.trace), highlight=False, markup=False)
    for sentence in history.broken:
        console.print(f"seed {history.seed}: {sentence}", style="red", markup=False)


def main() -> int:
    arguments, console = parser().parse_args(), Console()
    began, broken, events, deliveries = time.monotonic(), 0, 0, 0
    with quietly():
        for seed in range(arguments.seed, arguments.seed + arguments.histories):
            history = history_of(seed)
            show(console, history, trace=arguments.trace)
            broken += bool(history.broken)
            events += history.events
            deliveries += history.deliveries
    seconds = time.monotonic() - began
    console.print(
        f"{arguments.histories:,} histories in {seconds:.0f} s: {events:,} events,"
        f" {deliveries:,} deliveries, {broken} histories with a broken promise"
    )
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())

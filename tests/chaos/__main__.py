"""The command line of chaos. Exit status 1: a promise was broken; the seed repeats the plan."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from tests.chaos.measure import measure
from tests.chaos.modes import MODES
from tests.chaos.run import Report, chaos
from tests.harness.outputs import output_file, output_folder
from tests.harness.screen import Screen


def show(console: Console, report: Report) -> None:
    """The report, for people."""
    console.print(
        f"\n[bold]chaos[/]  {report.mode}, seed {report.seed}, {report.seconds:.0f} s",
        highlight=False,
    )  # fmt: skip
    console.print(
        f"faults      {report.faults.total()} of {report.planned}: "
        + ", ".join(f"{n} × {kind}" for kind, n in report.faults.items()),
        highlight=False,
    )
    console.print(f"log         {report.events:,} events in {report.rooms} rooms", highlight=False)
    did = ", ".join(f"{count:,} {what}" for what, count in sorted(report.did.items()))
    console.print(f"people      {did}", highlight=False)
    console.print(f"closed      {report.codes}", highlight=False)
    seen = ", ".join(f"{k} {v:,.1f}" for k, v in report.seen_ms.items())
    console.print(f"seen, ms    {seen}; the slowest {report.slowest}", highlight=False)
    console.print(
        f"repaired    while Postgres answered: the slowest {report.slowest_repaired}",
        highlight=False,
    )
    console.print(
        f"deadlines   at most {report.worst_late:.1f} s late (outages move them);"
        f" ready again {report.repaired_in:.1f} s after the last mending", highlight=False,
    )  # fmt: skip
    console.print(
        f"machine     each node was without a core for {report.starved:.0f} s", highlight=False
    )
    if report.recovered_in:
        console.print(f"promotions  every node ready within {report.recovered_in:.1f} s")
    console.print(
        f"webhook     {report.told:,} deliveries, {report.told_twice:,} of them repeated",
        highlight=False,
    )
    if report.excused:
        console.print(f"excused     {report.excused} joins: their node was killed", highlight=False)
    for sentence in report.broken[:40]:
        console.print(f"✗ {sentence[:1500]}", style="red", highlight=False, markup=False)
    if not report.broken:
        console.print("[green]✓[/] no promise was broken")


def _measure(console: Console, file: Path | None) -> int:
    figures = uvloop.run(measure(Screen(console), times=5))
    table = Table(show_edge=False)
    for name in ("seconds", "median", "worst"):
        table.add_column(name, justify="left" if name == "seconds" else "right")
    for what, (middle, worst) in figures.items():
        table.add_row(what, f"{middle:.3f}", f"{worst:.3f}")
    console.print(table)
    if file is not None:
        file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def parser() -> argparse.ArgumentParser:
    one = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    one.add_argument("--seed", type=int, default=1, help="of the plan and of the people (1)")
    one.add_argument(
        "--mode", choices=MODES, default="default",
        help="; ".join(f"{name}: {mode.about}" for name, mode in MODES.items()),
    )  # fmt: skip
    one.add_argument("--minutes", type=float, default=2.0)
    one.add_argument("--nodes", type=int, default=3)
    one.add_argument("--rooms", type=int, default=5, help="open at a time")
    one.add_argument("--people", type=int, default=7, help="guests of a room")
    one.add_argument("--json", type=output_file, help="write the report as JSON")
    one.add_argument(
        "--measure", action="store_true", help="no chaos: how long each fault takes to repair"
    )
    one.add_argument("--keep-logs", type=output_folder, help="a folder for the nodes' logs")
    return one


def main() -> int:
    """Exit status 0: every promise held; 1: one was broken."""
    arguments = parser().parse_args()
    console = Console()
    if arguments.measure:
        return _measure(console, arguments.json)
    report = uvloop.run(
        chaos(
            seed=arguments.seed, seconds=arguments.minutes * 60, nodes=arguments.nodes,
            rooms=arguments.rooms, people=arguments.people, screen=Screen(console),
            keep_logs=arguments.keep_logs, mode=arguments.mode,
        )
    )  # fmt: skip
    show(console, report)
    if arguments.json is not None:
        arguments.json.write_text(
            json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    if report.broken:
        console.print(f"repeat it: python -m tests.chaos --mode {report.mode} --seed {report.seed}"
                      f" --minutes {report.seconds / 60:g} --nodes {arguments.nodes}")  # fmt: skip
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())

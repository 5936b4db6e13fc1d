"""The live display of a run, and the table at its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loadtest.figures import Result

Numbers = Callable[[], dict[str, float]]
"""What to show now: name -> number. Numbers that grow are shown with their pace."""


class Screen:
    """One line that lives while something happens. Without a terminal: a line per step."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @asynccontextmanager
    async def step(self, what: str, numbers: Numbers = dict) -> AsyncIterator[None]:
        """Shows `what` and its numbers, four times a second, until the block is left."""
        start = time.monotonic()
        if not self.console.is_terminal:
            self.console.print(f"{what} …", highlight=False)
            yield
            return
        with Live(console=self.console, transient=True, refresh_per_second=8) as live:
            task = asyncio.create_task(self._show(live, what, numbers, start))
            try:
                yield
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self.console.print(
            f"[green]✓[/] {what} [dim]{time.monotonic() - start:.1f} s[/]", highlight=False
        )

    async def _show(self, live: Live, what: str, numbers: Numbers, start: float) -> None:
        before, at = numbers(), time.monotonic()
        while True:
            await asyncio.sleep(0.25)
            now, moment = numbers(), time.monotonic()
            parts = [
                f"{name} {value:,.0f}"
                + (
                    f" ({(value - before[name]) / (moment - at):,.0f}/s)"
                    if value > before.get(name, value)
                    else ""
                )
                for name, value in now.items()
            ]
            live.update(Text(f"  {moment - start:5.1f} s  {what}   " + "   ".join(parts)))
            before, at = now, moment


def show(console: Console, result: Result) -> None:
    """The summary: figures, latencies, what was checked."""
    console.print(f"\n[bold]{result.name}[/]  {result.about}", highlight=False)
    if result.table:
        console.print(_plain(result.table))
    if result.figures:
        table = Table(show_edge=False)
        table.add_column("figure")
        table.add_column("value", justify="right")
        table.add_column("whose limit")
        for figure in result.figures:
            table.add_row(figure.name, figure.text, OWNERS[figure.whose])
        console.print(table)
    if result.latencies:
        console.print(_plain(result.latency_rows()))
    for note in result.notes:
        console.print(f"[dim]{note}[/]", highlight=False)
    for line in result.checked:
        console.print(f"[green]✓[/] {line}", highlight=False)
    for line in result.broken:
        console.print(f"[red]✗ {line}[/]", highlight=False)


OWNERS = {
    "": "",
    "server": "the server's",
    "client": "REFUSED as the server's: the client was full",
    "machine": "not the server's: the machine was (other cores full, or other work)",
    "unknown": "nobody was full: the pace of this way of asking",
}


def _plain(rows: list[list[str]]) -> Table:
    table = Table(show_edge=False)
    for i, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if i else "left")
    for row in rows[1:]:
        table.add_row(*row)
    return table

"""The tables at the end of a run."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from loadtest.figures import Result


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

"""The live display of a run."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

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

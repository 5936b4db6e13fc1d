"""The tasks without which a process is no node: watched in one place, so that none goes silently.

A task that ends, in whatever way, while the node runs is started again where that is safe (what it
does is found anew: the bus, the hub's poll, the reaper); where it is not (the writer, the lease: it
has promised something) the node calls itself unready and the process ends, so that whoever runs it
starts a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

log = structlog.get_logger()

RESTART_SECONDS = 0.5
CANCEL_SECONDS = 3.0

Run = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class EssentialTask:
    """One of them. `is_restarted`: False where its end is the end of the process."""

    name: str
    run: Run
    is_restarted: bool


class EssentialTasks:
    """Runs them until `end`.

    Attributes:
        lost: the name of a task that ended for good; None while all run.
        on_loss: called once then.
    """

    def __init__(self, tasks: list[EssentialTask], on_loss: Callable[[], None]) -> None:
        self.lost: str | None = None
        self._parts = tasks
        self._on_loss = on_loss
        self._watches: list[asyncio.Task[None]] = []
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Starts all of them."""
        self._watches = [
            asyncio.create_task(self._watch(part), name=f"watch {part.name}")
            for part in self._parts
        ]

    async def end(self) -> None:
        """Cancels all of them, and waits for at most 3 s."""
        await _cancel([*self._watches, *self._running.values()])

    def task(self, name: str) -> asyncio.Task[None] | None:
        """The task of that name as it runs now."""
        return self._running.get(name)

    async def _watch(self, part: EssentialTask) -> None:
        while True:
            task = asyncio.create_task(part.run(), name=part.name)
            self._running[part.name] = task
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                # The process ends without having been stopped (a second signal): a task that is
                # started anew now would keep it for ever.
                task.cancel()
                raise
            _say(part, task)
            if not part.is_restarted:
                self.lost = part.name
                self._on_loss()
                return
            await asyncio.sleep(RESTART_SECONDS)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    """Until they have ended, or 3 s have passed. Once is not enough: redis-py swallows a
    cancellation while it connects.
    """
    running = set(tasks)
    for _ in range(round(CANCEL_SECONDS / 0.2)):
        for task in running:
            task.cancel()
        if running:
            _, running = await asyncio.wait(running, timeout=0.2)


def _say(part: EssentialTask, task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    log.error(
        "essential_task_ended",
        task=part.name,
        how="cancelled" if task.cancelled() else "failed" if error else "returned",
        then="restarts" if part.is_restarted else "the process ends",
        exc_info=error,
    )

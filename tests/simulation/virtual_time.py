"""An event loop whose clock jumps to the next thing that is due: seconds of waiting cost nothing.

Nothing in it does I/O, so the order of all that happens follows from the seed alone.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class _NoSelector(selectors.BaseSelector):
    """Watches nothing; waiting moves the loop's clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits for nothing: the simulation would hang")
        self.now += max(timeout, 0.0)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop with a clock of its own, which begins at 0."""

    def __init__(self) -> None:
        self._virtual = _NoSelector()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._virtual.now


_running: set[asyncio.Task[Any]] = set()


def begin(story: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Starts something that nobody waits for."""
    task = asyncio.get_running_loop().create_task(story)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


def run(story: Coroutine[Any, Any, T]) -> T:
    """Runs a story to its end in virtual time; what it left running is cancelled."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(story)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()

"""An event loop whose clock jumps to the next thing that is due: seconds of waiting cost nothing.

Nothing in it does I/O, so the order of all that happens follows from the seed alone. It does what
asyncio's own loop does and no more, which is half of what a history costs: what is due stands in a
heap of tuples, and a handle is a callback with its arguments.
"""

from __future__ import annotations

import asyncio
import itertools
from asyncio.base_events import BaseEventLoop
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from heapq import heappop, heappush
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Due(asyncio.TimerHandle):
    """Something that will be called, unless it is cancelled."""

    __slots__ = ()

    def __init__(
        self, when: float, callback: Any, args: Any, loop: VirtualLoop, context: Context | None
    ) -> None:
        self._when = when
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = self._source_traceback = None

    def cancel(self) -> None:
        self._cancelled = True


class VirtualLoop(BaseEventLoop):
    """A loop with a clock of its own, which begins at 0."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._order = itertools.count()
        self._soon: deque[_Due] = deque()
        self._later: list[tuple[float, int, _Due]] = []
        self._stopping = False

    def time(self) -> float:
        return self._now

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> _Due:
        due = _Due(self._now, callback, args, self, context)
        self._soon.append(due)
        return due

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts,
        context: Context | None = None,
    ) -> _Due:  # fmt: skip
        due = _Due(when, callback, args, self, context)
        heappush(self._later, (when, next(self._order), due))
        return due

    def _run_once(self) -> None:
        """All turns until the loop stops: what is ready; where nothing is, the clock moves on."""
        soon, later = self._soon, self._later
        while not self._stopping:
            if not soon:
                self._move_on()
            while later and later[0][0] <= self._now:
                soon.append(heappop(later)[2])
            for _ in range(len(soon)):
                due = soon.popleft()
                if not due._cancelled:
                    due._run()

    def _move_on(self) -> None:
        later = self._later
        while later and later[0][2]._cancelled:
            heappop(later)
        if not later:
            raise RuntimeError("everybody waits for nothing: the simulation would hang")
        self._now = max(self._now, later[0][0])


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

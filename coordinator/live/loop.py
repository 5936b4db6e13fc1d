"""Work that a node does again and again: a loop of its own for each kind, and its own trouble."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from coordinator.domain.errors import Unavailable

log = structlog.get_logger()

RETRY_SECONDS = 0.3

Work = Callable[[], Awaitable[None]]


class Loop:
    """Does `work` every so many seconds, and sooner after a failure; survives all its errors.

    Attributes:
        trouble: what the last pass failed of, in words; None where it went well.
    """

    def __init__(self, work: Work, *, name: str, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        self.trouble: str | None = None
        self._troubled_at = float("-inf")
        self._work = work
        self._is_wanted = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            pause = self.seconds if self.trouble is None else min(self.seconds, RETRY_SECONDS)
            await waited(self._is_wanted, at_most=pause)
            await self.pass_once()

    def was_calm(self, seconds: float) -> bool:
        """True where its work has gone well for so long: from the first pass that did."""
        return self.trouble is None and time.monotonic() - self._troubled_at > seconds

    def soon(self) -> None:
        """The next pass begins now, or right after the one under way."""
        self._is_wanted.set()

    async def pass_once(self) -> None:
        """One pass now. A failure is logged once, until a pass succeeds or fails otherwise."""
        try:
            await self._work()
        except Unavailable as error:
            self._fail(error.__cause__ or error, is_expected=True)
        except Exception as error:
            self._fail(error, is_expected=False)
        else:
            if self.trouble is not None:
                log.info("loop_recovered", loop=self.name)
                self._troubled_at = time.monotonic()  # until now, not until the last failure
            self.trouble = None
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError  # the work has swallowed it: drivers do, as they connect

    def _fail(self, error: BaseException, *, is_expected: bool) -> None:
        cause = in_words(error)
        if cause != self.trouble:
            if is_expected:
                log.warning("postgres_away", during=self.name)  # the database says why, once
            else:
                log.error("loop_failed", loop=self.name, exc_info=error)
        self.trouble = cause
        self._troubled_at = time.monotonic()


async def waited(event: asyncio.Event, *, at_most: float) -> None:
    """Returns when an event is set, or after so many seconds; it is not set then.

    An alarm sets it, so that nothing is raised where the time is over: loops wait all the time.
    """
    alarm = asyncio.get_running_loop().call_later(at_most, event.set)
    try:
        await event.wait()
    finally:
        alarm.cancel()
    event.clear()


def in_words(error: BaseException) -> str:
    """The kind of an error and its first line, short enough for a log line."""
    first = str(error).strip().partition("\n")[0][:200]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__

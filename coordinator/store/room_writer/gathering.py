"""Whether it pays to wait a moment for the callers who have just been answered.

Callers who ask one thing after the other come back as soon as they are answered, but not all in the
same turn of the loop. A statement that is sent for the first of them alone keeps the others waiting
for as long as it takes, which is hardly less than for all of them:

    without   │ 8 │ told │ 1 │ 7 │ 1 │ 7 │ …        each │ is a round trip and a flush of the disk
    with      │ 8 │·│ 8 │·│ 8 │ …                    told while PostgreSQL works on the next 8

So where less than half of those of the last round are there, the next statement waits for the
others, for a share of the time that statements take. Where more than a quarter of them stay away
(people ask when they like), it waits more and more seldom.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sized

FEW = 4
"""Fewer callers are not waited for: they may as well have come by chance."""
ENOUGH = 16
"""So many commands share the cost of a statement well enough."""
PART = 0.5
"""The longest wait, as a share of the time that a statement takes; within the two bounds below."""
MOST_SECONDS = 0.01
LEAST_SECONDS = 0.0003
TURN_SECONDS = 0.001
"""A timer of the loop is as late as that: what is shorter is waited for in turns of the loop."""
MOST_SKIPPED = 256
"""Rounds without waiting after callers have failed to come back again and again."""
_WEIGHT = 0.125
"""Of the newest statement in the average time."""


class Gathering:
    """One writer's rounds: a round is those who were answered and those who waited meanwhile.

    Attributes:
        seconds: how long the next statement may wait for more commands; 0 = not at all.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._size = 0
        """How many commands are waited for: the callers of the last round, or `ENOUGH`."""
        self._statement_seconds = 0.0
        self._skip = 0
        self._next_skip = 1

    @property
    def is_short(self) -> bool:
        """True where a room may well be told after the wait: others wait for it no longer."""
        return 0 < self.seconds <= TURN_SECONDS

    def note_statement(self, seconds: float) -> None:
        """A statement took so long, from sending it to its answer."""
        before = self._statement_seconds or seconds
        self._statement_seconds = before + _WEIGHT * (seconds - before)

    def begin_round(self, *, answered: int, waiting: int) -> None:
        """A batch has been committed, and its callers are answered; sets `seconds`.

        Args:
            waiting: commands that are there already.
        """
        self.seconds = 0.0
        self._size = min(ENOUGH, answered + waiting)
        if self._size < FEW or 2 * waiting >= self._size:
            return
        if self._skip:
            self._skip -= 1
            return
        most = min(MOST_SECONDS, PART * self._statement_seconds)
        self.seconds = max(LEAST_SECONDS, most)

    def skip_round(self) -> None:
        """This time nothing is waited for."""
        self.seconds = 0.0

    async def wait(self, commands: Sized) -> None:
        """Returns when the callers are back, or after `seconds`, which is 0 from now on."""
        until = time.perf_counter() + self.seconds
        left, self.seconds = self.seconds, 0.0
        while len(commands) < self._size and left > 0:
            await asyncio.sleep(0 if left < TURN_SECONDS else TURN_SECONDS)
            left = until - time.perf_counter()
        self._end_round(len(commands))

    def _end_round(self, waiting: int) -> None:
        if 4 * waiting >= 3 * self._size:
            self._next_skip = 1
        else:
            self._skip = self._next_skip
            self._next_skip = min(MOST_SKIPPED, 2 * self._next_skip)

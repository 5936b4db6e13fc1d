"""A beat: calls many members once in a period each, all with one timer.

    place   0      1      2      3   …   399
          [a,b]   [ ]    [c]   [d,e]    [f]       the hand goes round once in a period
                   ^ hand

A timer for each of 17,000 connections' pings costs the event loop a turn of its own for each; here
those that are due at about the same time are called in one turn. Who has a place keeps it, so what
was spread out stays so.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

import structlog

log = structlog.get_logger()

PLACES = 400
LATE_SECONDS = 1.0
"""Later than this, the process did not run."""


class Member(Protocol):
    """What a beat calls. It joins as it is: a bound method would be one more object to look at."""

    def on_beat(self) -> None:
        """Its turn, once in a period."""

    def on_late(self) -> None:
        """The process did not run for a while: its turn comes that much later than it was to."""


class Beat:
    """Calls each member once in `seconds`; made and used in a running event loop.

    A process that was frozen has not read yet what came meanwhile. So where the hand is late, all
    that follows is put off by as much: members are called as far apart as ever, after the loop has
    read.
    """

    def __init__(self, seconds: float) -> None:
        self._step = seconds / PLACES
        self._places: list[dict[Member, None]] = [{} for _ in range(PLACES)]
        self._hand = 0
        self._due = 0.0
        """On the loop's clock, when those at the hand are called."""
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._was_put_off = False

    def __len__(self) -> int:
        return self._size

    @property
    def is_running(self) -> bool:
        """False where nobody has to be called."""
        return self._timer is not None

    def join(self, member: Member, *, anywhere: bool = False) -> int:
        """Calls `member` first after a whole period, or `anywhere` within it at random.

        Returns:
            its place, for `leave`.
        """
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._due = loop.time() + self._step
            self._timer = loop.call_at(self._due, self._tick, loop)
        place = random.randrange(PLACES) if anywhere else (self._hand - 1) % PLACES
        self._places[place][member] = None
        self._size += 1
        return place

    def leave(self, place: int, member: Member) -> None:
        """It is called no more."""
        members = self._places[place]
        if member in members:
            del members[member]
            self._size -= 1

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._size:
            self._timer = None
            return
        now = loop.time()
        if now - self._due > LATE_SECONDS and not self._was_put_off:
            self._was_put_off = True  # once: who is always late is called all the same
            self._due = now + self._step
            self._timer = loop.call_at(self._due, self._tick, loop)
            self._tell_late()
            return
        self._was_put_off = False
        members = self._places[self._hand]
        self._hand = (self._hand + 1) % PLACES
        self._due += self._step
        self._timer = loop.call_at(self._due, self._tick, loop)
        for member in tuple(members):
            if member in members:  # not left through one before it
                self._call(member.on_beat)

    def _tell_late(self) -> None:
        for members in self._places:
            for member in tuple(members):
                self._call(member.on_late)

    @staticmethod
    def _call(hears: Callable[[], None]) -> None:
        try:
            hears()
        except Exception as error:
            log.error("beat_failed", exc_info=error)

"""When a committed batch is told: its callers, its rooms, and the next statement between the two.

    nobody else is there           told at once; of a lone event a small room here hears first, then
                                   the caller, then the other nodes
    others wait                    as soon as PostgreSQL works on their statement
    others are about to be there   their callers are answered at once, so that they come back; the
                                   rooms are told as soon as PostgreSQL works on what they ask next
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence, Sized
from typing import Any

import structlog

from coordinator.domain.events import Event
from coordinator.store.room_writer.commands import Command
from coordinator.store.room_writer.gathering import Gathering
from coordinator.store.room_writer.transaction import Transaction

log = structlog.get_logger()

OnCommit = Callable[[Sequence[Event], Sequence[str]], None]
"""Hears of each committed batch: its events in order, and the sessions that newer ones replaced."""
OnLone = Callable[[Sequence[Event]], None]
"""Hears of the events of a command that was committed alone, before `OnCommit` does."""


class Telling:
    """The telling of one writer.

    Args:
        on_commit: called once for each batch, in order; must not block or raise.
        undo: hears of each join whose caller was told that it failed.
        on_lone: called before, for a command that nobody waits behind: whoever is told quickly is
            told before the caller is answered.
    """

    def __init__(
        self,
        on_commit: OnCommit,
        undo: Callable[[Command[Any]], None],
        on_lone: OnLone = lambda events: None,
    ) -> None:
        self._on_commit = on_commit
        self._on_lone = on_lone
        self._undo = undo
        self.gathering = Gathering()
        self._untold: Transaction | None = None
        """Its callers are answered, its rooms will be told at the end of the wait."""

    def committed(self, batch: Transaction, *, waiting: int, may_gather: bool) -> None:
        """Tells of a batch, now or in a moment.

        Args:
            waiting: commands that are there already.
            may_gather: False where the next statement cannot wait for more.
        """
        if (before := self._untold) is not None:  # committed without the wait in between
            self._untold = None
            self._tell(before)
        gathering = self.gathering
        gathering.begin_round(answered=len(batch.answers), waiting=waiting)
        if not may_gather:
            gathering.skip_round()
        if gathering.is_short and batch.answer_first():
            self._untold = batch
        elif waiting and not gathering.seconds:
            asyncio.get_running_loop().call_soon(self._tell, batch)
        else:
            if len(batch.answers) == 1 and batch.events:
                self._tell_lone(batch)
            self._tell(batch)

    async def gather(self, commands: Sized) -> None:
        """Waits for those who were just answered; what is untold is told when they are sent."""
        try:
            await self.gathering.wait(commands)
        finally:
            untold, self._untold = self._untold, None
            if untold is not None:
                asyncio.get_running_loop().call_soon(self._tell, untold)

    def _tell_lone(self, batch: Transaction) -> None:
        try:
            self._on_lone(batch.events)
        except Exception as error:
            log.error("commit_not_announced", exc_info=error)

    def _tell(self, batch: Transaction) -> None:
        """Announces a committed batch and answers its callers; a failing listener stops neither."""
        batch.answer_first()
        try:
            if batch.events or batch.replaced:
                self._on_commit(batch.events, batch.replaced)
        except Exception as error:
            log.error("commit_not_announced", exc_info=error)
        batch.answer(self._undo)

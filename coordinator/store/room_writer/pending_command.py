"""A command in the writer's queue, and the answer that its caller waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import structlog

from coordinator.store.room_writer.commands import Command

log = structlog.get_logger()

A = TypeVar("A")


class CommandAnswer(asyncio.Future[A]):
    """The answer of a command, or its refusal."""

    _callback: Callable[[asyncio.Future[A]], None] | None = None
    _on_decided: Callable[[A], None] | None = None

    def call_first(
        self,
        callback: Callable[[asyncio.Future[A]], None],
        on_decided: Callable[[A], None] | None = None,
    ) -> None:
        """Has one callback called as soon as the command is committed, before its room is told (but
        for a lone event of a small room, see `Telling`).

        The command's client goes on while the node still writes to the room. A refusal or a failure
        comes as to any done callback. The callback must not block, and must not rely on what the
        hub learns from the events.

        Args:
            on_decided: called while PostgreSQL works, with what is the result if it commits this
                (it is this very object then; else it may be called again): what the client is told
                can be made meanwhile. Nobody may see anything of it before `callback` is called.
        """
        self._callback, self._on_decided = callback, on_decided
        self.add_done_callback(callback)

    def note_decided(self, result: A) -> None:
        """The command is decided, and its write is under way."""
        if self._on_decided is None or self.done():
            return
        try:
            self._on_decided(result)
        except Exception as error:
            log.error("answer_not_prepared", exc_info=error)

    def settle_first(self, result: A) -> None:
        """Sets the result, and calls the callback of `call_first`, where there is one."""
        callback = self._callback
        if callback is None or self.done():
            return
        self.remove_done_callback(callback)
        self.set_result(result)
        try:
            callback(self)
        except Exception as error:
            log.error("answer_not_sent", exc_info=error)


class PendingCommand(msgspec.Struct, eq=False):
    """A command that waits for its answer."""

    command: Command[Any]
    answer: CommandAnswer[Any]
    deadline: float
    is_uncertain: bool = False
    """An earlier COMMIT of this command was never answered: it may have been carried out."""
    needs_lock: bool = False
    """Somebody was faster after the room was read, or nothing was to be written."""

    @property
    def is_given_up(self) -> bool:
        """Its caller has been told that the service is unavailable, or is gone."""
        return self.answer.done()

    def fail(self, error: BaseException) -> None:
        """Tells its caller, unless it has been told something else."""
        if not self.answer.done():
            self.answer.set_exception(error)


def unheard(answer: asyncio.Future[Any]) -> None:
    """Nobody waits for this answer: a failure is repaired elsewhere (`live/lease.py`)."""
    if not answer.cancelled():
        answer.exception()

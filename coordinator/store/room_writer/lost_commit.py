"""A lost COMMIT: it was sent, its answer never came, and it may have been carried out.

    lost       `AnswerLost`: the commands are `is_uncertain`, and stay at the head of the queue
    again      they are carried out under the rooms' locks, which wait for the lost backend. What is
               there already is found by an id that was made before the queue: the same answer
    given up   the caller has heard 503 by now, and a join may be in the room all the same: it is
               taken back, so that the 503 was true
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coordinator.store.room_writer.commands import Command, Join, UndoJoin
from coordinator.store.room_writer.pending_command import PendingCommand


class AnswerLost(Exception):
    """COMMIT was sent, and its answer never came."""


def note_uncertain(commands: Iterable[PendingCommand]) -> None:
    """The COMMIT of these commands was not answered."""
    for pending in commands:
        pending.is_uncertain = True


def is_to_undo(pending: PendingCommand) -> bool:
    """True for a `Join` that was answered 503: if it was committed, the writer takes it back.

    No other command: nobody but this caller knows the new guest's id, whereas a return that was
    refused may have been asked for again meanwhile, and answered.
    """
    answer = pending.answer
    return (
        isinstance(pending.command, Join)
        and not answer.cancelled()
        and bool(answer.done() and answer.exception())
    )


def undo_of(join: Command[Any]) -> UndoJoin:
    """The command that takes a join back."""
    assert join.user_id is not None
    return UndoJoin(room_id=join.room_id, user_id=join.user_id)

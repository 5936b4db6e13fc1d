"""The ends of logs, as a node was told them, compared with the logs themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coordinator.domain.events import Head


@dataclass(frozen=True, slots=True)
class Moved:
    """A feed whose log does not end where a node thought.

    Attributes:
        last_seq: the log's end; None where there is no such feed (any more).
        stands: the event that was told last is still in the log, so that the log went on after it.
            False: the database was set back, whatever `last_seq` says.
        erasures: how many times somebody was taken out of it (`store/erasure.py`): a node that
            knows of fewer holds what is to be forgotten.
    """

    feed_id: str
    last_seq: int | None
    stands: bool
    erasures: int = 0


def heads_columns(known: Sequence[tuple[str, Head]]) -> tuple[list[Any], ...]:
    """What was told, as parameters: ids, seqs, epochs, times."""
    return (
        [feed_id for feed_id, _ in known],
        [head.seq for _, head in known],
        [head.epoch for _, head in known],
        [datetime.fromisoformat(head.at) for _, head in known],
    )

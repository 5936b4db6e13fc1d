"""A feed's state as JSON, as `welcome` frames take it over: made once for all who are greeted.

The people of a large room are not copied into each welcome: the frame is written in pieces, and
those pieces are the same bytes for every connection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw

from coordinator.domain.roster import Roster
from coordinator.live.frames import Welcome, frame_header

_encode = msgspec.json.Encoder().encode
_NOBODY = b'"participants":[]'
"""Where the people go into a welcome. It stands there once: in a JSON string its quotes would be
escaped."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The members of a `welcome` that tell a state.

    Attributes:
        members: by name, as JSON; `participants` is empty where `people` has them.
        people: the JSON array of those who are there, in pieces.
    """

    members: dict[str, Raw] = field(default_factory=dict)
    people: list[bytes] | None = None

    @classmethod
    def of(cls, state: Any, *, counts_only: bool = False) -> Snapshot:
        """The snapshot of a feed's state; `counts_only`: without those who are there."""
        if not isinstance(state, Roster):
            return cls({name: _raw(value) for name, value in state.snapshot().items()})
        if counts_only:
            return cls({"room": _raw(state.room)})
        people = state.participants.json_blocks(_encode)
        return cls({"room": _raw(state.room), "participants": Raw(b"[]")}, people)


RESUMED = Snapshot()
"""The snapshot of a client that resumes: it is sent events instead."""


def greeting(welcome: Welcome, snapshot: Snapshot) -> list[bytes]:
    """The pieces of a welcome as a frame, to be written one after the other."""
    payload = _encode(welcome)
    if snapshot.people is None:
        return [frame_header(len(payload)) + payload]
    head, _, tail = payload.partition(_NOBODY)
    head += _NOBODY[:-2]
    size = len(head) + sum(map(len, snapshot.people)) + len(tail)
    return [frame_header(size) + head, *snapshot.people, tail]


def _raw(value: Any) -> Raw:
    return Raw(_encode(value))

"""Events: the rows of a feed's log, and times as clients read them.

A **feed** is anything with a log of its own: a room, an interview. Its key names it, `seq` counts
its events from 1 without gaps, and applying events 1..n to nothing gives its state at n.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

ROOM = "room"
INTERVIEW = "interview"


class FeedKey(NamedTuple):
    """Which log: its kind (`room`, `interview`) and the public id there."""

    kind: str
    id: str


class Head(NamedTuple):
    """The identity of a log's last event, as somebody was told it.

    `seq` alone may name another event after the database was set back and has grown again.
    """

    seq: int
    epoch: str
    at: str


class Event(NamedTuple):
    """One change, as the log, the bus and the clients have it.

    Attributes:
        feed: whose log.
        seq: its number there, from 1, without gaps.
        type: `participant_joined`, `room_ended` …
        at: when, as clients read it (`timestamp`).
        data: the members beside type, id, seq and at; ready for JSON.
        epoch: the history of the database that it was written in; '' where a version that knew
            none wrote it.
    """

    feed: FeedKey
    seq: int
    type: str
    at: str
    data: Mapping[str, Any]
    epoch: str = ""

    @property
    def head(self) -> Head:
        """Its identity in its log."""
        return Head(self.seq, self.epoch, self.at)

    def body(self) -> dict[str, Any]:
        """The event as one JSON object: how a frame and the REST log show it."""
        name = "roomId" if self.feed.kind == ROOM else "interviewId"
        return {"type": self.type, name: self.feed.id, "seq": self.seq, "at": self.at, **self.data}


@lru_cache(64)
def timestamp(moment: datetime) -> str:
    """UTC, ISO 8601 with milliseconds and `Z`: `2024-01-01T10:00:00.000Z`."""
    since = moment - _EPOCH
    second = _second(since.days, since.seconds)
    return f"{second}.{since.microseconds // 1000:03d}Z"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(64)
def _second(days: int, seconds: int) -> str:
    """`2024-01-01T10:00:00`, from the days and seconds since 1970: most events share theirs."""
    return (_EPOCH + timedelta(days, seconds)).isoformat()[:19]

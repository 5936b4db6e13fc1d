"""The state of a room on which its rules (`room_rules.py`) decide.

A `Room` is loaded under the room's lock, or taken from the writer's cache: the room's own row and
the participants whom the commands name. Rules change it in memory and note events and changes;
the writer makes them durable or forgets them.

Being in the room (`left_at` is None) is durable. Being connected is one of three states: `none`
(joined over REST, never connected), `online` (a live connection or more), `away` (had one, has
none; `leave_at` says until when its seat is kept).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from coordinator.domain.events import ROOM, Event, FeedKey, timestamp


@dataclass(frozen=True, slots=True)
class Policy:
    """What operators set: `capacity` people present, `grace` before somebody away has left.

    `unconnected`: after so long a guest who joined and never connected has left; None = never.
    """

    capacity: int
    grace: timedelta
    unconnected: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Lifespan:
    """How long rooms may go on without their host, without anybody, at all; None = for ever."""

    host_absent: timedelta | None
    empty: timedelta | None
    age: timedelta | None


@dataclass(slots=True)
class Participant:
    """Somebody who is or was in a room."""

    user_id: str
    user_name: str
    role: str
    identity: str | None
    joined_at: datetime
    joined_seq: int
    left_at: datetime | None = None
    leave_at: datetime | None = None
    connection: str = "none"
    proven: bool = False
    removed: bool = False
    connections: list[str] = field(default_factory=list)
    """Session ids of its open connections, oldest first."""
    marked: set[str] = field(default_factory=set)
    """Those of them that are marked away."""

    @property
    def present(self) -> bool:
        return self.left_at is None

    @property
    def is_host(self) -> bool:
        return self.role == "host"

    @property
    def is_live(self) -> bool:
        """True where one of its connections is not marked away."""
        return len(self.connections) > len(self.marked)

    def who(self) -> dict[str, Any]:
        """As events name it."""
        return {"userId": self.user_id, "userName": self.user_name, "role": self.role}

    def view(self) -> dict[str, Any]:
        """As snapshots and joins show it; `identity` only where given."""
        view = self.who()
        if self.identity:
            view["identity"] = self.identity
        view["joinedAt"] = timestamp(self.joined_at)
        view["connection"] = self.connection
        return view


UNKNOWN_VERSION = (0, 0)


@dataclass(slots=True)
class Room:
    """A room under its lock, and what has been decided about it so far.

    Attributes:
        now: Postgres's clock, never before the log's last event.
        epoch: the history that new events belong to.
        version: of the row that this state was read or written as.
        participants: those whom the commands name, by user id.
        events: what happened, in order, numbered.
        touched: ids of participants whose rows changed.
        opened: live connections to add: (session id, user id, node epoch).
        closed: session ids of live connections to delete.
        marked: session ids of live connections whose row goes to those that are marked away.
        unmarked: session ids of connections whose row comes back from there.
        closed_marked: session ids of connections to delete there.
        replaced: session ids of closed ones that a newer connection pushed out.
        is_written: also where nothing about it has changed.
        feed: its log.
    """

    room_id: str
    room_name: str
    host_name: str
    status: str
    created_at: datetime
    ended_at: datetime | None
    last_seq: int
    last_at: datetime
    present: int
    guests: int
    online: int
    host_absent_since: datetime | None
    empty_since: datetime | None
    now: datetime
    epoch: str = ""
    version: tuple[int, int] = UNKNOWN_VERSION
    participants: dict[str, Participant] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    opened: list[tuple[str, str, str]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    marked: list[str] = field(default_factory=list)
    unmarked: list[str] = field(default_factory=list)
    closed_marked: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    is_written: bool = False
    feed: FeedKey = field(init=False)

    def __post_init__(self) -> None:
        self.feed = FeedKey(ROOM, self.room_id)

    @property
    def is_ended(self) -> bool:
        return self.status == "ended"

    @property
    def is_changed(self) -> bool:
        """True where there is something to write."""
        return bool(
            self.events or self.touched or self.opened or self.closed or self.marked
            or self.unmarked or self.closed_marked or self.is_written
        )  # fmt: skip

    def forget_changes(self) -> None:
        """They have been written: from here on, new ones are noted."""
        self.events, self.opened, self.closed, self.replaced = [], [], [], []
        self.marked, self.unmarked, self.closed_marked = [], [], []
        self.touched, self.is_written = set(), False

    def open(self, participant: Participant, session_id: str, node_epoch: str) -> None:
        """Notes a new live connection; how many there may be is the rules' to say."""
        participant.connections.append(session_id)
        if session_id in self.closed:
            self.closed.remove(session_id)  # its row is still there
        else:
            self.opened.append((session_id, participant.user_id, node_epoch))

    def mark(self, participant: Participant, session_id: str) -> None:
        """Notes that a live connection is marked away.

        One that opens in this very transaction (nobody knows yet that it is open) has no row that
        could be moved: it is closed.
        """
        if any(session_id == opened for opened, _, _ in self.opened):
            self.close(participant, session_id)
            return
        participant.marked.add(session_id)
        if session_id in self.unmarked:
            self.unmarked.remove(session_id)
        else:
            self.marked.append(session_id)

    def unmark(self, participant: Participant, session_id: str) -> None:
        """Notes that a connection is marked away no more."""
        participant.marked.remove(session_id)
        if session_id in self.marked:
            self.marked.remove(session_id)
        else:
            self.unmarked.append(session_id)

    def close(self, participant: Participant, session_id: str) -> None:
        """Notes the end of a connection; its row is where the last transaction left it."""
        participant.connections.remove(session_id)
        is_marked = session_id in participant.marked
        participant.marked.discard(session_id)
        if session_id in self.marked:
            self.marked.remove(session_id)
            self.closed.append(session_id)
        elif session_id in self.unmarked:
            self.unmarked.remove(session_id)
            self.closed_marked.append(session_id)
        elif is_marked:
            self.closed_marked.append(session_id)
        else:
            self.closed.append(session_id)

    def record(self, kind: str, data: Mapping[str, Any]) -> int:
        """Adds an event to the log; its seq."""
        self.last_seq += 1
        self.last_at = self.now
        self.events.append(
            Event(self.feed, self.last_seq, kind, timestamp(self.now), data, self.epoch)
        )
        return self.last_seq


def room_view(room: Room) -> dict[str, Any]:
    """The room as `welcome` and `room_created` show it."""
    return {
        "roomName": room.room_name,
        "hostName": room.host_name,
        "status": room.status,
        "createdAt": timestamp(room.created_at),
    }

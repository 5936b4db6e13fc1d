"""A room as its log tells it: what each node holds of a room that is open there.

Applying events 1..n gives the roster of seq n, `connection` included; a snapshot is the same thing
read at once. An event may also end connections: that is the `Departure` which `apply` answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.events import Event


@dataclass(frozen=True, slots=True)
class Departure:
    """Live connections to close: of one user, or (None) of everybody, observers too."""

    user_id: str | None
    code: CloseCode


@dataclass(slots=True)
class Roster:
    """Who is in the room now, by user id in order of joining, as snapshots show them."""

    room: dict[str, Any]
    participants: dict[str, dict[str, Any]] = field(default_factory=dict)

    def apply(self, event: Event) -> Departure | None:
        """Takes the next event in; whose connections it ends."""
        data = event.data
        match event.type:
            case "participant_joined":
                participant = data["participant"]
                self.participants.pop(participant["userId"], None)
                self.participants[participant["userId"]] = participant
            case "participant_online" | "participant_back":
                self._connection(data["participant"]["userId"], "online")
            case "participant_away":
                self._connection(data["participant"]["userId"], "away")
            case "participant_left":
                user_id = data["participant"]["userId"]
                self.participants.pop(user_id, None)
                return Departure(user_id, _code_of(data["reason"]))
            case "room_ended":
                self.participants.clear()
                self.room = {**self.room, "status": "ended"}
                return Departure(None, CloseCode.ENDED)
            case "room_created":
                self.room = data["room"]
                self.participants[data["participant"]["userId"]] = data["participant"]
        return None

    def _connection(self, user_id: str, state: str) -> None:
        # A new object: the old one may be shared with a cached snapshot or an event.
        self.participants[user_id] = {**self.participants[user_id], "connection": state}

    def admits(self, user_id: str | None) -> bool:
        """True where somebody may listen: a participant; None (who only watches) until the end."""
        if self.room["status"] == "ended":
            return False
        return user_id is None or user_id in self.participants

    def snapshot(self) -> dict[str, Any]:
        """The members of a `welcome` that tell the state."""
        return {"room": self.room, "participants": list(self.participants.values())}


def _code_of(reason: str) -> CloseCode:
    """What closes the connections of somebody who has left for that reason."""
    return {
        "left": CloseCode.LEFT,
        "disconnected": CloseCode.LEFT,
        "removed": CloseCode.REMOVED,
    }[reason]


def replay(events: list[Event]) -> Roster:
    """The roster that a whole log gives."""
    roster = Roster(room={})
    for event in events:
        roster.apply(event)
    return roster

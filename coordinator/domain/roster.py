"""A room as its log tells it: what each node holds of a room that is open there.

Applying events 1..n gives the roster of seq n, `connection` included; a snapshot is the same thing
read at once. An event may also end connections: that is the `Departure` which `apply` answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.events import Event
from coordinator.domain.seats import Seats


@dataclass(frozen=True, slots=True)
class Departure:
    """Live connections to close: of one user, or (None) of everybody, observers too."""

    user_id: str | None
    code: CloseCode


class NotUnderstood(Exception):
    """An event of a type, or with a value, that only a newer version knows."""


class Counts(NamedTuple):
    """How many people are in a room, and how many of them are online."""

    people: int
    online: int


class Roster:
    """Who is in the room now, by user id in order of joining, as snapshots show them.

    Attributes:
        erasures: how many times somebody had been erased from the room when it was read.
    """

    __slots__ = ("erasures", "online", "participants", "room")

    def __init__(
        self,
        room: dict[str, Any],
        participants: Mapping[str, dict[str, Any]] | None = None,
        *,
        erasures: int = 0,
    ) -> None:
        self.room = room
        self.erasures = erasures
        self.participants = Seats(participants)
        self.online = sum(map(_is_online, self.participants.values()))

    def apply(self, event: Event) -> Departure | None:
        """Takes the next event in; whose connections it ends.

        Raises:
            NotUnderstood: the roster may be wrong from now on; it is to be read anew.
        """
        try:
            return self._apply(event.type, event.data)
        except (KeyError, TypeError, AttributeError) as error:
            raise NotUnderstood(f"{event.type} {event.seq}") from error

    def _apply(self, kind: str, data: Mapping[str, Any]) -> Departure | None:
        match kind:
            case "participant_joined":
                self._remove(data["participant"]["userId"])
                self._add(data["participant"])
            case "participant_online" | "participant_back":
                self._connect(data["participant"]["userId"], "online")
            case "participant_away":
                self._connect(data["participant"]["userId"], "away")
            case "participant_left":
                self._remove(data["participant"]["userId"])
                return Departure(data["participant"]["userId"], _CODES[data["reason"]])
            case "room_ended":
                self.participants.clear()
                self.online = 0
                self.room = {**self.room, "status": "ended"}
                return Departure(None, CloseCode.ENDED)
            case "room_created":
                self.room = data["room"]
                self._add(data["participant"])
            case _:
                raise NotUnderstood(kind)
        return None

    def _add(self, participant: dict[str, Any]) -> None:
        self.participants[participant["userId"]] = participant
        self.online += _is_online(participant)

    def _remove(self, user_id: str) -> None:
        before = self.participants.remove(user_id)
        self.online -= before is not None and _is_online(before)

    def _connect(self, user_id: str, state: str) -> None:
        before = self.participants[user_id]
        # A new object: the old one may be shared with a cached snapshot or an event.
        self.participants[user_id] = {**before, "connection": state}
        self.online += (state == "online") - _is_online(before)

    def counts(self) -> Counts:
        """How many there are."""
        return Counts(len(self.participants), self.online)

    def admits(self, user_id: str | None) -> bool:
        """True where somebody may listen: a participant; None (who only watches) until the end."""
        if self.room["status"] == "ended":
            return False
        return user_id is None or user_id in self.participants

    def is_unconnected(self, user_id: str) -> bool:
        """True where somebody is here who has not been connected since it joined."""
        return user_id in self.participants and self.participants[user_id]["connection"] == "none"

    def snapshot(self) -> dict[str, Any]:
        """The members of a `welcome` that tell the state."""
        return {"room": self.room, "participants": list(self.participants.values())}


_CODES = {
    "left": CloseCode.LEFT,
    "disconnected": CloseCode.LEFT,
    "removed": CloseCode.REMOVED,
}
"""What closes the connections of somebody who has left, by the reason."""


def _is_online(participant: Mapping[str, Any]) -> bool:
    return bool(participant["connection"] == "online")


def replay(events: list[Event]) -> Roster:
    """The roster that a whole log gives."""
    roster = Roster(room={})
    for event in events:
        roster.apply(event)
    return roster

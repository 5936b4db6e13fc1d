"""The rules of a room: who may join, what happens when a connection comes or goes, how it ends.

Rules change the state (`room.py`) in memory. Every rule raises before it changes anything, so that
one refused caller leaves the others of its transaction untouched.
"""

from __future__ import annotations

from datetime import datetime

from coordinator.domain.errors import (
    Forbidden,
    InvalidParams,
    NotFound,
    Removed,
    RoomEnded,
    RoomFull,
    Unauthorized,
)
from coordinator.domain.events import timestamp
from coordinator.domain.identity_claim import IdentityClaim
from coordinator.domain.room import Lifespan, Participant, Policy, Room, room_view

MAX_CONNECTIONS = 5
"""Open connections of one participant in one room, those that are marked away among them; one more
closes the oldest."""

SYSTEM = "system"


def create(
    *, room_id: str, room_name: str, host_id: str, host_name: str, now: datetime, epoch: str
) -> Room:
    """A new room, its host in it, and its first event; nobody is connected yet."""
    room = Room(
        room_id=room_id, room_name=room_name, host_name=host_name, status="active", created_at=now,
        ended_at=None, last_seq=0, last_at=now, present=1, guests=0, online=0,
        host_absent_since=now, empty_since=now, now=now, epoch=epoch,
    )  # fmt: skip
    host = Participant(host_id, host_name, "host", None, joined_at=now, joined_seq=1)
    room.participants[host_id] = host
    room.touched.add(host_id)
    room.record("room_created", {"room": room_view(room), "participant": host.view()})
    return room


def join(
    room: Room, policy: Policy, *, user_id: str, user_name: str, identity: str | None,
    proven: bool = False,
) -> Participant:  # fmt: skip
    """A guest joins over REST, or returns: already in the room = nothing happens.

    `proven`: who comes under an id that is known here has shown that it is its own.

    Raises:
        RoomEnded, RoomFull, Removed
    """
    if room.is_ended:
        raise RoomEnded
    guest = room.participants.get(user_id)
    if guest is not None and guest.removed:
        raise Removed
    if guest is not None and guest.present:
        _note_proof(room, guest, proven=proven)
        return guest
    _ensure_seat(room, policy)
    if guest is None:
        guest = Participant(user_id, user_name, "guest", identity, room.now, 0, left_at=room.now)
        room.participants[user_id] = guest
    else:
        _note_proof(room, guest, proven=proven)
    guest.user_name, guest.identity = user_name, identity
    _enter(room, guest)
    if policy.unconnected is not None:
        guest.leave_at = room.now + policy.unconnected
    return guest


def connect(
    room: Room, policy: Policy, *, user_id: str, session_id: str, node_epoch: str,
    returning: bool = False,
) -> None:  # fmt: skip
    """A live connection of a participant opens; one who had gone is in again.

    `returning`: an open connection that was marked away is in use again; then somebody who has gone
    meanwhile stays gone. The same session twice is one connection.

    Raises:
        RoomEnded, RoomFull (a guest who had gone), Removed
        Forbidden: not a participant of this room.
        NotFound: `returning`, and it has gone meanwhile.
    """
    if room.is_ended:
        raise RoomEnded
    participant = room.participants.get(user_id)
    if participant is None:
        raise Forbidden
    if participant.removed:
        raise Removed
    if participant.present and session_id in participant.connections:
        if session_id in participant.marked:
            room.unmark(participant, session_id)
            _note_live(room, participant)
        return
    if not participant.present:
        if returning:
            raise NotFound
        if not participant.is_host:
            _ensure_seat(room, policy)
    _open(room, participant, session_id, node_epoch)


def _open(room: Room, participant: Participant, session_id: str, node_epoch: str) -> None:
    participant.proven = True
    room.touched.add(participant.user_id)
    room.open(participant, session_id, node_epoch)
    if len(participant.connections) > MAX_CONNECTIONS:
        oldest = participant.connections[0]
        room.close(participant, oldest)
        room.replaced.append(oldest)
    _note_live(room, participant)


def _note_live(room: Room, participant: Participant) -> None:
    """A connection of it is live now: the first one is an event."""
    if not participant.present:
        _enter(room, participant, connection="online")
    elif participant.connection != "online":
        change = "participant_back" if participant.connection == "away" else "participant_online"
        participant.connection = "online"
        participant.leave_at = None
        room.touched.add(participant.user_id)
        room.record(change, {"participant": participant.who()})
    else:
        return
    room.online += 1
    room.empty_since = None
    if participant.is_host:
        room.host_absent_since = None


def disconnect(room: Room, policy: Policy, *, user_id: str, session_id: str) -> None:
    """A connection went; the last live one makes its participant `away`.

    A connection that is not known (any more) changes nothing: a late close harms nobody.
    """
    participant = room.participants.get(user_id)
    if participant is None or session_id not in participant.connections:
        return
    was_live = session_id not in participant.marked
    room.close(participant, session_id)
    if was_live:
        _note_absence(room, policy, participant)


def mark_away(room: Room, policy: Policy, *, user_id: str, session_id: str) -> None:
    """The client of an open connection went to the background; the last live one makes its
    participant `away`. Twice is once.
    """
    participant = room.participants.get(user_id)
    if participant is None or session_id not in participant.connections:
        return
    if session_id in participant.marked:
        return
    room.mark(participant, session_id)
    _note_absence(room, policy, participant)


def _note_absence(room: Room, policy: Policy, participant: Participant) -> None:
    """A live connection of it is live no more: the last one is an event."""
    if participant.is_live or room.is_ended:
        return
    participant.connection = "away"
    participant.leave_at = room.now + policy.grace
    room.touched.add(participant.user_id)
    room.online -= 1
    if participant.is_host:
        room.host_absent_since = room.now
    _note_emptiness(room)
    room.record(
        "participant_away",
        {"participant": participant.who(), "leaveAt": timestamp(participant.leave_at)},
    )


def expire(room: Room, *, user_id: str) -> bool:
    """Carries out a deadline that has passed: away becomes left. False where there is none."""
    participant = room.participants.get(user_id)
    if participant is None or not participant.present or participant.leave_at is None:
        return False
    if participant.leave_at > room.now or participant.is_live:
        return False
    _depart(room, participant, "disconnected")
    return True


def leave(room: Room, *, user_id: str) -> None:
    """A participant leaves by its own will; gone already changes nothing."""
    participant = room.participants.get(user_id)
    if participant is not None and participant.present and not room.is_ended:
        _depart(room, participant, "left")


def leave_by_id(room: Room, *, user_id: str, claim: IdentityClaim) -> None:
    """guest/leave: public ids suffice until the guest has proven itself once.

    Raises:
        NotFound: no guest of this room.
        Unauthorized: a token is due, and none was presented.
        CoordinatorError: the fault of the token that was presented.
    """
    guest = room.participants.get(user_id)
    if guest is None or guest.is_host:
        raise NotFound
    if room.is_ended or not guest.present:
        return
    _accept(room, guest, claim)
    _depart(room, guest, "left")


def admit_token_request(room: Room, *, user_id: str, claim: IdentityClaim) -> None:
    """zego/generate-token: somebody in the room, by id until it has proven itself once.

    Raises:
        RoomEnded
        Forbidden: not in the room now.
        Unauthorized: a token is due, and none was presented.
        CoordinatorError: the fault of the token that was presented.
    """
    if room.is_ended:
        raise RoomEnded
    participant = room.participants.get(user_id)
    if participant is None or not participant.present:
        raise Forbidden("用户不在房间内")
    _accept(room, participant, claim)


def remove(room: Room, *, user_id: str) -> None:
    """Puts a guest out for good; one who had gone is barred all the same.

    Raises:
        RoomEnded
        NotFound: never was a participant.
        InvalidParams: the host.
    """
    if room.is_ended:
        raise RoomEnded
    guest = room.participants.get(user_id)
    if guest is None:
        raise NotFound
    if guest.is_host:
        raise InvalidParams("不能移出主持人")
    if guest.present:
        _depart(room, guest, "removed")
    guest.removed = True
    room.touched.add(user_id)


def remove_unconnected(room: Room, *, user_id: str) -> bool:
    """Puts out a guest who has not connected since it joined; it may come back.

    False where there is no such guest (any more).

    Raises:
        RoomEnded
    """
    if room.is_ended:
        raise RoomEnded
    guest = room.participants.get(user_id)
    if guest is None or guest.is_host or not guest.present or guest.connection != "none":
        return False
    _depart(room, guest, "removed")
    return True


def end(room: Room, *, by: str, reason: str) -> datetime:
    """Ends the room; again = the first `ended_at`."""
    if room.ended_at is not None:
        return room.ended_at
    room.status = "ended"
    room.ended_at = room.now
    room.present = room.guests = room.online = 0
    room.host_absent_since = room.empty_since = None
    for participant in room.participants.values():
        if participant.present:
            _put_out(room, participant)
    room.record("room_ended", {"endedAt": timestamp(room.now), "by": by, "reason": reason})
    return room.ended_at


def end_if_overdue(room: Room, lifespan: Lifespan) -> bool:
    """Ends a room whose time has passed; False where it has not."""
    since = {
        "host_absent": (room.host_absent_since, lifespan.host_absent),
        "empty": (room.empty_since, lifespan.empty),
        "expired": (room.created_at, lifespan.age),
    }
    if room.is_ended:
        return False
    for reason, (start, limit) in since.items():
        if start is not None and limit is not None and start + limit <= room.now:
            end(room, by=SYSTEM, reason=reason)
            return True
    return False


def _ensure_seat(room: Room, policy: Policy) -> None:
    if room.present >= policy.capacity:
        raise RoomFull


def _accept(room: Room, participant: Participant, claim: IdentityClaim) -> None:
    """Trust on first proof: whoever has proven itself once is nobody else's to speak for."""
    if claim.fault is not None:
        raise claim.fault
    if not claim.is_presented and (claim.is_required or participant.proven):
        raise Unauthorized
    _note_proof(room, participant, proven=claim.is_presented)


def _note_proof(room: Room, participant: Participant, *, proven: bool) -> None:
    if proven and not participant.proven:
        participant.proven = True
        room.touched.add(participant.user_id)


def _enter(room: Room, participant: Participant, *, connection: str = "none") -> None:
    participant.joined_at = room.now
    participant.left_at = participant.leave_at = None
    participant.connection = connection
    room.present += 1
    if not participant.is_host:
        room.guests += 1
        room.empty_since = None
    room.touched.add(participant.user_id)
    participant.joined_seq = room.record("participant_joined", {"participant": participant.view()})


def _depart(room: Room, participant: Participant, reason: str) -> None:
    was_online = participant.connection == "online"
    _put_out(room, participant)
    room.present -= 1
    room.online -= was_online
    if participant.is_host:
        room.host_absent_since = room.host_absent_since or room.now
    else:
        room.guests -= 1
    _note_emptiness(room)
    room.record("participant_left", {"participant": participant.who(), "reason": reason})


def _put_out(room: Room, participant: Participant) -> None:
    participant.left_at = room.now
    participant.leave_at = None
    participant.connection = "none"
    for session_id in list(participant.connections):
        room.close(participant, session_id)
    room.touched.add(participant.user_id)


def _note_emptiness(room: Room) -> None:
    """Empty: no live connection, and no guest."""
    if not room.online and not room.guests:
        room.empty_since = room.empty_since or room.now

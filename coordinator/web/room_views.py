"""A room, its people and its log as they are shown, and what the documentation shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from coordinator.domain.events import timestamp
from coordinator.store.rooms import Attendance, ListedRoom, StoredRoom
from coordinator.web.views import View

ROOM_EXAMPLE = {
    "roomId": "room_1234567_abc",
    "roomName": "张经理的面试房间",
    "hostName": "张经理",
    "status": "active",
    "createdAt": "2024-01-01T10:00:00.000Z",
}
HOST_EXAMPLE = {
    "userId": "user_001",
    "userName": "张经理",
    "role": "host",
    "joinedAt": "2024-01-01T10:00:00.000Z",
    "connection": "online",
}
GUEST_EXAMPLE = {
    "userId": "guest_001",
    "userName": "李明",
    "role": "guest",
    "identity": "求职者",
    "joinedAt": "2024-01-01T10:05:00.000Z",
    "connection": "none",
}


class CreatedView(View, frozen=True, kw_only=True):
    room_id: str
    room_name: str
    host_name: str
    status: str
    created_at: str


class ParticipantView(View, frozen=True, kw_only=True):
    """`left_at` only in an ended room, `connection` only in an active one."""

    user_id: str
    user_name: str
    role: str
    identity: str | None = None
    joined_at: str
    connection: str | None = None
    left_at: str | None = None


class RoomView(View, frozen=True, kw_only=True):
    room_id: str
    room_name: str
    host_name: str
    status: str
    participants: list[ParticipantView]
    created_at: str
    ended_at: str | None = None


class EndedView(View, frozen=True, kw_only=True):
    room_id: str
    status: Annotated[str, msgspec.Meta(description="always `ended`")]
    ended_at: str


class ListedRoomView(View, frozen=True, kw_only=True):
    room_id: str
    room_name: str
    host_name: str
    status: str
    participant_count: int
    created_at: str


class RoomListView(View, frozen=True, kw_only=True):
    total: int
    page: int
    page_size: int
    list: Sequence[ListedRoomView]


class EventsView(View, frozen=True, kw_only=True):
    events: list[dict[str, Any]]
    last_seq: int
    has_more: bool


class RemovedView(View, frozen=True, kw_only=True):
    room_id: str
    user_id: str
    removed: bool


def shown_room(room: StoredRoom, people: list[Attendance]) -> RoomView:
    """A room as it is shown to everybody."""
    return RoomView(
        room_id=room.room_id,
        room_name=room.room_name,
        host_name=room.host_name,
        status=room.status,
        participants=[_shown_participant(person, room.is_ended) for person in people],
        created_at=timestamp(room.created_at),
        ended_at=timestamp(room.ended_at) if room.ended_at else None,
    )


def _shown_participant(person: Attendance, has_ended: bool) -> ParticipantView:
    return ParticipantView(
        user_id=person.user_id,
        user_name=person.user_name,
        role=person.role,
        identity=person.identity,
        joined_at=timestamp(person.joined_at),
        connection=None if has_ended else person.connection,
        left_at=timestamp(person.left_at) if has_ended and person.left_at else None,
    )


def shown_listed(room: ListedRoom) -> ListedRoomView:
    """A room as lists show it."""
    return ListedRoomView(
        room_id=room.room_id,
        room_name=room.room_name,
        host_name=room.host_name,
        status=room.status,
        participant_count=room.people,
        created_at=timestamp(room.created_at),
    )

"""A room, its people and its log as they are shown, and what the documentation shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, cast

import msgspec

from coordinator.domain.events import timestamp
from coordinator.store.room_lists import ListedRoom
from coordinator.store.room_pages import RoomPage
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
    participant_count: int
    created_at: str
    ended_at: str | None = None


class ParticipantListView(View, frozen=True, kw_only=True):
    total: int
    page: int
    page_size: int
    list: Sequence[ParticipantView]


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
    epoch: str | None = None


class RemovedUnconnectedView(View, frozen=True, kw_only=True):
    removed: Annotated[int, msgspec.Meta(ge=0, description="移出的访客人数")]


class RemovedView(View, frozen=True, kw_only=True):
    room_id: str
    user_id: str
    removed: bool


def shown_room(room: RoomPage) -> RoomView:
    """A room as it is shown to everybody."""
    return RoomView(
        room_id=room.room_id,
        room_name=room.room_name,
        host_name=room.host_name,
        status=room.status,
        participants=shown_people(room),
        participant_count=room.count,
        created_at=timestamp(room.created_at),
        ended_at=timestamp(room.ended_at) if room.ended_at else None,
    )


def shown_people(room: RoomPage) -> list[ParticipantView]:
    """The people of a page; they come out of Postgres as the JSON of these views."""
    return cast("list[ParticipantView]", msgspec.Raw(room.people.encode()))


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

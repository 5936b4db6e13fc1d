"""The people of a room over REST: listing them, and putting guests out."""

from __future__ import annotations

from typing import Any

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from coordinator.domain.errors import (
    Forbidden,
    InvalidParams,
    NotFound,
    RateLimited,
    RoomEnded,
    RoomNotFound,
    TokenExpired,
    Unauthorized,
)
from coordinator.services.rooms import RoomService
from coordinator.web import guards
from coordinator.web.openapi.operation import STAFF, Documentation, documented
from coordinator.web.pages import PAGES, page_of
from coordinator.web.room_views import (
    GUEST_EXAMPLE,
    HOST_EXAMPLE,
    ParticipantListView,
    RemovedUnconnectedView,
    RemovedView,
    shown_people,
)
from coordinator.web.views import Answer

PathText = FromPath[str]

TAGS = ["rooms"]
STAFF_ERRORS = (Unauthorized, TokenExpired)


GET_PARTICIPANTS = Documentation(
    parameters=PAGES,
    answer=ParticipantListView,
    errors=[InvalidParams, RoomNotFound, RateLimited],
    response_example={
        "total": 2,
        "page": 1,
        "pageSize": 10,
        "list": [HOST_EXAMPLE, GUEST_EXAMPLE],
    },
)


@get(
    "/api/interview/room/{room_id:str}/participants",
    guards=[guards.limited("view")],
    summary="获取房间参与者列表",
    tags=TAGS,
    operation_class=documented(GET_PARTICIPANTS),
)
async def get_participants(
    request: Request[Any, Any, Any], room_id: PathText, rooms: NamedDependency[RoomService]
) -> Answer[ParticipantListView]:
    """Public, as the room is: all of its people, in pages, in order of joining."""
    page = page_of(request.query_params)
    shown = await rooms.participants(room_id, limit=page.size, offset=page.offset)
    view = ParticipantListView(
        total=shown.count, page=page.number, page_size=page.size, list=shown_people(shown)
    )
    return Answer(data=view)


REMOVE = Documentation(
    answer=RemovedView,
    security=STAFF,
    errors=[InvalidParams, RoomEnded, *STAFF_ERRORS, Forbidden, RoomNotFound, NotFound],
    response_example={"roomId": "room_1234567_abc", "userId": "guest_001", "removed": True},
)


@post(
    "/api/interview/room/{room_id:str}/participants/{user_id:str}/remove",
    guards=[guards.room_host],
    status_code=200,
    summary="将访客移出房间",
    tags=TAGS,
    operation_class=documented(REMOVE),
)
async def remove_participant(
    room_id: PathText, user_id: PathText, rooms: NamedDependency[RoomService]
) -> Answer[RemovedView]:
    """Its host or an admin; the guest's sockets are closed and its token refused."""
    await rooms.remove(room_id, user_id)
    return Answer(data=RemovedView(room_id=room_id, user_id=user_id, removed=True))


REMOVE_UNCONNECTED = Documentation(
    answer=RemovedUnconnectedView,
    security=STAFF,
    errors=[RoomEnded, *STAFF_ERRORS, Forbidden, RoomNotFound],
    response_example={"removed": 3},
)


@post(
    "/api/interview/room/{room_id:str}/participants/remove-unconnected",
    guards=[guards.room_host],
    status_code=200,
    summary="移出从未连接的访客",
    tags=TAGS,
    operation_class=documented(REMOVE_UNCONNECTED),
)
async def remove_unconnected(
    room_id: PathText, rooms: NamedDependency[RoomService]
) -> Answer[RemovedUnconnectedView]:
    """Its host or an admin: every guest without a connection leaves, and may come back."""
    removed = await rooms.remove_unconnected(room_id)
    return Answer(data=RemovedUnconnectedView(removed=removed))


HANDLERS = [get_participants, remove_participant, remove_unconnected]
"""Everything under /api/interview/room/…/participants"""

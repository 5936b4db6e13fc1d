"""Rooms over REST: section 1 of the document, the log, and putting guests out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.params import FromPath

from coordinator.domain.errors import (
    Forbidden,
    InvalidParams,
    NotFound,
    RoomEnded,
    RoomExists,
    RoomNotFound,
    TokenExpired,
    Unauthorized,
)
from coordinator.domain.events import timestamp
from coordinator.domain.ids import is_room_id
from coordinator.services.access import Access
from coordinator.services.rooms import RoomService
from coordinator.store.rooms import Attendance, StoredRoom
from coordinator.web.bodies import Body, read, required
from coordinator.web.http_request import bearer
from coordinator.web.openapi.operation import STAFF, Documentation, Parameter, documented
from coordinator.web.pages import PAGES, number_of, page_of
from coordinator.web.views import Answer, View

PathText = FromPath[str]

_ROOM = {
    "roomId": "room_1234567_abc",
    "roomName": "张经理的面试房间",
    "hostName": "张经理",
    "status": "active",
    "createdAt": "2024-01-01T10:00:00.000Z",
}
_HOST = {
    "userId": "user_001",
    "userName": "张经理",
    "role": "host",
    "joinedAt": "2024-01-01T10:00:00.000Z",
    "connection": "online",
}
_GUEST = {
    "userId": "guest_001",
    "userName": "李明",
    "role": "guest",
    "identity": "求职者",
    "joinedAt": "2024-01-01T10:05:00.000Z",
    "connection": "none",
}
_STAFF_ERRORS = [Unauthorized, TokenExpired]


class CreateRoomBody(Body):
    room_id: str
    room_name: str
    host_name: str

    def __post_init__(self) -> None:
        self.room_id = required("roomId", self.room_id, 1000)
        if not is_room_id(self.room_id):
            raise InvalidParams.wrong("roomId", "只能是1到100个字母、数字、_和-")
        self.room_name = required("roomName", self.room_name, 200)
        self.host_name = required("hostName", self.host_name, 100)


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


def view_story(rooms: RoomService) -> Callable[[str], Awaitable[Answer[RoomView]]]:
    """How a room is shown: from its id to the answer (`web/fast_path.py`)."""

    async def view(room_id: str) -> Answer[RoomView]:
        return Answer(data=room_view(*await rooms.view(room_id)))

    return view


def routes(rooms: RoomService, access: Access) -> list[Any]:
    """The handlers of `/api/interview/room…`."""
    tell_view = view_story(rooms)

    @post(
        "/api/interview/create-room",
        status_code=200,
        summary="创建房间",
        tags=["rooms"],
        operation_class=documented(Documentation(
            body=CreateRoomBody,
            answer=CreatedView,
            security=STAFF,
            errors=[RoomExists, *_STAFF_ERRORS],
            request_example={name: _ROOM[name] for name in ("roomId", "roomName", "hostName")},
            response_example=_ROOM,
            message="创建成功",
        )),
    )
    async def create_room(request: Request[Any, Any, Any]) -> Answer[CreatedView]:
        """The caller becomes its host and first participant."""
        staff = await access.staff(bearer(request.headers.get("authorization")))
        body = read(CreateRoomBody, await request.body())
        room = await rooms.create(
            staff, room_id=body.room_id, room_name=body.room_name, host_name=body.host_name
        )
        view = CreatedView(
            room_id=room.room_id,
            room_name=room.room_name,
            host_name=room.host_name,
            status=room.status,
            created_at=timestamp(room.created_at),
        )
        return Answer(data=view, message="创建成功")

    @get(
        "/api/interview/room/{room_id:str}",
        summary="获取房间信息",
        tags=["rooms"],
        operation_class=documented(Documentation(
            answer=RoomView,
            errors=[RoomNotFound],
            response_example={**_ROOM, "participants": [_HOST, _GUEST]},
        )),
    )
    async def get_room(room_id: PathText) -> Answer[RoomView]:
        """Public. An ended room shows everybody who attended."""
        return await tell_view(room_id)

    @post(
        "/api/interview/room/{room_id:str}/end",
        status_code=200,
        summary="结束房间",
        tags=["rooms"],
        operation_class=documented(Documentation(
            answer=EndedView,
            security=STAFF,
            errors=[*_STAFF_ERRORS, Forbidden, RoomNotFound],
            response_example={
                "roomId": "room_1234567_abc",
                "status": "ended",
                "endedAt": "2024-01-01T11:00:00.000Z",
            },
            message="房间已结束",
        )),
    )
    async def end_room(request: Request[Any, Any, Any], room_id: PathText) -> Answer[EndedView]:
        """Its host or an admin; again = the first `endedAt`."""
        staff = await access.staff(bearer(request.headers.get("authorization")))
        ended_at = await rooms.end(staff, room_id)
        view = EndedView(room_id=room_id, status="ended", ended_at=timestamp(ended_at))
        return Answer(data=view, message="房间已结束")

    @get(
        "/api/interview/rooms",
        summary="获取房间列表",
        tags=["rooms"],
        operation_class=documented(Documentation(
            parameters=[
                *PAGES,
                Parameter("status", "状态筛选", {"type": "string", "enum": ["active", "ended"]}),
            ],
            answer=RoomListView,
            security=STAFF,
            errors=[InvalidParams, *_STAFF_ERRORS],
            response_example={
                "total": 50,
                "page": 1,
                "pageSize": 10,
                "list": [{**_ROOM, "participantCount": 3}],
            },
        )),
    )
    async def list_rooms(request: Request[Any, Any, Any]) -> Answer[RoomListView]:
        """Newest first: one's own, an admin everybody's. Query: `page`, `pageSize`, `status`."""
        staff = await access.staff(bearer(request.headers.get("authorization")))
        query = request.query_params
        page = page_of(query)
        status = query.get("status") or None
        if status not in (None, "active", "ended"):
            raise InvalidParams.wrong("status", "只能是active或ended")
        total, listed = await rooms.listed(
            staff, status=status, page=page.number, page_size=page.size
        )
        views = [
            ListedRoomView(
                room_id=room.room_id,
                room_name=room.room_name,
                host_name=room.host_name,
                status=room.status,
                participant_count=room.people,
                created_at=timestamp(room.created_at),
            )
            for room in listed
        ]
        return Answer(
            data=RoomListView(total=total, page=page.number, page_size=page.size, list=views)
        )

    @get(
        "/api/interview/room/{room_id:str}/events",
        summary="获取房间事件日志",
        tags=["rooms"],
        operation_class=documented(Documentation(
            parameters=[
                Parameter(
                    "after", "只返回此 seq 之后的事件，默认 0", {"type": "integer", "minimum": 0}
                ),
                Parameter(
                    "limit",
                    "最多返回多少条，1 到 500，默认 100",
                    {"type": "integer", "minimum": 1, "maximum": 500},
                ),
            ],
            answer=EventsView,
            security=STAFF,
            errors=[InvalidParams, *_STAFF_ERRORS, Forbidden, RoomNotFound],
            response_example={
                "events": [
                    {
                        "type": "participant_joined",
                        "roomId": "room_1234567_abc",
                        "seq": 2,
                        "at": "2024-01-01T10:05:00.000Z",
                        "participant": _GUEST,
                    }
                ],
                "lastSeq": 2,
                "hasMore": False,
            },
        )),
    )
    async def room_events(request: Request[Any, Any, Any], room_id: PathText) -> Answer[EventsView]:
        """Its host, an admin or a participant. Query: `after` (0), `limit` 1 to 500 (100)."""
        token = bearer(request.headers.get("authorization"))
        proof = await access.proof(token or "")
        query = request.query_params
        after = number_of(query, "after", default=0, least=0, most=2**62)
        limit = number_of(query, "limit", default=100, least=1, most=500)
        events, last_seq = await rooms.events(proof, room_id, after=after, limit=limit)
        shown = events[-1].seq if events else last_seq
        view = EventsView(
            events=[event.body() for event in events],
            last_seq=last_seq,
            has_more=shown < last_seq,
        )
        return Answer(data=view)

    @post(
        "/api/interview/room/{room_id:str}/participants/{user_id:str}/remove",
        status_code=200,
        summary="将访客移出房间",
        tags=["rooms"],
        operation_class=documented(Documentation(
            answer=RemovedView,
            security=STAFF,
            errors=[InvalidParams, RoomEnded, *_STAFF_ERRORS, Forbidden, RoomNotFound, NotFound],
            response_example={"roomId": "room_1234567_abc", "userId": "guest_001", "removed": True},
        )),
    )
    async def remove_participant(
        request: Request[Any, Any, Any], room_id: PathText, user_id: PathText
    ) -> Answer[RemovedView]:
        """Its host or an admin; the guest's sockets are closed and its token refused."""
        staff = await access.staff(bearer(request.headers.get("authorization")))
        await rooms.remove(staff, room_id, user_id)
        return Answer(data=RemovedView(room_id=room_id, user_id=user_id, removed=True))

    @get(
        "/api/interview/room/{room_id:str}/live",
        summary="房间实时事件（WebSocket）",
        tags=["rooms"],
        operation_class=documented(Documentation(errors=[InvalidParams])),
    )
    async def live_needs_websocket(room_id: PathText) -> None:
        """A websocket endpoint: reached without an upgrade, it says so."""
        raise InvalidParams("请使用WebSocket连接")

    return [
        create_room,
        get_room,
        end_room,
        list_rooms,
        room_events,
        remove_participant,
        live_needs_websocket,
    ]


def room_view(room: StoredRoom, people: list[Attendance]) -> RoomView:
    """A room as it is shown to everybody."""
    return RoomView(
        room_id=room.room_id,
        room_name=room.room_name,
        host_name=room.host_name,
        status=room.status,
        participants=[_participant_view(person, room.is_ended) for person in people],
        created_at=timestamp(room.created_at),
        ended_at=timestamp(room.ended_at) if room.ended_at else None,
    )


def _participant_view(person: Attendance, has_ended: bool) -> ParticipantView:
    return ParticipantView(
        user_id=person.user_id,
        user_name=person.user_name,
        role=person.role,
        identity=person.identity,
        joined_at=timestamp(person.joined_at),
        connection=None if has_ended else person.connection,
        left_at=timestamp(person.left_at) if has_ended and person.left_at else None,
    )

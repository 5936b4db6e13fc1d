"""Rooms over REST: section 1 of the document, and the log. Their people: `room_participants.py`."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from coordinator.domain.errors import (
    Forbidden,
    InvalidParams,
    RateLimited,
    RoomExists,
    RoomNotFound,
    TokenExpired,
    Unauthorized,
)
from coordinator.domain.events import timestamp
from coordinator.domain.ids import is_room_id
from coordinator.domain.people import Staff
from coordinator.services.access import Access
from coordinator.services.rooms import RoomService
from coordinator.web import guards
from coordinator.web.bodies import Body, body_of, read, required, shown_required
from coordinator.web.http_request import bearer_token
from coordinator.web.limits import Limits
from coordinator.web.openapi.operation import (
    STAFF,
    STAFF_OR_GUEST,
    Documentation,
    Parameter,
    documented,
)
from coordinator.web.pages import MAX_FILTER, PAGES, filter_of, number_of, page_of
from coordinator.web.room_views import (
    GUEST_EXAMPLE,
    HOST_EXAMPLE,
    ROOM_EXAMPLE,
    CreatedView,
    EndedView,
    EventsView,
    RoomListView,
    RoomView,
    shown_listed,
    shown_room,
)
from coordinator.web.views import Answer

PathText = FromPath[str]

TAGS = ["rooms"]
STAFF_ERRORS = (Unauthorized, TokenExpired)
MAX_PART = 200
"""Characters of `q`."""


class CreateRoomBody(Body):
    room_id: Annotated[str, shown_required(100, "^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]
    room_name: Annotated[str, shown_required(200)]
    host_name: Annotated[str, shown_required(100)]

    def __post_init__(self) -> None:
        self.room_id = required("roomId", self.room_id, 1000)
        if not is_room_id(self.room_id):
            raise InvalidParams.wrong("roomId", "只能是1到100个字母、数字、_和-")
        self.room_name = required("roomName", self.room_name, 200)
        self.host_name = required("hostName", self.host_name, 100)


CREATE_ROOM = Documentation(
    body=CreateRoomBody,
    answer=CreatedView,
    security=STAFF,
    errors=[RoomExists, *STAFF_ERRORS, RateLimited],
    request_example={name: ROOM_EXAMPLE[name] for name in ("roomId", "roomName", "hostName")},
    response_example=ROOM_EXAMPLE,
    message="创建成功",
)


@post(
    "/api/interview/create-room",
    guards=[guards.staff, guards.limited_by_caller("create")],
    status_code=200,
    summary="创建房间",
    tags=TAGS,
    operation_class=documented(CREATE_ROOM),
)
async def create_room(
    request: Request[Any, Any, Any],
    caller: NamedDependency[Staff],
    rooms: NamedDependency[RoomService],
) -> Answer[CreatedView]:
    """The caller becomes its host and first participant."""
    body = read(CreateRoomBody, await body_of(request))
    room = await rooms.create(
        caller, room_id=body.room_id, room_name=body.room_name, host_name=body.host_name
    )
    view = CreatedView(
        room_id=room.room_id,
        room_name=room.room_name,
        host_name=room.host_name,
        status=room.status,
        created_at=timestamp(room.created_at),
    )
    return Answer(data=view, message="创建成功")


GET_ROOM = Documentation(
    answer=RoomView,
    errors=[RoomNotFound, RateLimited],
    response_example={
        **ROOM_EXAMPLE,
        "participants": [HOST_EXAMPLE, GUEST_EXAMPLE],
        "participantCount": 2,
    },
)


@get(
    "/api/interview/room/{room_id:str}",
    summary="获取房间信息",
    tags=TAGS,
    operation_class=documented(GET_ROOM),
)
async def get_room(
    request: Request[Any, Any, Any],
    room_id: PathText,
    rooms: NamedDependency[RoomService],
    limits: NamedDependency[Limits],
) -> Answer[RoomView]:
    """Public. An ended room shows who attended; never more than the first 500 are shown."""
    return await view_room(request.scope, room_id, rooms, limits)


async def view_room(
    scope: Any, room_id: str, rooms: RoomService, limits: Limits
) -> Answer[RoomView]:
    """How a room is shown: from the ASGI scope and its id to the answer."""
    await limits.check_client("view", scope)
    return Answer(data=shown_room(await rooms.view(room_id)))


END_ROOM = Documentation(
    answer=EndedView,
    security=STAFF,
    errors=[*STAFF_ERRORS, Forbidden, RoomNotFound],
    response_example={
        "roomId": "room_1234567_abc",
        "status": "ended",
        "endedAt": "2024-01-01T11:00:00.000Z",
    },
    message="房间已结束",
)


@post(
    "/api/interview/room/{room_id:str}/end",
    guards=[guards.room_host],
    status_code=200,
    summary="结束房间",
    tags=TAGS,
    operation_class=documented(END_ROOM),
)
async def end_room(
    room_id: PathText, caller: NamedDependency[Staff], rooms: NamedDependency[RoomService]
) -> Answer[EndedView]:
    """Its host or an admin; again = the first `endedAt`."""
    ended_at = await rooms.end(caller, room_id)
    view = EndedView(room_id=room_id, status="ended", ended_at=timestamp(ended_at))
    return Answer(data=view, message="房间已结束")


LIST_ROOMS = Documentation(
    parameters=[
        *PAGES,
        Parameter("status", "状态筛选", {"type": "string", "enum": ["active", "ended"]}),
        Parameter(
            "q",
            "房间号或房间名称的一部分，不分大小写",
            {"type": "string", "maxLength": MAX_PART},
        ),
    ],
    answer=RoomListView,
    security=STAFF,
    errors=[InvalidParams, *STAFF_ERRORS],
    response_example={
        "total": 50,
        "page": 1,
        "pageSize": 10,
        "list": [{**ROOM_EXAMPLE, "participantCount": 3}],
    },
)


@get(
    "/api/interview/rooms",
    guards=[guards.staff],
    summary="获取房间列表",
    tags=TAGS,
    operation_class=documented(LIST_ROOMS),
)
async def list_rooms(
    request: Request[Any, Any, Any],
    caller: NamedDependency[Staff],
    rooms: NamedDependency[RoomService],
) -> Answer[RoomListView]:
    """Newest first: one's own, an admin everybody's. Query: `page`, `pageSize`, `status`, `q`."""
    query = request.query_params
    page = page_of(query)
    status = filter_of(query, "status")
    if status not in (None, "active", "ended"):
        raise InvalidParams.wrong("status", "只能是active或ended")
    total, listed = await rooms.listed(
        caller,
        status=status,
        part=filter_of(query, "q", limit=MAX_PART),
        page=page.number,
        page_size=page.size,
    )
    view = RoomListView(
        total=total,
        page=page.number,
        page_size=page.size,
        list=[shown_listed(room) for room in listed],
    )
    return Answer(data=view)


ROOM_EVENTS = Documentation(
    parameters=[
        Parameter(
            "after",
            "只返回此 seq 之后的事件，默认 0",
            {"type": "integer", "minimum": 0},
        ),
        Parameter(
            "limit",
            "最多返回多少条，1 到 500，默认 100",
            {"type": "integer", "minimum": 1, "maximum": 500},
        ),
        Parameter(
            "epoch",
            "after 所属的 epoch；与当前不同时从头返回，见答复中的 epoch",
            {"type": "string", "maxLength": MAX_FILTER},
        ),
    ],
    answer=EventsView,
    security=STAFF_OR_GUEST,
    errors=[InvalidParams, *STAFF_ERRORS, Forbidden, RoomNotFound, RateLimited],
    response_example={
        "events": [
            {
                "type": "participant_joined",
                "roomId": "room_1234567_abc",
                "seq": 2,
                "at": "2024-01-01T10:05:00.000Z",
                "participant": GUEST_EXAMPLE,
            }
        ],
        "lastSeq": 2,
        "hasMore": False,
        "epoch": "k3v9",
    },
)


@get(
    "/api/interview/room/{room_id:str}/events",
    guards=[guards.limited("view")],
    summary="获取房间事件日志",
    tags=TAGS,
    operation_class=documented(ROOM_EVENTS),
)
async def room_events(
    request: Request[Any, Any, Any],
    room_id: PathText,
    rooms: NamedDependency[RoomService],
    access: NamedDependency[Access],
) -> Answer[EventsView]:
    """Its host, an admin or a participant. Query: `after` (0), `limit` 1 to 500 (100).

    With `epoch`, `after` is of that epoch; of another one than today's it is no place in this log,
    which is then told from its beginning.
    """
    proof = await access.proof(bearer_token(request.scope) or "")
    query = request.query_params
    after = number_of(query, "after", default=0, least=0)
    limit = number_of(query, "limit", default=100, least=1, most=500)
    part = await rooms.events(
        proof, room_id, after=after, epoch=filter_of(query, "epoch"), limit=limit
    )
    shown = part.events[-1].seq if part.events else part.last_seq
    view = EventsView(
        events=[event.body() for event in part.events],
        last_seq=part.last_seq,
        has_more=shown < part.last_seq,
        epoch=part.epoch or None,
    )
    return Answer(data=view)


@get(
    "/api/interview/room/{room_id:str}/live",
    summary="房间实时事件（WebSocket）",
    tags=TAGS,
    operation_class=documented(Documentation(errors=[InvalidParams])),
)
async def live_needs_websocket(room_id: PathText) -> None:
    """A websocket endpoint: reached without an upgrade, it says so."""
    raise InvalidParams("请使用WebSocket连接")


HANDLERS = [
    create_room,
    get_room,
    end_room,
    list_rooms,
    room_events,
    live_needs_websocket,
]
"""Everything under /api/interview/room… but the people of rooms."""

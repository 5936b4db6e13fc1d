"""ZEGO tokens for those who are in a room."""

from __future__ import annotations

import time
from typing import Annotated, Any

from litestar import Request, post
from litestar.di import NamedDependency
from msgspec import Meta

from coordinator.domain.errors import (
    Forbidden,
    InvalidParams,
    RateLimited,
    RoomEnded,
    RoomNotFound,
    TokenExpired,
    Unauthorized,
    Unavailable,
)
from coordinator.platforms.zego import Zego
from coordinator.services.rooms import RoomService
from coordinator.web import guards
from coordinator.web.bodies import (
    MAX_BODY_BYTES,
    Body,
    body_of,
    optional,
    read,
    required,
    shown_optional,
    shown_required,
)
from coordinator.web.http_request import bearer_token
from coordinator.web.openapi.operation import Documentation, documented
from coordinator.web.views import Answer, View

DEFAULT_LIFETIME = 7200
LEAST_LIFETIME, MOST_LIFETIME = 60, 86400
"""Seconds. Less is refused; of more, the most is granted."""

_EXAMPLE = {"userId": "user_001", "roomId": "room_1234567_abc", "expireTime": DEFAULT_LIFETIME}


class TokenBody(Body):
    user_id: Annotated[str, shown_required(None)]
    user_name: Annotated[str, shown_required(100)]
    room_id: Annotated[str, shown_required(None)]
    expire_time: Annotated[int, Meta(extra_json_schema={"minimum": LEAST_LIFETIME})] = (
        DEFAULT_LIFETIME
    )
    guest_token: Annotated[str, shown_optional(None)] = ""

    def __post_init__(self) -> None:
        # Ids of a strange form are unknown ids: what they are is for the room to say.
        self.user_id = required("userId", self.user_id, MAX_BODY_BYTES)
        self.user_name = required("userName", self.user_name, 100)
        self.room_id = required("roomId", self.room_id, MAX_BODY_BYTES)
        self.guest_token = optional("guestToken", self.guest_token, MAX_BODY_BYTES)
        if self.expire_time < LEAST_LIFETIME:
            raise InvalidParams.wrong("expireTime", f"不能小于{LEAST_LIFETIME}秒")


class TokenView(View, frozen=True):
    """`expire_time` is the lifetime that was granted, in seconds."""

    token: str
    app_id: int
    user_id: str
    room_id: str
    expire_time: int


GENERATE_TOKEN = Documentation(
    body=TokenBody,
    answer=TokenView,
    errors=[RoomEnded, Unauthorized, TokenExpired, Forbidden, RoomNotFound, RateLimited],
    request_example=_EXAMPLE | {"userName": "张经理"},
    response_example=_EXAMPLE | {"token": "04AAAAAGXXX...", "appId": 123456789},
)


@post(
    "/api/zego/generate-token",
    guards=[guards.limited("zego")],
    status_code=200,
    summary="生成ZEGO Token",
    tags=["zego"],
    operation_class=documented(GENERATE_TOKEN),
)
async def generate_token(
    request: Request[Any, Any, Any],
    rooms: NamedDependency[RoomService],
    zego: NamedDependency[Zego | None],
) -> Answer[TokenView]:
    """Public, for somebody who is in the room; 503 where ZEGO is not set up."""
    body = read(TokenBody, await body_of(request))
    if zego is None:
        raise Unavailable("ZEGO未配置")
    token = body.guest_token or bearer_token(request.scope)
    await rooms.admit_token_request(room_id=body.room_id, user_id=body.user_id, token=token)
    lifetime = min(body.expire_time, MOST_LIFETIME)
    view = TokenView(
        token=zego.room_token(body.user_id, body.room_id, now=int(time.time()), lifetime=lifetime),
        app_id=zego.app_id,
        user_id=body.user_id,
        room_id=body.room_id,
        expire_time=lifetime,
    )
    return Answer(data=view)


HANDLERS = [generate_token]

"""Guests over REST: section 5 of the document."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Annotated, Any

from litestar import Request, post
from litestar.di import NamedDependency

from coordinator.domain.errors import (
    Forbidden,
    InvalidParams,
    NotFound,
    RateLimited,
    Removed,
    RoomEnded,
    RoomFull,
    RoomNotFound,
    Unauthorized,
)
from coordinator.domain.events import timestamp
from coordinator.services.access import Access
from coordinator.services.rooms import RoomService
from coordinator.store.room_writer.commands import Joined
from coordinator.web import guards
from coordinator.web.addresses import counted_as
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
from coordinator.web.limits import Limits
from coordinator.web.openapi.operation import Documentation, documented
from coordinator.web.prompt import Begun
from coordinator.web.views import Answer, View

_JOIN_KEY = re.compile(r"[A-Za-z0-9_-]{16,64}")
TAGS = ["guests"]
JOIN_PATH = "/api/interview/guest/join"


class JoinBody(Body):
    room_id: Annotated[str, shown_required(None)]
    user_name: Annotated[str, shown_required(100)]
    identity: Annotated[str, shown_optional(50)] = ""
    guest_token: Annotated[str, shown_optional(None)] = ""
    join_key: Annotated[str, shown_optional(64, "^([A-Za-z0-9_-]{16,64})?$")] = ""

    def __post_init__(self) -> None:
        # An id of a strange form is an unknown one, such a token a broken one.
        self.room_id = required("roomId", self.room_id, MAX_BODY_BYTES)
        self.user_name = required("userName", self.user_name, 100)
        self.identity = optional("identity", self.identity, 50)
        self.guest_token = optional("guestToken", self.guest_token, MAX_BODY_BYTES)
        self.join_key = self.join_key.strip()
        if self.join_key and not _JOIN_KEY.fullmatch(self.join_key):
            raise InvalidParams.wrong("joinKey", "应为16到64个字母、数字、_或-")


class JoinedView(View, frozen=True, kw_only=True):
    guest_id: str
    room_id: str
    user_name: str
    identity: str | None = None
    joined_at: str
    guest_token: str
    seq: int
    epoch: str | None = None


class LeaveBody(Body):
    room_id: Annotated[str, shown_required(None)]
    guest_id: Annotated[str, shown_required(None)]
    guest_token: Annotated[str, shown_optional(None)] = ""

    def __post_init__(self) -> None:
        self.room_id = required("roomId", self.room_id, MAX_BODY_BYTES)
        self.guest_id = required("guestId", self.guest_id, MAX_BODY_BYTES)
        self.guest_token = optional("guestToken", self.guest_token, MAX_BODY_BYTES)


async def join_room(
    scope: Any, raw: bytes, rooms: RoomService, access: Access, limits: Limits
) -> Answer[JoinedView]:
    """How a guest joins: from the ASGI scope and the body to the answer."""
    await limits.check_client("join", scope)
    body = read(JoinBody, raw)
    return _joined(body, access, await _join(scope, body, rooms, limits))


def begin_join(
    scope: Any, raw: bytes, rooms: RoomService, access: Access, limits: Limits
) -> Begun:
    """The same as far as nothing is waited for; a task only where Redis is to be asked first."""
    if not limits.admits_client("join", scope):
        asking = asyncio.create_task(join_room(scope, raw, rooms, access, limits))
        return asking, _as_it_is
    body = read(JoinBody, raw)
    return _join(scope, body, rooms, limits), partial(_joined, body, access)


def _as_it_is(answer: Answer[JoinedView]) -> Answer[JoinedView]:
    return answer


def _join(
    scope: Any, body: JoinBody, rooms: RoomService, limits: Limits
) -> asyncio.Future[Joined]:
    presented = (body.guest_token, bearer_token(scope))
    return rooms.join(
        room_id=body.room_id,
        user_name=body.user_name,
        identity=body.identity or None,
        tokens=[token for token in presented if token],
        join_key=body.join_key or None,
        address=lambda: counted_as(limits.address(scope)),
    )


def _joined(body: JoinBody, access: Access, joined: Joined) -> Answer[JoinedView]:
    view = JoinedView(
        guest_id=joined.user_id,
        room_id=body.room_id,
        user_name=joined.user_name,
        identity=joined.identity,
        joined_at=timestamp(joined.joined_at),
        guest_token=access.issue_guest(body.room_id, joined.user_id),
        seq=joined.seq,
        epoch=joined.epoch or None,
    )
    return Answer(data=view)


JOIN = Documentation(
    body=JoinBody,
    answer=JoinedView,
    errors=[RoomEnded, RoomFull, Removed, RoomNotFound, RateLimited],
    request_example={"roomId": "room_1234567_abc", "userName": "李明", "identity": "求职者"},
    response_example={
        "guestId": "guest_001",
        "roomId": "room_1234567_abc",
        "userName": "李明",
        "identity": "求职者",
        "joinedAt": "2024-01-01T10:05:00.000Z",
        "guestToken": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9...",
        "seq": 2,
        "epoch": "k3v9",
    },
)


@post(
    JOIN_PATH,
    status_code=200,
    summary="访客加入房间",
    tags=TAGS,
    operation_class=documented(JOIN),
)
async def join(
    request: Request[Any, Any, Any],
    rooms: NamedDependency[RoomService],
    access: NamedDependency[Access],
    limits: NamedDependency[Limits],
) -> Answer[JoinedView]:
    """Public. With a `guestToken` of this room it is a return: the same guest.

    `joinKey`, a secret that the client makes, lets it join again after a lost answer: the same key
    and room is the same guest.
    """
    return await join_room(request.scope, await body_of(request), rooms, access, limits)


LEAVE = Documentation(
    body=LeaveBody,
    errors=[Unauthorized, Forbidden, RoomNotFound, NotFound, RateLimited],
    request_example={"roomId": "room_1234567_abc", "guestId": "guest_001"},
    message="已离开房间",
)


@post(
    "/api/interview/guest/leave",
    guards=[guards.limited("leave")],
    status_code=200,
    summary="访客离开房间",
    tags=TAGS,
    operation_class=documented(LEAVE),
)
async def leave(
    request: Request[Any, Any, Any], rooms: NamedDependency[RoomService]
) -> Answer[None]:
    """Public by ids, until the guest has proven itself once; then its token is needed."""
    body = read(LeaveBody, await body_of(request))
    token = body.guest_token or bearer_token(request.scope)
    await rooms.leave(room_id=body.room_id, guest_id=body.guest_id, token=token)
    return Answer(message="已离开房间")


HANDLERS = [join, leave]
"""Everything under /api/interview/guest/…"""

"""Who may call: the access rules, as Litestar guards, and the callers that they find.

    @get("/api/interview/rooms", guards=[staff])
    async def list_rooms(caller: NamedDependency[Staff], …) -> …

    @post("/api/wechat/login", guards=[limited("login")])

A guard runs before the body is read. It raises, or leaves whom it has let in for the handler:
`caller` behind `staff`, `admin` and `room_host`, `api_key` behind `api_key` and `writing_api_key`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.handlers import BaseRouteHandler

from coordinator.domain.errors import Forbidden, Unauthorized
from coordinator.domain.people import Staff
from coordinator.services.access import Access
from coordinator.services.api_keys import ApiKeys
from coordinator.services.rooms import RoomService
from coordinator.settings import ApiKey
from coordinator.web.http_request import bearer_token, header, utf8_header
from coordinator.web.limits import Limits

log = structlog.get_logger()

Connection = ASGIConnection[Any, Any, Any, Any]
Guard = Callable[[Connection, BaseRouteHandler], Awaitable[None]]


async def staff(connection: Connection, _: BaseRouteHandler) -> None:
    """Staff: a bearer token from wechat/login.

    Raises:
        Unauthorized: no token, a broken one, a guest's, or the user is gone or disabled.
        TokenExpired
    """
    await _staff(connection)


async def admin(connection: Connection, _: BaseRouteHandler) -> None:
    """Staff of the role `admin`.

    Raises:
        Unauthorized, TokenExpired: as `staff`.
        Forbidden: somebody else of the staff.
    """
    if not (await _staff(connection)).is_admin:
        raise Forbidden


async def room_host(connection: Connection, _: BaseRouteHandler) -> None:
    """The host of the room in the path, and admins.

    Raises:
        Unauthorized, TokenExpired: as `staff`.
        RoomNotFound
        Forbidden: somebody else of the staff.
    """
    caller = await _staff(connection)
    room_id = connection.path_params["room_id"]
    rooms: RoomService = connection.app.state["rooms"]
    await rooms.require_host(room_id, caller)


async def api_key(connection: Connection, _: BaseRouteHandler) -> None:
    """Whoever holds a key of the open API, within the key's rate.

    Raises:
        Unauthorized, RateLimited
        Unavailable: the open API is not set up.
    """
    await _api_key(connection)


async def api_key_or_admin(connection: Connection, handler: BaseRouteHandler) -> None:
    """Whoever holds a key of the open API, or an admin, who reads what all tenants have.

    Raises:
        Unauthorized, RateLimited, Unavailable: as `api_key`.
        TokenExpired
        Forbidden: the token is not an admin's.
    """
    scope = connection.scope
    if header(scope, b"x-api-key") or header(scope, b"authorization") is None:
        await api_key(connection, handler)
        return
    caller = await _staff(connection)
    if not caller.is_admin:
        raise Forbidden
    scope["state"]["api_key"] = ApiKey(caller.user_id, key="", writes=False)


async def writing_api_key(connection: Connection, _: BaseRouteHandler) -> None:
    """Like `api_key`, but not with a key that may only read.

    Raises:
        Unauthorized, RateLimited, Unavailable: as `api_key`.
        Forbidden: the key may only read.
    """
    if not (await _api_key(connection)).writes:
        raise Forbidden("该 API Key 只读")


def limited(name: str) -> Guard:
    """A guard that counts the call against the caller's address (`web/limits.py`).

    Raises:
        RateLimited
    """

    async def by_address(connection: Connection, _: BaseRouteHandler) -> None:
        limits: Limits = connection.app.state["limits"]
        await limits.check_client(name, connection.scope)

    return by_address


def limited_by_caller(name: str, what: str = "") -> Guard:
    """A guard behind `staff` that counts the call against its user.

    Args:
        name: of the rate.
        what: set apart, so that two kinds of calls of one rate are counted each by itself.

    Raises:
        RateLimited
    """

    async def by_caller(connection: Connection, _: BaseRouteHandler) -> None:
        limits: Limits = connection.app.state["limits"]
        await limits.check(name, f"{what}{_let_in(connection).user_id}")

    return by_caller


async def _staff(connection: Connection) -> Staff:
    access: Access = connection.app.state["access"]
    caller = await access.staff(bearer_token(connection.scope))
    connection.scope["state"]["caller"] = caller
    return caller


async def _api_key(connection: Connection) -> ApiKey:
    api_keys: ApiKeys = connection.app.state["api_keys"]
    limits: Limits = connection.app.state["limits"]
    try:
        key = api_keys.verify(utf8_header(header(connection.scope, b"x-api-key")))
    except Unauthorized:
        await limits.check_client("key", connection.scope)
        log.warning("api_key_refused", address=limits.address(connection.scope))
        raise
    await limits.check("open", key.name)
    log.info(
        "open_api_call",
        caller=key.name,
        method=connection.scope.get("method"),
        path=connection.scope["path"],
    )
    connection.scope["state"]["api_key"] = key
    return key


def _let_in(connection: Connection) -> Staff:
    caller: Staff = connection.scope["state"]["caller"]
    return caller


def _caller(request: Request[Any, Any, Any]) -> Staff:
    return _let_in(request)


def _caller_key(request: Request[Any, Any, Any]) -> ApiKey:
    key: ApiKey = request.scope["state"]["api_key"]
    return key


GUARDED = {
    "caller": Provide(_caller, sync_to_thread=False),
    "api_key": Provide(_caller_key, sync_to_thread=False),
}
"""What guards leave for the handlers behind them."""

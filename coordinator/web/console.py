"""Signing in at the console and out again: `/api/console/…`."""

from __future__ import annotations

import base64
import re
from typing import Annotated, Any, Literal

from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import UNSET, UnsetType

from coordinator.domain.errors import (
    InvalidParams,
    LoginFailed,
    NotFound,
    RateLimited,
    TokenExpired,
    Unauthorized,
)
from coordinator.domain.people import Staff
from coordinator.platforms.wechat_exchange import image_type
from coordinator.services.console import TICKET_LIFETIME, ConsoleSignIn
from coordinator.web import guards
from coordinator.web.bodies import Body, body_of, read, required, shown_required
from coordinator.web.http_request import bearer_token
from coordinator.web.limits import Limits
from coordinator.web.openapi.operation import STAFF, Documentation, documented
from coordinator.web.views import Answer, View
from coordinator.web.wechat import UserInfo, user_info

_TOKEN = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9..."
_USER = {"id": "user_001", "name": "张经理", "openid": "oXXXX", "role": "hr"}
_NO_STORE = {"Cache-Control": "no-store"}
TAGS = ["console"]


class SignInBody(Body):
    code: Annotated[str, shown_required(512)]

    def __post_init__(self) -> None:
        self.code = required("code", self.code, 512)


class MatchBody(Body):
    match: Annotated[str, shown_required(10)]

    def __post_init__(self) -> None:
        self.match = required("match", self.match, 10)


class SessionView(View, frozen=True):
    token: str
    user_info: UserInfo


class OpenedTicketView(View, frozen=True):
    """`qrcode` is a data URL; the picture holds the scan ticket, which is not told here."""

    ticket: str
    match: str
    qrcode: str
    expires_in: int


class TicketView(View, frozen=True):
    status: Literal["pending", "confirmed"]
    token: str | UnsetType = UNSET
    user_info: UserInfo | UnsetType = UNSET


class ScanView(View, frozen=True):
    browser: str
    address: str
    expires_in: int


class ConfirmedView(View, frozen=True):
    status: str


OPEN_SESSION = Documentation(
    body=SignInBody,
    answer=SessionView,
    errors=[LoginFailed, RateLimited],
    request_example={"code": "coordinator console 打印的链接中的 code"},
    response_example={"token": _TOKEN, "userInfo": _USER},
)


@post(
    "/api/console/session",
    status_code=200,
    response_headers=_NO_STORE,
    summary="控制台登录",
    description="用登录链接中的 code 换取 12 小时的会话。",
    tags=TAGS,
    operation_class=documented(OPEN_SESSION),
)
async def open_session(
    request: Request[Any, Any, Any],
    console_sign_in: NamedDependency[ConsoleSignIn],
    limits: NamedDependency[Limits],
) -> Answer[SessionView]:
    body = read(SignInBody, await body_of(request))
    try:
        token, staff = await console_sign_in.sign_in(body.code)
    except LoginFailed:
        await limits.check_client("login", request.scope)  # only who guesses is counted
        raise
    return Answer(data=SessionView(token=token, user_info=user_info(staff)))


END_SESSION = Documentation(
    security=STAFF,
    errors=[InvalidParams, Unauthorized, TokenExpired],
    message="已退出登录",
)


@delete(
    "/api/console/session",
    status_code=200,
    summary="退出控制台",
    description="此会话的凭证从此被拒绝，它的实时连接在 5 秒内关闭。",
    tags=TAGS,
    operation_class=documented(END_SESSION),
)
async def end_session(
    request: Request[Any, Any, Any], console_sign_in: NamedDependency[ConsoleSignIn]
) -> Answer[None]:
    await console_sign_in.sign_out(bearer_token(request.scope))
    return Answer(message="已退出登录")


OPEN_TICKET = Documentation(
    answer=OpenedTicketView,
    errors=[RateLimited],
    response_example={
        "ticket": "页面保存的凭证",
        "match": "07",
        "qrcode": "data:image/png;base64,…",
        "expiresIn": 120,
    },
)


@post(
    "/api/console/tickets",
    status_code=200,
    response_headers=_NO_STORE,
    summary="请求微信扫码登录",
    description="公开。返回要扫描的图片，以及扫码人需从页面上读出的两位数字。",
    tags=TAGS,
    operation_class=documented(OPEN_TICKET),
)
async def open_ticket(
    request: Request[Any, Any, Any],
    console_sign_in: NamedDependency[ConsoleSignIn],
    limits: NamedDependency[Limits],
) -> Answer[OpenedTicketView]:
    await limits.check_client("ticket", request.scope)
    opened = await console_sign_in.open_ticket(
        browser=browser_name(request.headers.get("user-agent", "")),
        address=limits.address(request.scope),
    )
    kind = "jpeg" if image_type(opened.picture) == "jpg" else "png"
    picture = f"data:image/{kind};base64,{base64.b64encode(opened.picture).decode()}"
    view = OpenedTicketView(
        ticket=opened.ticket,
        match=opened.match,
        qrcode=picture,
        expires_in=int(TICKET_LIFETIME.total_seconds()),
    )
    return Answer(data=view)


TICKET_STATE = Documentation(
    answer=TicketView,
    errors=[NotFound, RateLimited],
    response_example={"status": "confirmed", "token": _TOKEN, "userInfo": _USER},
)


@get(
    "/api/console/tickets/{ticket:str}",
    response_headers=_NO_STORE,
    summary="查询扫码登录状态",
    description="pending，确认后返回一次 confirmed 与会话；2 分钟后 404。",
    tags=TAGS,
    operation_class=documented(TICKET_STATE),
)
async def ticket_state(
    request: Request[Any, Any, Any],
    ticket: FromPath[str],
    console_sign_in: NamedDependency[ConsoleSignIn],
    limits: NamedDependency[Limits],
) -> Answer[TicketView]:
    await limits.check_client("view", request.scope)
    taken = await console_sign_in.take(ticket)
    if taken is None:
        return Answer(data=TicketView(status="pending"))
    token, staff = taken
    return Answer(data=TicketView(status="confirmed", token=token, user_info=user_info(staff)))


SCAN = Documentation(
    answer=ScanView,
    security=STAFF,
    errors=[Unauthorized, TokenExpired, NotFound],
    response_example={"browser": "Chrome 150 (Windows)", "address": "203.0.113.1", "expiresIn": 97},
)


@get(
    "/api/console/scans/{scan_ticket:str}",
    guards=[guards.staff],
    response_headers=_NO_STORE,
    summary="查看扫码登录请求",
    description="哪个浏览器、从哪个地址请求登录。",
    tags=TAGS,
    operation_class=documented(SCAN),
)
async def scan(
    scan_ticket: FromPath[str], console_sign_in: NamedDependency[ConsoleSignIn]
) -> Answer[ScanView]:
    found = await console_sign_in.scan(scan_ticket)
    view = ScanView(browser=found.browser, address=found.address, expires_in=found.seconds_left)
    return Answer(data=view)


CONFIRM = Documentation(
    body=MatchBody,
    answer=ConfirmedView,
    security=STAFF,
    errors=[InvalidParams, Unauthorized, TokenExpired, NotFound],
    request_example={"match": "07"},
    response_example={"status": "confirmed"},
    message="已确认登录",
)


@post(
    "/api/console/scans/{scan_ticket:str}/confirm",
    guards=[guards.staff],
    status_code=200,
    summary="确认扫码登录",
    description="match 由扫码人从请求登录的页面上读出；填错则此次登录作废。",
    tags=TAGS,
    operation_class=documented(CONFIRM),
)
async def confirm(
    request: Request[Any, Any, Any],
    scan_ticket: FromPath[str],
    caller: NamedDependency[Staff],
    console_sign_in: NamedDependency[ConsoleSignIn],
) -> Answer[ConfirmedView]:
    body = read(MatchBody, await body_of(request))
    await console_sign_in.confirm(caller, scan_ticket, body.match)
    return Answer(data=ConfirmedView(status="confirmed"), message="已确认登录")


HANDLERS = (open_session, end_session, open_ticket, ticket_state, scan, confirm)


_BROWSERS = (
    ("Edge", r"Edg(?:A|iOS)?/(\d+)"),
    ("Opera", r"OPR/(\d+)"),
    ("WeChat", r"MicroMessenger/(\d+)"),
    ("Firefox", r"(?:Firefox|FxiOS)/(\d+)"),
    ("Chrome", r"(?:Chrome|CriOS)/(\d+)"),
    ("Safari", r"Version/(\d+)[.\d]* (?:Mobile/\S+ )?Safari/"),
)
_SYSTEMS = (
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("macOS", "Macintosh"),
    ("Linux", "Linux"),
)


def browser_name(user_agent: str) -> str:
    """`Chrome 150 (Windows)` for the header of a browser that is known, else the header itself."""
    system = next((name for name, mark in _SYSTEMS if mark in user_agent), None)
    for name, pattern in _BROWSERS:
        if system and (match := re.search(pattern, user_agent)):
            return f"{name} {match[1]} ({system})"
    return user_agent or "?"

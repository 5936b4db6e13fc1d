"""What the mini-program asks of WeChat through us: login, phone number, codes; and the profile."""

from __future__ import annotations

import base64
import re
from typing import Annotated, Any

from litestar import HttpMethod, Request, Response, post, route
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath
from msgspec import UNSET, Meta, UnsetType

from coordinator.domain.errors import (
    Forbidden,
    InvalidParams,
    LoginFailed,
    RateLimited,
    RoomNotFound,
    TokenExpired,
    Unauthorized,
)
from coordinator.domain.people import Staff
from coordinator.platforms.wechat import CodeOrder
from coordinator.platforms.wechat_exchange import image_type
from coordinator.services.qr_codes import Codes
from coordinator.services.sign_in import SignIn
from coordinator.web import guards
from coordinator.web.bodies import (
    Body,
    body_of,
    optional,
    read,
    required,
    shown_optional,
    shown_required,
)
from coordinator.web.openapi.operation import STAFF, Documentation, documented
from coordinator.web.views import Answer, View

DEFAULT_PAGE = "pages/interview/guest/guest"
DEFAULT_WIDTH = 430
TAGS = ["wechat"]

_SCENE = re.compile(r"[0-9A-Za-z!#$&'()*+,/:;=?@\-._~]{1,32}")
_MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg"}

_MANAGER = {
    "id": "user_001",
    "name": "张经理",
    "avatar": "https://xxx.com/avatar.png",
    "phone": "138****8888",
    "openid": "oXXXX",
    "role": "hr",
}

IMAGE_HEADERS = {
    # A name is given once and its picture never changes.
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
}


class LoginBody(Body):
    code: str = ""

    def __post_init__(self) -> None:
        self.code = optional("code", self.code, 512)
        if not self.code:
            raise InvalidParams("缺少code参数")


class PhoneBody(Body):
    code: Annotated[str, shown_required(512)]

    def __post_init__(self) -> None:
        self.code = required("code", self.code, 512)


class ProfileBody(Body):
    name: Annotated[str, shown_optional(100)] = ""
    avatar: Annotated[str, shown_optional(500)] = ""

    def __post_init__(self) -> None:
        self.name = optional("name", self.name, 100)
        self.avatar = optional("avatar", self.avatar, 500)


_VERSIONS = ("release", "trial", "develop")
_Shade = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": 255})]


class LineColour(Body):
    r: _Shade
    g: _Shade
    b: _Shade

    def __post_init__(self) -> None:
        for member in ("r", "g", "b"):
            if not 0 <= getattr(self, member) <= 255:
                raise InvalidParams.wrong(f"lineColor.{member}", "应为0到255的整数")


class CodeOrderBody(Body):
    scene: Annotated[str, shown_required(32, f"^{_SCENE.pattern}$")]
    page: Annotated[str, shown_optional(200)] = DEFAULT_PAGE
    width: Annotated[int, Meta(extra_json_schema={"minimum": 280, "maximum": 1280})] = (
        DEFAULT_WIDTH
    )
    auto_color: bool = False
    line_color: LineColour | UnsetType = UNSET
    env_version: Annotated[str, Meta(extra_json_schema={"enum": [*_VERSIONS, ""]})] = _VERSIONS[0]
    is_hyaline: bool = False

    def __post_init__(self) -> None:
        self.scene = required("scene", self.scene, 32)
        if not _SCENE.fullmatch(self.scene):
            raise InvalidParams.wrong("scene", "含有不允许的字符")
        self.page = optional("page", self.page, 200) or DEFAULT_PAGE
        if not 280 <= self.width <= 1280:
            raise InvalidParams.wrong("width", "应为280到1280的整数")
        self.env_version = optional("envVersion", self.env_version, 10) or _VERSIONS[0]
        if self.env_version not in _VERSIONS:
            raise InvalidParams.wrong("envVersion", "只能是" + "、".join(_VERSIONS))

    def order(self) -> CodeOrder:
        """What WeChat would not look at is left out: the same picture is the same order."""
        colour = None
        if not self.auto_color:
            given = self.line_color
            colour = (0, 0, 0) if given is UNSET else (given.r, given.g, given.b)
        return CodeOrder(
            self.page, self.scene, self.width, colour, self.env_version, self.is_hyaline
        )


class UserInfo(View, frozen=True):
    """A staff member as it sees itself; the phone number masked."""

    id: str
    openid: str
    role: str
    name: str | UnsetType = UNSET
    avatar: str | UnsetType = UNSET
    phone: str | UnsetType = UNSET


class LoginView(View, frozen=True):
    token: str
    user_info: UserInfo


class PhoneView(View, frozen=True):
    phone_number: str
    pure_phone_number: str
    country_code: str


class CodeView(View, frozen=True):
    qrcode_url: str
    buffer: str


class LoginDocument(Body):
    """`LoginBody` as it is documented: a missing code has a complaint of its own."""

    code: Annotated[str, shown_required(512)]


LOGIN = Documentation(
    body=LoginDocument,
    answer=LoginView,
    errors=[LoginFailed, Forbidden, RateLimited],
    request_example={"code": "081xxxxx"},
    response_example={
        "token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9...",
        "userInfo": _MANAGER,
    },
)


@post(
    "/api/wechat/login",
    guards=[guards.limited("login")],
    status_code=200,
    summary="微信登录",
    tags=TAGS,
    operation_class=documented(LOGIN),
)
async def login(
    request: Request[Any, Any, Any], sign_in: NamedDependency[SignIn]
) -> Answer[LoginView]:
    body = read(LoginBody, await body_of(request))
    token, staff = await sign_in.login(body.code)
    return Answer(data=LoginView(token=token, user_info=user_info(staff)))


GET_PHONE = Documentation(
    body=PhoneBody,
    answer=PhoneView,
    security=STAFF,
    errors=[Unauthorized, TokenExpired, RateLimited],
    request_example={"code": "xxx"},
    response_example={
        "phoneNumber": "13800138000",
        "purePhoneNumber": "13800138000",
        "countryCode": "86",
    },
)


@post(
    "/api/wechat/get-phone",
    guards=[guards.staff, guards.limited_by_caller("phone")],
    status_code=200,
    summary="获取手机号",
    tags=TAGS,
    operation_class=documented(GET_PHONE),
)
async def get_phone(
    request: Request[Any, Any, Any],
    caller: NamedDependency[Staff],
    sign_in: NamedDependency[SignIn],
) -> Answer[PhoneView]:
    body = read(PhoneBody, await body_of(request))
    phone = await sign_in.store_phone(caller, body.code)
    view = PhoneView(
        phone_number=phone.number,
        pure_phone_number=phone.pure_number,
        country_code=phone.country_code,
    )
    return Answer(data=view)


PROFILE = Documentation(
    body=ProfileBody,
    answer=UserInfo,
    security=STAFF,
    errors=[Unauthorized, TokenExpired, RateLimited],
    request_example={"name": "张经理", "avatar": "https://xxx.com/avatar.png"},
    response_example=_MANAGER,
)


@post(
    "/api/wechat/profile",
    guards=[guards.staff, guards.limited_by_caller("create", "profile")],
    status_code=200,
    summary="设置昵称和头像",
    tags=TAGS,
    operation_class=documented(PROFILE),
)
async def profile(
    request: Request[Any, Any, Any],
    caller: NamedDependency[Staff],
    sign_in: NamedDependency[SignIn],
) -> Answer[UserInfo]:
    body = read(ProfileBody, await body_of(request))
    changed = await sign_in.set_profile(caller, body.name or None, body.avatar or None)
    return Answer(data=user_info(changed))


GENERATE_QRCODE = Documentation(
    body=CodeOrderBody,
    answer=CodeView,
    security=STAFF,
    errors=[Unauthorized, TokenExpired, Forbidden, RoomNotFound, RateLimited],
    request_example={
        "page": DEFAULT_PAGE,
        "scene": "roomId=room_1234567_abc",
        "width": 280,
        "autoColor": False,
        "lineColor": {"r": 93, "g": 191, "b": 179},
    },
    response_example={
        "qrcodeUrl": "https://crm.andejiazheng.com/uploads/qrcode/xxx.png",
        "buffer": "base64编码的图片数据",
    },
)


@post(
    "/api/wechat/generate-qrcode",
    guards=[guards.staff, guards.limited_by_caller("qr")],
    status_code=200,
    summary="生成小程序码",
    tags=TAGS,
    operation_class=documented(GENERATE_QRCODE),
)
async def generate_qrcode(
    request: Request[Any, Any, Any],
    caller: NamedDependency[Staff],
    codes: NamedDependency[Codes],
    qr_pages: NamedDependency[tuple[str, ...]],
    base_url: NamedDependency[str],
) -> Answer[CodeView]:
    body = read(CodeOrderBody, await body_of(request))
    if body.page not in qr_pages:
        raise InvalidParams.wrong("page", "不在允许的页面中")
    stored = await codes.order(caller, body.order())
    view = CodeView(
        qrcode_url=f"{base_url}/uploads/qrcode/{stored.name}",
        buffer=base64.b64encode(stored.image).decode(),
    )
    return Answer(data=view)


@route(
    "/uploads/qrcode/{name:str}",
    guards=[guards.limited("view")],
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    media_type="image/png",
    summary="小程序码图片",
    responses={404: ResponseSpec(None, description="NOT_FOUND", generate_examples=False)},
    tags=TAGS,
)
async def qrcode(name: FromPath[str], codes: NamedDependency[Codes]) -> Response[bytes]:
    image = await codes.image(name)
    kind = _MEDIA_TYPES[image_type(image) or "png"]
    return Response(image, media_type=kind, headers=IMAGE_HEADERS)


HANDLERS = [login, get_phone, profile, generate_qrcode, qrcode]
"""Everything under /api/wechat/, and the pictures of codes."""


def user_info(staff: Staff) -> UserInfo:
    """What is not known is left out."""
    return UserInfo(
        id=staff.user_id,
        openid=staff.openid,
        role=staff.role,
        name=staff.name or UNSET,
        avatar=staff.avatar or UNSET,
        phone=masked(staff.phone) if staff.phone else UNSET,
    )


def masked(phone: str) -> str:
    """`13812348888` as `138****8888`; of a short number less is shown."""
    if len(phone) < 8:
        return "****" + phone[-2:]
    return f"{phone[:3]}****{phone[-4:]}"

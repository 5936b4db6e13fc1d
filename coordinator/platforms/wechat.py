"""WeChat's server: logging in, phone numbers, mini-program codes.

Every call is answered within 5 seconds, whatever the other side does, and fails as one of our own
words. What WeChat writes (its texts, its HTML, its URLs with our secret in them) goes neither into
an answer nor into the log: of a refusal the log has the number and WeChat's `rid`.

Sources: developers.weixin.qq.com, the pages code2Session, getStableAccessToken, getPhoneNumber and
getUnlimitedQRCode. JSON comes as text/plain at times, so that answers are read by their content.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import structlog

from coordinator.domain.errors import (
    CoordinatorError,
    InvalidParams,
    LoginFailed,
    RateLimited,
    Unavailable,
)
from coordinator.platforms.access_token import FETCH_SECONDS, AccessTokens
from coordinator.redis import RedisClient

log = structlog.get_logger()

CALL_SECONDS = 5.0
"""How long one call may take, with its token and its repetitions."""

BACK_OFF = ((0.2, 0.4), (0.5, 1.0))
"""Seconds (from, to) before the second and the third try."""

_RID = re.compile(r"rid: ?([\w-]{1,60})")


class Meaning(Enum):
    """What an errcode tells us to do."""

    BUSY = auto()
    """Try again shortly."""
    STALE_TOKEN = auto()
    """Get another access token, then try again once."""
    BAD_CODE = auto()
    """The user's one-time code is wrong, too old or used."""
    BLOCKED = auto()
    """The user is blocked by WeChat."""
    OTHER_APP = auto()
    """Our appid is wrong, or the code is another application's."""
    TOO_OFTEN = auto()
    """This user, this minute."""
    BAD_ARGUMENT = auto()
    """The caller's other input."""
    BROKEN = auto()
    """Settings, account or quota: no user can do anything about it, an operator must."""


ERRCODES: Mapping[int, Meaning] = {
    -1: Meaning.BUSY,
    40001: Meaning.STALE_TOKEN,  # from a call without a token: the secret is wrong
    40014: Meaning.STALE_TOKEN,
    42001: Meaning.STALE_TOKEN,
    40029: Meaning.BAD_CODE,
    40163: Meaning.BAD_CODE,  # used already
    40226: Meaning.BLOCKED,
    40013: Meaning.OTHER_APP,
    45011: Meaning.TOO_OFTEN,
    40129: Meaning.BAD_ARGUMENT,  # scene
    40169: Meaning.BAD_ARGUMENT,  # scene
    40097: Meaning.BAD_ARGUMENT,
    85096: Meaning.BAD_ARGUMENT,  # scancode_time is reserved
    41030: Meaning.BAD_ARGUMENT,  # no such page, or the application is not published
    40125: Meaning.BROKEN,  # secret wrong
    41002: Meaning.BROKEN,  # appid missing
    41004: Meaning.BROKEN,  # secret missing
    40243: Meaning.BROKEN,  # secret frozen
    40164: Meaning.BROKEN,  # our address is not on the list
    61004: Meaning.BROKEN,  # our address is not on the list
    45009: Meaning.BROKEN,  # quota
    45063: Meaning.BROKEN,  # no permission
    48001: Meaning.BROKEN,  # no permission
    48004: Meaning.BROKEN,  # banned
    50002: Meaning.BROKEN,  # limited
    41001: Meaning.BROKEN,  # the access token is missing: our bug, as are those below
    43002: Meaning.BROKEN,
    43003: Meaning.BROKEN,
    44002: Meaning.BROKEN,
    47001: Meaning.BROKEN,
}
"""Every errcode that we know; any other is `BROKEN`."""


@dataclass(frozen=True, slots=True)
class Call:
    """One of WeChat's calls.

    Attributes:
        name: for the log.
        one_time: it uses up a code. Where its answer is lost the code may be used, so that a second
            try would blame the user for our time-out.
        user_faults: which refusals are the caller's, and what makes our word for them.
    """

    name: str
    method: str
    path: str
    one_time: bool = False
    user_faults: Mapping[Meaning, Callable[[], CoordinatorError]] = field(default_factory=dict)


TOKEN = Call("stable_token", "POST", "/cgi-bin/stable_token")

LOGIN = Call(
    "jscode2session",
    "GET",
    "/sns/jscode2session",
    one_time=True,
    user_faults={Meaning.BAD_CODE: LoginFailed, Meaning.BLOCKED: LoginFailed},
)


def _bad_phone_code() -> InvalidParams:
    return InvalidParams.wrong("code", "无效或已过期")


def _bad_code_order() -> InvalidParams:
    return InvalidParams("参数错误：scene或page不被微信接受")


PHONE = Call(
    "getuserphonenumber",
    "POST",
    "/wxa/business/getuserphonenumber",
    one_time=True,
    user_faults=dict.fromkeys(
        (Meaning.BAD_CODE, Meaning.BLOCKED, Meaning.OTHER_APP), _bad_phone_code
    ),
)

CODE = Call(
    "getwxacodeunlimit",
    "POST",
    "/wxa/getwxacodeunlimit",
    user_faults={Meaning.BAD_ARGUMENT: _bad_code_order},
)


class Watermark(msgspec.Struct):
    appid: str


class PhoneInfo(msgspec.Struct, rename="camel"):
    """`countryCode` is a string in WeChat's table and a number in WeChat's example."""

    phone_number: str
    pure_phone_number: str
    country_code: str | int
    watermark: Watermark


@dataclass(frozen=True, slots=True)
class Phone:
    """A number as WeChat tells it; `number` bears the country code where it is foreign."""

    number: str
    pure_number: str
    country_code: str


@dataclass(frozen=True, slots=True)
class CodeOrder:
    """What a mini-program code shows and how; the members of getwxacodeunlimit.

    Attributes:
        width: pixels, 280 to 1280.
        line_colour: red, green, blue; None where WeChat chooses (`auto_color`).
        version: `release`, `trial` or `develop`.
    """

    page: str
    scene: str
    width: int
    line_colour: tuple[int, int, int] | None
    version: str
    is_hyaline: bool

    def body(self) -> dict[str, Any]:
        """The request. Only released pages can be checked for being there."""
        body: dict[str, Any] = {
            "page": self.page,
            "scene": self.scene,
            "width": self.width,
            "env_version": self.version,
            "check_path": self.version == "release",
            "auto_color": self.line_colour is None,
            "is_hyaline": self.is_hyaline,
        }
        if self.line_colour is not None:
            body["line_color"] = dict(zip("rgb", self.line_colour, strict=True))
        return body


class _NoAnswer(Exception):
    """Nothing, or nothing that can be understood; `lost`: the request may have been carried out."""

    def __init__(self, why: str, *, lost: bool) -> None:
        self.why = why
        self.lost = lost
        super().__init__(why)


class _Refusal(Exception):
    """An errcode."""

    def __init__(self, errcode: int) -> None:
        self.errcode = errcode
        self.meaning = ERRCODES.get(errcode, Meaning.BROKEN)
        super().__init__(str(errcode))


def wechat_http(base: str) -> httpx.AsyncClient:
    """The client that all calls of a process share; whoever made it closes it.

    On this machine no proxy of the environment is asked.
    """
    for name in ("httpx", "httpcore"):  # they log URLs, and ours have secrets in them
        logging.getLogger(name).setLevel(logging.WARNING)
    here = urlsplit(base).hostname in ("127.0.0.1", "localhost", "::1")
    return httpx.AsyncClient(base_url=base, timeout=CALL_SECONDS, trust_env=not here)


class WeChat:
    """One mini-program at WeChat. Every call raises `Unavailable` where WeChat cannot be used."""

    def __init__(
        self, appid: str, secret: str, http: httpx.AsyncClient, redis: RedisClient, prefix: str
    ) -> None:
        """Does no I/O.

        Args:
            appid, secret: the empty string where they are not set.
            http: from `wechat_http`.
            redis: an impatient one (`fail_fast_redis`).
            prefix: sets this deployment's keys on a shared Redis apart.
        """
        self.appid = appid
        self._secret = secret
        self._http = http
        self._tokens = AccessTokens(self._fetch_token, redis, f"{prefix}:wechat:{appid}")

    @property
    def source(self) -> str:
        """Which application at which server this is: what it makes belongs to nobody else."""
        return f"{self._http.base_url} {self.appid}"

    async def close(self) -> None:
        await self._tokens.close()

    def require_settings(self) -> None:
        """Raises `Unavailable` where the application is not set."""
        if not (self.appid and self._secret):
            raise Unavailable("微信未配置")

    async def openid(self, code: str) -> str:
        """Who has logged in with this code. The session key that comes with it is not kept.

        Raises:
            LoginFailed: the code is bad, used or blocked.
            RateLimited: this user has tried too often.
        """
        self.require_settings()
        query = {
            "appid": self.appid,
            "secret": self._secret,
            "js_code": code,
            "grant_type": "authorization_code",
        }
        answer = await self._in_time(self._tried(LOGIN, params=query), LOGIN, seconds=CALL_SECONDS)
        openid = _json(answer).get("openid")
        if not isinstance(openid, str) or not 0 < len(openid) <= 100:
            raise _unusable(LOGIN)
        return openid

    async def phone(self, code: str, openid: str) -> Phone:
        """The number that a user has agreed to tell; WeChat checks that code and openid match.

        Raises:
            InvalidParams: the code is bad or used, or another application's.
            RateLimited: this user has tried too often.
        """
        self.require_settings()
        body = {"code": code, "openid": openid}
        answer = await self._in_time(self._with_token(PHONE, body), PHONE, seconds=CALL_SECONDS)
        try:
            info = msgspec.convert(_json(answer).get("phone_info"), PhoneInfo)
        except msgspec.ValidationError:
            info = None
        if info is None or not 0 < len(info.phone_number) <= 20:
            raise _unusable(PHONE)
        if info.watermark.appid != self.appid:
            raise _bad_phone_code()
        return Phone(info.phone_number, info.pure_phone_number, str(info.country_code))

    async def code_image(self, order: CodeOrder) -> bytes:
        """The picture of a mini-program code, PNG or JPEG.

        Raises:
            InvalidParams: WeChat does not accept the scene or the page.
            RateLimited: too often.
        """
        self.require_settings()
        image = await self._in_time(
            self._with_token(CODE, order.body()), CODE, seconds=CALL_SECONDS
        )
        if not isinstance(image, bytes):
            raise _unusable(CODE)
        return image

    async def _fetch_token(self, force: bool) -> tuple[str, float]:
        body = {
            "grant_type": "client_credential",
            "appid": self.appid,
            "secret": self._secret,
            "force_refresh": force,
        }
        answer = _json(
            await self._in_time(self._tried(TOKEN, json=body), TOKEN, seconds=FETCH_SECONDS)
        )
        value, lifetime = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(value, str) or not value or not isinstance(lifetime, int):
            raise _unusable(TOKEN)
        return value, float(lifetime)

    async def _with_token(self, call: Call, body: dict[str, Any]) -> dict[str, Any] | bytes:
        """One call with the access token; a second one where the token is refused."""
        token = await self._tokens.current()
        try:
            return await self._tried(call, params={"access_token": token}, json=body)
        except _Refusal as refusal:
            if refusal.meaning is not Meaning.STALE_TOKEN:
                raise
        token = await self._tokens.after_refusal(token)
        return await self._tried(call, params={"access_token": token}, json=body)

    async def _tried(self, call: Call, **request: Any) -> dict[str, Any] | bytes:
        """Up to three tries, where another one cannot do harm."""
        for least, most in BACK_OFF:
            try:
                return await self._once(call, **request)
            except _Refusal as refusal:
                if refusal.meaning is not Meaning.BUSY:
                    raise
            except _NoAnswer as nothing:
                if nothing.lost and call.one_time:
                    raise
            await asyncio.sleep(random.uniform(least, most))
        return await self._once(call, **request)

    async def _once(self, call: Call, **request: Any) -> dict[str, Any] | bytes:
        """One exchange: a picture, or a JSON object without an errcode.

        Raises:
            _Refusal: an errcode.
            _NoAnswer: neither.
        """
        response, why, lost = None, "", True
        try:
            response = await self._http.request(call.method, call.path, **request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            why, lost = type(error).__name__, False  # it was never sent
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            why = type(error).__name__
        # Raised out here so that nothing is chained to it: httpx's errors hold the URL.
        if response is None:
            raise _NoAnswer(why, lost=lost)
        answer = _understood(response)
        if isinstance(answer, dict) and (errcode := _errcode(answer)) != 0:
            log.info("wechat_refused", call=call.name, errcode=errcode, rid=_rid(answer))
            raise _Refusal(errcode)
        return answer

    async def _in_time(
        self, doing: Coroutine[Any, Any, dict[str, Any] | bytes], call: Call, *, seconds: float
    ) -> dict[str, Any] | bytes:
        """What `doing` gives within the time; every way to fail in our own words."""
        failure: CoordinatorError
        try:
            async with asyncio.timeout(seconds):
                return await doing
        except TimeoutError:
            log.warning("wechat_no_answer", call=call.name, why="timeout")
            failure = Unavailable(retry_after=1)
        except _NoAnswer as nothing:
            log.warning("wechat_no_answer", call=call.name, why=nothing.why)
            failure = Unavailable(retry_after=1)
        except _Refusal as refusal:
            failure = _told(refusal, call)
        raise failure


def _told(refusal: _Refusal, call: Call) -> CoordinatorError:
    """A refusal as our caller hears it. What an operator must mend is logged as an error."""
    if (fault := call.user_faults.get(refusal.meaning)) is not None:
        return fault()
    if refusal.meaning is Meaning.TOO_OFTEN:
        return RateLimited(retry_after=60)
    if refusal.meaning is Meaning.BUSY:
        return Unavailable(retry_after=1)
    log.error("wechat_misconfigured", call=call.name, errcode=refusal.errcode)
    return Unavailable()


def _understood(response: httpx.Response) -> dict[str, Any] | bytes:
    """The picture or the JSON object that an answer is, by its bytes and not by its type.

    Raises:
        _NoAnswer: an HTTP error, a page of HTML, half an answer.
    """
    content = response.content
    if response.status_code != 200:
        raise _NoAnswer(f"HTTP {response.status_code}", lost=True)
    if image_type(content) is not None:
        return content
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    raise _NoAnswer("not understood", lost=True)


def _json(answer: dict[str, Any] | bytes) -> dict[str, Any]:
    return answer if isinstance(answer, dict) else {}


def _unusable(call: Call) -> Unavailable:
    """An answer that lacks what it should have."""
    log.warning("wechat_no_answer", call=call.name, why="incomplete")
    return Unavailable(retry_after=1)


def _errcode(answer: dict[str, Any]) -> int:
    """0 where there is none: most successes have none, some have 0."""
    errcode = answer.get("errcode", 0)
    if isinstance(errcode, int):
        return errcode
    raise _NoAnswer("errcode is no number", lost=True)


def _rid(answer: dict[str, Any]) -> str | None:
    """WeChat's id of the request, from its text; the rest of the text may be anything."""
    match = _RID.search(str(answer.get("errmsg", "")))
    return match[1] if match else None


def image_type(content: bytes) -> str | None:
    """`png` or `jpg` by the first bytes, or None."""
    if content.startswith(b"\x89PNG"):
        return "png"
    return "jpg" if content.startswith(b"\xff\xd8\xff") else None

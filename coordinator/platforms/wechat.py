"""WeChat's server for one mini-program: logging in, phone numbers, mini-program codes.

What is called and what a refusal means: `wechat_calls.py`. How a call is tried, limited in time and
understood: `wechat_exchange.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import structlog

from coordinator.domain.errors import Unavailable
from coordinator.platforms.access_token import FETCH_SECONDS, AccessTokens
from coordinator.platforms.wechat_calls import (
    CODE,
    LOGIN,
    PHONE,
    TOKEN,
    Meaning,
    WeChatCall,
    bad_phone_code,
)
from coordinator.platforms.wechat_exchange import (
    CALL_SECONDS,
    WeChatAnswer,
    WeChatExchange,
    WeChatRefusal,
    in_time,
)
from coordinator.redis import RedisClient

log = structlog.get_logger()

MOST_TOKEN = 4096
"""Characters of an access token (WeChat: be ready for 512); a longer one fits into no URL."""
MOST_LIFETIME = 86400
"""Seconds of an access token (WeChat: 7200)."""


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


class WeChat:
    """One mini-program at WeChat. Every call raises `Unavailable` where WeChat cannot be used.

    Attributes:
        source: which application at which server this is: what it makes belongs to nobody else.
    """

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
        self.source = f"{http.base_url} {appid}"
        self._exchange = WeChatExchange(http)
        self._tokens = AccessTokens(self._fetch_token, redis, f"{prefix}:wechat:{appid}")

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
        answer = await in_time(
            self._exchange.tried(LOGIN, params=query), LOGIN, seconds=CALL_SECONDS
        )
        openid = _json(answer).get("openid")
        if not isinstance(openid, str) or not _is_good(openid, 100):
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
        answer = await in_time(self._with_token(PHONE, body), PHONE, seconds=CALL_SECONDS)
        try:
            info = msgspec.convert(_json(answer).get("phone_info"), PhoneInfo)
        except msgspec.ValidationError:
            info = None
        if info is None or not _is_good(info.phone_number, 20):
            raise _unusable(PHONE)
        if info.watermark.appid != self.appid:
            raise bad_phone_code()
        return Phone(info.phone_number, info.pure_phone_number, str(info.country_code))

    async def code_image(self, order: CodeOrder) -> bytes:
        """The picture of a mini-program code, PNG or JPEG.

        Raises:
            InvalidParams: WeChat does not accept the scene or the page.
            RateLimited: too often.
        """
        self.require_settings()
        image = await in_time(self._with_token(CODE, order.body()), CODE, seconds=CALL_SECONDS)
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
            await in_time(self._exchange.tried(TOKEN, json=body), TOKEN, seconds=FETCH_SECONDS)
        )
        value, lifetime = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(value, str) or not _is_good(value, MOST_TOKEN):
            raise _unusable(TOKEN)
        if not isinstance(lifetime, int) or not 0 <= lifetime <= MOST_LIFETIME:
            raise _unusable(TOKEN)
        return value, float(lifetime)

    async def _with_token(self, call: WeChatCall, body: dict[str, Any]) -> WeChatAnswer:
        """One call with the access token; a second one where the token is refused."""
        token = await self._tokens.current()
        try:
            return await self._exchange.tried(call, params={"access_token": token}, json=body)
        except WeChatRefusal as refusal:
            if refusal.meaning is not Meaning.STALE_TOKEN:
                raise
        token = await self._tokens.after_refusal(token)
        return await self._exchange.tried(call, params={"access_token": token}, json=body)


def _is_good(text: str, most: int) -> bool:
    """True for 1 to `most` characters that a column can hold."""
    return 0 < len(text) <= most and text.isprintable()


def _json(answer: WeChatAnswer) -> dict[str, Any]:
    return answer if isinstance(answer, dict) else {}


def _unusable(call: WeChatCall) -> Unavailable:
    """An answer that lacks what it should have."""
    log.warning("wechat_no_answer", call=call.name, why="incomplete")
    return Unavailable(retry_after=1)

"""The client of WeChat's server, against the stand-in: what each misbehaviour becomes."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from coordinator.domain.errors import (
    CoordinatorError,
    InvalidParams,
    LoginFailed,
    RateLimited,
    Unavailable,
)
from coordinator.platforms import wechat as wechat_module
from coordinator.platforms import wechat_exchange
from coordinator.platforms.wechat import CodeOrder, WeChat
from coordinator.platforms.wechat_calls import ERRCODES, Meaning
from coordinator.settings import WECHAT_HOST, SettingsError
from coordinator.standins.wechat import DOCUMENTED_NUMBER, WechatStandin, number_of, openid_of
from tests.harness.ports import free_port

PAGE = "pages/interview/guest/guest"
ORDER = CodeOrder(PAGE, "roomId=room_1", 280, (93, 191, 179), "release", False)


@pytest.fixture
def standin(running_standin: WechatStandin) -> WechatStandin:
    running_standin.behave()
    running_standin.end_tokens()
    return running_standin


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wechat_exchange, "BACK_OFF", ((0.0, 0.01), (0.0, 0.01)))


async def client(base: str, redis_url: str, *, secret: str = WechatStandin.secret) -> WeChat:
    http, redis = wechat_exchange.wechat_http(base), Redis.from_url(redis_url)
    return WeChat(WechatStandin.appid, secret, http, redis, secrets.token_hex(4))


@pytest_asyncio.fixture
async def wechat(standin: WechatStandin, redis_url: str) -> AsyncIterator[WeChat]:
    made = await client(standin.url, redis_url)
    yield made
    await made.close()
    await made._exchange._http.aclose()


def code(who: str) -> str:
    """A one-time code of somebody."""
    return f"{who}.{secrets.token_hex(4)}"


async def test_a_login_code_gives_the_openid_once(wechat: WeChat) -> None:
    used = code("li")
    assert await wechat.openid(used) == openid_of("li")
    with pytest.raises(LoginFailed):
        await wechat.openid(used)


async def test_the_documents_codes_work_again_and_again(wechat: WeChat) -> None:
    for _ in range(2):
        assert await wechat.openid("081xxxxx") == "oXXXX"
        phone = await wechat.phone("xxx", "oXXXX")
        assert (phone.number, phone.country_code) == ("13800138000", "86")


@pytest.mark.parametrize("refused", ["bad-code", "risky-code"])
async def test_a_bad_or_blocked_code_is_a_failed_login(wechat: WeChat, refused: str) -> None:
    with pytest.raises(LoginFailed):
        await wechat.openid(refused)


async def test_a_phone_code_of_somebody_else_is_refused(wechat: WeChat) -> None:
    assert (await wechat.phone(code("li"), openid_of("li"))).number == number_of("li")
    with pytest.raises(InvalidParams):
        await wechat.phone(code("li"), openid_of("wang"))


async def test_a_number_with_the_watermark_of_another_application_is_refused(
    wechat: WeChat, standin: WechatStandin
) -> None:
    info = {
        "phoneNumber": "13800138000",
        "purePhoneNumber": "13800138000",
        "countryCode": "86",
        "watermark": {"appid": "wx-another", "timestamp": 1},
    }
    standin.misbehave("getuserphonenumber", answer={"errcode": 0, "phone_info": info})
    with pytest.raises(InvalidParams):
        await wechat.phone(code("li"), openid_of("li"))


LOGIN_WORDS: dict[Meaning, type[CoordinatorError]] = {
    Meaning.BAD_CODE: LoginFailed,
    Meaning.BLOCKED: LoginFailed,
    Meaning.TOO_OFTEN: RateLimited,
}
PHONE_WORDS: dict[Meaning, type[CoordinatorError]] = {
    Meaning.BAD_CODE: InvalidParams,
    Meaning.BLOCKED: InvalidParams,
    Meaning.OTHER_APP: InvalidParams,
    Meaning.TOO_OFTEN: RateLimited,
}
CODE_WORDS: dict[Meaning, type[CoordinatorError]] = {
    Meaning.BAD_ARGUMENT: InvalidParams,
    Meaning.TOO_OFTEN: RateLimited,
}


@pytest.mark.parametrize("errcode", [*ERRCODES, 99999])
async def test_every_errcode_becomes_one_of_our_words(
    wechat: WeChat, standin: WechatStandin, errcode: int
) -> None:
    meaning = ERRCODES.get(errcode, Meaning.BROKEN)
    for call, doing, words in (
        ("jscode2session", lambda: wechat.openid(code("li")), LOGIN_WORDS),
        ("getuserphonenumber", lambda: wechat.phone(code("li"), openid_of("li")), PHONE_WORDS),
        ("getwxacodeunlimit", lambda: wechat.code_image(ORDER), CODE_WORDS),
    ):
        standin.behave()
        standin.misbehave(call, errcode=errcode, times=9)
        with pytest.raises(CoordinatorError) as raised:
            await doing()
        assert type(raised.value) is words.get(meaning, Unavailable), call


async def test_too_often_says_when_to_try_again(wechat: WeChat, standin: WechatStandin) -> None:
    standin.misbehave("jscode2session", errcode=45011)
    with pytest.raises(RateLimited) as raised:
        await wechat.openid(code("li"))
    assert raised.value.retry_after == 60


async def test_a_busy_system_is_asked_up_to_three_times(
    wechat: WeChat, standin: WechatStandin
) -> None:
    standin.misbehave("jscode2session", errcode=-1, times=2)
    assert await wechat.openid(code("li")) == openid_of("li")
    assert standin.calls["jscode2session"] == 3
    standin.behave()
    standin.misbehave("getwxacodeunlimit", errcode=-1, times=9)
    with pytest.raises(Unavailable):
        await wechat.code_image(ORDER)
    assert standin.calls["getwxacodeunlimit"] == 3


@pytest.mark.parametrize("errcode", [40001, 40014, 42001])
async def test_a_refused_token_is_fetched_anew_once_and_the_call_made_again_once(
    wechat: WeChat, standin: WechatStandin, errcode: int
) -> None:
    await wechat.phone(code("li"), openid_of("li"))
    standin.behave()
    standin.end_tokens()  # so that asking in the normal way gives a new one
    standin.misbehave("getuserphonenumber", errcode=errcode)
    assert (await wechat.phone(code("li"), openid_of("li"))).number == number_of("li")
    assert standin.calls == {"getuserphonenumber": 2, "stable_token": 1}


async def test_a_token_that_ended_is_replaced_for_twenty_calls_by_one_fetch(
    wechat: WeChat, standin: WechatStandin
) -> None:
    await wechat.phone("xxx", "oXXXX")
    standin.behave()
    standin.end_tokens()
    await asyncio.gather(*(wechat.phone("xxx", "oXXXX") for _ in range(20)))
    assert standin.calls["stable_token"] == 1


async def test_the_same_bad_token_again_is_replaced_by_force(
    wechat: WeChat, standin: WechatStandin
) -> None:
    await wechat.phone("xxx", "oXXXX")
    standin.behave()
    standin.misbehave("getuserphonenumber", errcode=40001)
    await wechat.phone("xxx", "oXXXX")
    asked = [body["force_refresh"] for body in standin.bodies if "force_refresh" in body]
    assert asked[-2:] == [False, True]
    assert standin.calls == {"getuserphonenumber": 2, "stable_token": 2}


async def test_a_token_that_wechat_refused_by_mistake_is_used_again(
    wechat: WeChat, standin: WechatStandin
) -> None:
    for _ in range(3):  # it can be replaced by force but once in half a minute
        standin.misbehave("getuserphonenumber", errcode=40001)
        assert (await wechat.phone("xxx", "oXXXX")).number == DOCUMENTED_NUMBER


async def test_a_token_that_is_refused_for_ever_is_our_misconfiguration(
    wechat: WeChat, standin: WechatStandin
) -> None:
    standin.misbehave("getuserphonenumber", errcode=42001, times=9)
    with pytest.raises(Unavailable):
        await wechat.phone("xxx", "oXXXX")
    assert standin.calls["getuserphonenumber"] == 2


async def test_a_wrong_secret_is_our_misconfiguration(
    standin: WechatStandin, redis_url: str
) -> None:
    wechat = await client(standin.url, redis_url, secret="wrong")
    with pytest.raises(Unavailable):
        await wechat.openid(code("li"))
    with pytest.raises(Unavailable):
        await wechat.phone("xxx", "oXXXX")


ODD: list[dict[str, Any]] = [
    {"html": 200},
    {"html": 502},
    {"html": 503},
    {"answer": []},
    {"answer": "text"},
    {"answer": {}},
    {"answer": {"errcode": "40029"}},
    {"answer": {"errcode": None}},
    {"answer": {"openid": 5, "phone_info": {"phoneNumber": 5}}},
    {"answer": {"openid": "", "phone_info": None}},
    {"answer": {"openid": "o" * 101, "phone_info": {"phoneNumber": "1" * 50}}},
    {"answer": {"openid": "o\0", "phone_info": {"phoneNumber": "138\0", "purePhoneNumber": "1",
                "countryCode": 86, "watermark": {"appid": WechatStandin.appid}}}},
    {"jpeg": True},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=str)
async def test_what_cannot_be_understood_is_unavailable_and_the_next_call_works(
    wechat: WeChat, standin: WechatStandin, odd: dict[str, Any]
) -> None:
    standin.misbehave("jscode2session", **odd)
    standin.misbehave("getuserphonenumber", **odd)
    with pytest.raises(Unavailable):
        await wechat.openid(code("li"))
    with pytest.raises(Unavailable):
        await wechat.phone(code("li"), openid_of("li"))
    assert await wechat.openid(code("li")) == openid_of("li")
    assert (await wechat.phone(code("li"), openid_of("li"))).number == number_of("li")


ODD_TOKENS: list[dict[str, Any]] = [
    {"access_token": "t", "expires_in": 10**400},
    {"access_token": "t" * 100_000, "expires_in": 7200},
    {"access_token": "t", "expires_in": "7200"},
    {"access_token": "", "expires_in": 7200},
    {"access_token": "t\0", "expires_in": 7200},
]


@pytest.mark.parametrize("odd", ODD_TOKENS, ids=lambda odd: str(odd)[:50])
async def test_an_odd_access_token_is_unavailable_and_the_next_call_works(
    wechat: WeChat, standin: WechatStandin, odd: dict[str, Any]
) -> None:
    standin.misbehave("stable_token", answer=odd)
    with pytest.raises(Unavailable):
        await wechat.phone("xxx", "oXXXX")
    assert (await wechat.phone("xxx", "oXXXX")).number == DOCUMENTED_NUMBER


async def test_a_lost_answer_to_a_one_time_code_is_not_asked_for_again(
    wechat: WeChat, standin: WechatStandin
) -> None:
    standin.misbehave("getuserphonenumber", html=503)
    with pytest.raises(Unavailable):
        await wechat.phone("xxx", "oXXXX")
    assert standin.calls["getuserphonenumber"] == 1


async def test_a_gateway_that_fails_is_tried_again_for_a_code_picture(
    wechat: WeChat, standin: WechatStandin
) -> None:
    standin.misbehave("getwxacodeunlimit", html=503)
    assert (await wechat.code_image(ORDER)).startswith(b"\x89PNG")
    assert standin.calls["getwxacodeunlimit"] == 2


@pytest.mark.parametrize("call", ["jscode2session", "getuserphonenumber", "stable_token"])
async def test_a_hanging_wechat_is_given_up_in_time_and_the_next_call_works(
    wechat: WeChat, standin: WechatStandin, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(wechat_module, "CALL_SECONDS", 0.5)
    monkeypatch.setattr(wechat_module, "FETCH_SECONDS", 0.4)
    standin.misbehave(call, hang=30)

    async def ask() -> None:
        if call == "jscode2session":
            await wechat.openid(code("li"))
        else:
            await wechat.phone("xxx", "oXXXX")

    started = time.monotonic()
    with pytest.raises(Unavailable):
        await ask()
    assert time.monotonic() - started < 3
    monkeypatch.undo()  # half a second is little for an answer, too
    await ask()
    assert standin.calls[call] == 2


async def test_a_wechat_that_is_not_there_is_unavailable(redis_url: str) -> None:
    wechat = await client(f"http://127.0.0.1:{free_port()}", redis_url)
    with pytest.raises(Unavailable):
        await wechat.openid(code("li"))


async def test_without_settings_nothing_is_asked(standin: WechatStandin, redis_url: str) -> None:
    wechat = await client(standin.url, redis_url, secret="")
    for doing in (
        wechat.openid("081xxxxx"),
        wechat.phone("xxx", "oXXXX"),
        wechat.code_image(ORDER),
    ):
        with pytest.raises(Unavailable):
            await doing
    assert not standin.calls


async def test_a_code_order_is_sent_as_documented(wechat: WeChat, standin: WechatStandin) -> None:
    await wechat.code_image(ORDER)
    assert standin.bodies[-1] == {
        "page": "pages/interview/guest/guest",
        "scene": "roomId=room_1",
        "width": 280,
        "env_version": "release",
        "check_path": True,
        "auto_color": False,
        "line_color": {"r": 93, "g": 191, "b": 179},
        "is_hyaline": False,
    }


def test_the_call_ends_before_the_sixth_second() -> None:
    assert wechat_exchange.CALL_SECONDS <= 5.0


async def test_no_failure_is_chained_to_what_has_a_secret_in_it(
    wechat: WeChat, standin: WechatStandin
) -> None:
    """A stack trace prints what an error is chained to; httpx's errors hold the URL."""
    for how in ({"html": 503}, {"errcode": 40125}, {"hang": 30.0}):
        standin.misbehave("jscode2session", **how)
        wechat._exchange._http.timeout = 0.3
        with pytest.raises(Unavailable) as raised:
            await wechat.openid(code("li"))
        assert raised.value.__cause__ is None
        assert raised.value.__context__ is None


async def test_wechat_is_called_through_a_proxy() -> None:
    asked: list[str] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode().strip())
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    async with wechat_exchange.wechat_http(WECHAT_HOST, f"http://127.0.0.1:{port}") as http:
        with pytest.raises(httpx.ProxyError):
            await http.get("/sns/jscode2session")
    proxy.close()
    assert asked == ["CONNECT api.weixin.qq.com:443 HTTP/1.1"]


def test_certificates_that_cannot_be_read_are_told_by_their_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    with pytest.raises(SettingsError, match="SSL_CERT_FILE"):
        wechat_exchange.wechat_http(WECHAT_HOST)

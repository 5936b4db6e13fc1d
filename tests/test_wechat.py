"""Login, phone number and profile through real nodes; WeChat is played by the stand-in."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio

from coordinator.standins.wechat import (
    DOCUMENTED_OPENID,
    WechatStandin,
    number_of,
    openid_of,
)
from coordinator.store.database import Database
from coordinator.store.people import People
from tests.harness.node import CIPHER, JWT_SECRET, Deployment, NodeProcess, data
from tests.harness.patience import patient
from tests.harness.people import Api
from tests.harness.promises import seconds_answering


@pytest.fixture(scope="module")
def nodes(
    running_standin: WechatStandin, database_url: str, redis_url: str
) -> Iterator[tuple[NodeProcess, NodeProcess]]:
    with Deployment(database_url, redis_url, **running_standin.settings) as deployment:
        yield deployment.node(), deployment.node()


@pytest_asyncio.fixture
async def api(nodes: tuple[NodeProcess, NodeProcess]) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=nodes[0].url, verify=False, timeout=patient(20)) as api:
        yield api


def code(who: str) -> str:
    """A one-time code of somebody."""
    return f"{who}.{secrets.token_hex(4)}"


async def log_in(api: httpx.AsyncClient, who: str) -> dict[str, str]:
    """The headers of somebody who has logged in."""
    token = data(await api.post("/api/wechat/login", json={"code": code(who)}))["token"]
    return {"Authorization": f"Bearer {token}"}


def refused(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert set(body) == {"success", "message", "code"}
    assert body["success"] is False
    return response.status_code, body["code"]


async def test_the_documents_login_works_as_printed(
    api: httpx.AsyncClient, database: Database
) -> None:
    people = People(database, CIPHER)
    staff = await people.add(DOCUMENTED_OPENID, "张经理")
    await people.set_profile(staff.number, avatar="https://xxx.com/avatar.png")
    await people.set_phone(staff.number, "13800008888")

    response = await api.post("/api/wechat/login", json={"code": "081xxxxx"})

    assert response.json() == {
        "success": True,
        "message": "操作成功",
        "data": {
            "token": response.json()["data"]["token"],
            "userInfo": {
                "id": staff.user_id,
                "name": "张经理",
                "avatar": "https://xxx.com/avatar.png",
                "phone": "138****8888",
                "openid": "oXXXX",
                "role": "hr",
            },
        },
    }
    claims = jwt.decode(response.json()["data"]["token"], JWT_SECRET, algorithms=["HS256"])
    assert claims == {
        "id": staff.number,
        "openid": "oXXXX",
        "role": "hr",
        "iat": claims["iat"],
        "exp": claims["iat"] + 7 * 86400,
    }


async def test_the_documents_phone_call_works_as_printed(
    api: httpx.AsyncClient, database: Database
) -> None:
    who = "phone" + secrets.token_hex(4)
    headers = await log_in(api, who)
    response = await api.post("/api/wechat/get-phone", json={"code": "xxx"}, headers=headers)
    assert response.json() == {
        "success": True,
        "message": "操作成功",
        "data": {
            "phoneNumber": "13800138000",
            "purePhoneNumber": "13800138000",
            "countryCode": "86",
        },
    }
    stored = await People(database, CIPHER).by_openid(openid_of(who))
    assert stored is not None
    assert stored.phone == "13800138000"


async def test_somebody_new_has_neither_name_nor_phone(api: httpx.AsyncClient) -> None:
    who = secrets.token_hex(4)
    info = data(await api.post("/api/wechat/login", json={"code": code(who)}))["userInfo"]
    assert info == {"id": info["id"], "openid": openid_of(who), "role": "hr"}


@pytest.mark.parametrize("body", [{}, {"code": ""}, {"code": "  "}])
async def test_a_login_without_code_is_told_in_the_documents_words(
    api: httpx.AsyncClient, body: dict[str, str]
) -> None:
    response = await api.post("/api/wechat/login", json=body)
    assert response.status_code == 400
    assert response.json() == {
        "success": False,
        "message": "缺少code参数",
        "code": "INVALID_PARAMS",
    }


@pytest.mark.parametrize("bad", [5, True, None, ["x"], {}, 1.5, "x\u0000y", "x" * 600])
@pytest.mark.parametrize("path", ["login", "get-phone"])
async def test_a_code_of_the_wrong_type_is_refused(
    api: httpx.AsyncClient, path: str, bad: Any
) -> None:
    headers = await log_in(api, "types")
    response = await api.post(f"/api/wechat/{path}", json={"code": bad}, headers=headers)
    assert refused(response) == (400, "INVALID_PARAMS")
    assert "code" in response.json()["message"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe", b"[" * 20000])
@pytest.mark.parametrize("path", ["login", "get-phone", "profile"])
async def test_a_body_that_is_no_object_is_refused(
    api: httpx.AsyncClient, path: str, content: bytes
) -> None:
    headers = await log_in(api, "types")
    response = await api.post(f"/api/wechat/{path}", content=content, headers=headers)
    assert refused(response) == (400, "INVALID_PARAMS")


async def test_a_used_code_is_a_failed_login(api: httpx.AsyncClient) -> None:
    used = code("once")
    assert (await api.post("/api/wechat/login", json={"code": used})).status_code == 200
    response = await api.post("/api/wechat/login", json={"code": used})
    assert response.status_code == 401
    assert response.json() == {
        "success": False,
        "message": "登录失败，请重试",
        "code": "LOGIN_FAILED",
    }


@pytest.mark.parametrize("bad", ["bad", "risky"])
async def test_a_bad_or_blocked_code_is_a_failed_login(api: httpx.AsyncClient, bad: str) -> None:
    response = await api.post("/api/wechat/login", json={"code": bad})
    assert refused(response) == (401, "LOGIN_FAILED")


async def test_twenty_logins_at_once_on_two_nodes_make_one_user(
    nodes: tuple[NodeProcess, NodeProcess], database: Database
) -> None:
    who = secrets.token_hex(4)
    async with httpx.AsyncClient(timeout=patient(20)) as client:
        answers = await asyncio.gather(
            *(
                client.post(f"{nodes[i % 2].url}/api/wechat/login", json={"code": code(who)})
                for i in range(20)
            )
        )
    assert len({data(answer)["userInfo"]["id"] for answer in answers}) == 1
    found = await database.fetch("SELECT id FROM users WHERE openid = $1", openid_of(who))
    assert len(found) == 1


async def test_twenty_phone_calls_at_once_on_two_nodes_fetch_one_access_token(
    database_url: str, redis_url: str
) -> None:
    with WechatStandin() as fresh:
        fresh.appid = "wx" + secrets.token_hex(8)  # whose token nobody has fetched yet
        with Deployment(database_url, redis_url, **fresh.settings) as deployment:
            pair = deployment.node(), deployment.node()
            async with httpx.AsyncClient(base_url=pair[0].url, timeout=patient(20)) as client:
                headers = await log_in(client, "many")
                answers = await asyncio.gather(
                    *(
                        client.post(
                            f"{pair[i % 2].url}/api/wechat/get-phone",
                            json={"code": "xxx"},
                            headers=headers,
                        )
                        for i in range(20)
                    )
                )
        assert {answer.status_code for answer in answers} == {200}
        assert fresh.calls["stable_token"] == 1


async def test_a_token_that_wechat_calls_expired_costs_one_fetch_and_one_repetition(
    api: httpx.AsyncClient, standin: WechatStandin
) -> None:
    headers = await log_in(api, "expired")
    await api.post("/api/wechat/get-phone", json={"code": "xxx"}, headers=headers)
    standin.behave()
    standin.end_tokens()
    standin.misbehave("getuserphonenumber", errcode=42001)
    answer = await api.post("/api/wechat/get-phone", json={"code": "xxx"}, headers=headers)
    assert data(answer)["phoneNumber"] == "13800138000"
    assert standin.calls == {"getuserphonenumber": 2, "stable_token": 1}


@pytest.mark.parametrize("how", [{"hang": 30.0}, {"html": 503}], ids=["hanging", "html"])
async def test_wechat_in_trouble_is_503_within_6_s_and_the_next_call_works(
    api: httpx.AsyncClient, nodes: list[NodeProcess], standin: WechatStandin, how: dict[str, Any]
) -> None:
    """By the node's own clock."""
    node = Api(nodes[0])
    headers = await log_in(api, "trouble")
    for path, call in (("login", "jscode2session"), ("get-phone", "getuserphonenumber")):
        standin.misbehave(call, **how)
        before = await seconds_answering(node)
        response = await api.post(
            f"/api/wechat/{path}", json={"code": code("trouble")}, headers=headers
        )
        assert await seconds_answering(node) - before < 6
        assert refused(response) == (503, "SERVICE_UNAVAILABLE")
        assert "retry-after" in response.headers
        again = await api.post(
            f"/api/wechat/{path}", json={"code": code("trouble")}, headers=headers
        )
        assert again.status_code == 200
    await node.aclose()


async def test_too_many_calls_at_wechat_is_429_with_a_time(
    api: httpx.AsyncClient, standin: WechatStandin
) -> None:
    standin.misbehave("jscode2session", errcode=45011)
    response = await api.post("/api/wechat/login", json={"code": code("often")})
    assert refused(response) == (429, "RATE_LIMITED")
    assert response.headers["retry-after"] == "60"


async def test_wechat_misconfigured_is_503(api: httpx.AsyncClient, standin: WechatStandin) -> None:
    standin.misbehave("jscode2session", errcode=40125)
    response = await api.post("/api/wechat/login", json={"code": code("li")})
    assert refused(response) == (503, "SERVICE_UNAVAILABLE")


@pytest.mark.parametrize("path", ["get-phone", "generate-qrcode", "profile"])
async def test_the_other_calls_are_for_staff(api: httpx.AsyncClient, path: str) -> None:
    assert refused(await api.post(f"/api/wechat/{path}", json={})) == (401, "UNAUTHORIZED")


async def test_login_ignores_authorization(api: httpx.AsyncClient) -> None:
    response = await api.post(
        "/api/wechat/login",
        json={"code": code("li")},
        headers={"Authorization": "Bearer nonsense"},
    )
    assert response.status_code == 200


async def test_a_phone_code_of_somebody_else_is_refused(api: httpx.AsyncClient) -> None:
    headers = await log_in(api, "li")
    mine = await api.post("/api/wechat/get-phone", json={"code": code("li")}, headers=headers)
    assert data(mine)["phoneNumber"] == number_of("li")
    theirs = await api.post("/api/wechat/get-phone", json={"code": code("wang")}, headers=headers)
    assert refused(theirs) == (400, "INVALID_PARAMS")


async def test_the_profile_sets_what_is_given(api: httpx.AsyncClient) -> None:
    who = secrets.token_hex(4)
    headers = await log_in(api, who)
    await api.post("/api/wechat/profile", json={"name": " 王 芳 "}, headers=headers)
    avatar = {"avatar": "https://a/b.png", "name": ""}
    info = data(await api.post("/api/wechat/profile", json=avatar, headers=headers))
    assert (info["name"], info["avatar"]) == ("王 芳", "https://a/b.png")
    again = data(await api.post("/api/wechat/login", json={"code": code(who)}))["userInfo"]
    assert again == info


@pytest.mark.parametrize("member", ["name", "avatar"])
@pytest.mark.parametrize("bad", [5, None, [], {}, True, "a\u0007", "x" * 501])
async def test_a_profile_member_of_the_wrong_type_is_refused(
    api: httpx.AsyncClient, member: str, bad: Any
) -> None:
    headers = await log_in(api, "types")
    response = await api.post("/api/wechat/profile", json={member: bad}, headers=headers)
    assert refused(response) == (400, "INVALID_PARAMS")
    assert member in response.json()["message"]


async def test_who_is_disabled_is_out(api: httpx.AsyncClient, database: Database) -> None:
    who = secrets.token_hex(4)
    headers = await log_in(api, who)
    people = People(database)
    staff = await people.by_openid(openid_of(who))
    assert staff is not None
    await people.disable(staff.number)
    assert refused(await api.post("/api/wechat/profile", json={}, headers=headers))[0] == 401
    response = await api.post("/api/wechat/login", json={"code": code(who)})
    assert refused(response) == (403, "FORBIDDEN")


async def test_without_wechat_settings_its_calls_are_503(
    api: httpx.AsyncClient, database_url: str, redis_url: str
) -> None:
    headers = await log_in(api, "li")
    with Deployment(database_url, redis_url) as deployment:
        async with httpx.AsyncClient(base_url=deployment.node().url, timeout=patient(20)) as bare:
            for path, body in (
                ("login", {"code": "x"}),
                ("get-phone", {"code": "x"}),
                ("generate-qrcode", {"scene": "x"}),
            ):
                response = await bare.post(f"/api/wechat/{path}", json=body, headers=headers)
                assert refused(response) == (503, "SERVICE_UNAVAILABLE")
            assert refused(await bare.post("/api/wechat/login", json={}))[0] == 400

"""Signing in through WeChat under other settings: invitation only, limits, noisy logs."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

import httpx

from coordinator.standins.wechat import (
    WechatStandin,
    number_of,
    openid_of,
)
from tests.harness.cluster import Cluster
from tests.harness.node import DATA_KEY, JWT_SECRET, Deployment, NodeProcess, data
from tests.harness.patience import patient
from tests.test_wechat import code, refused


async def test_by_invitation_only_whom_an_operator_has_added_gets_in(
    running_standin: WechatStandin, database_url: str, redis_url: str
) -> None:
    who = secrets.token_hex(4)
    settings = {
        **running_standin.settings,
        "SIGNUP": "invite",
    }
    with Deployment(database_url, redis_url, **settings) as deployment:
        node = deployment.node()
        async with httpx.AsyncClient(base_url=node.url, timeout=patient(20)) as client:
            response = await client.post("/api/wechat/login", json={"code": code(who)})
            assert refused(response) == (403, "FORBIDDEN")
            added = deployment.run("users", "add", "--openid", openid_of(who), "--name", "李")
            assert added.returncode == 0, added.stderr
            info = data(await client.post("/api/wechat/login", json={"code": code(who)}))
            assert info["userInfo"]["name"] == "李"
            assert info["userInfo"]["id"] == added.stdout.strip()


async def test_while_postgres_is_away_no_code_is_used_up(standin: WechatStandin) -> None:
    """A caller that waits as `Retry-After` says comes with the same code."""
    async with Cluster(nodes=1, grace=30, DATA_KEYS=DATA_KEY, **standin.settings) as cluster:
        (node,) = cluster.nodes
        async with httpx.AsyncClient(base_url=node.url, timeout=patient(20)) as client:
            body = {"code": code("li")}
            node.postgres.cut()
            response = await client.post("/api/wechat/login", json=body)
            assert refused(response) == (503, "SERVICE_UNAVAILABLE")
            assert response.headers["retry-after"] == "1"
            assert standin.calls["jscode2session"] == 0
            node.postgres.mend()
            await cluster.ready(node)
            data(await client.post("/api/wechat/login", json=body))


async def test_login_is_limited_by_address_for_all_nodes_together(
    running_standin: WechatStandin, database_url: str, redis_url: str
) -> None:
    settings = {
        **running_standin.settings,
        "RATE_LIMITS": "login=5/hour",
        "TRUSTED_PROXIES": "127.0.0.1",
    }
    with Deployment(database_url, redis_url, **settings) as deployment:
        nodes = [deployment.node(), deployment.node()]
        async with httpx.AsyncClient(timeout=patient(20)) as client:
            for _ in range(10):
                answers = await _twelve_log_in(client, nodes)
                if not any("limits_counted_locally" in node.logs() for node in nodes):
                    break  # Redis was asked each time: not too late on a busy machine
                for node in nodes:
                    node.stop()
                nodes = [deployment.node(), deployment.node()]
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 7
    late = next(answer for answer in answers if answer.status_code == 429)
    assert refused(late) == (429, "RATE_LIMITED")
    assert 1 <= int(late.headers["retry-after"]) <= 3600


async def _twelve_log_in(
    client: httpx.AsyncClient, nodes: Sequence[NodeProcess]
) -> list[httpx.Response]:
    """From one address that nobody has called from, at once, on all nodes in turn."""
    address = {"X-Forwarded-For": f"10.9.{secrets.randbelow(256)}.{secrets.randbelow(256)}"}
    calls = (
        client.post(
            f"{nodes[i % len(nodes)].url}/api/wechat/login", json={"code": code("li")},
            headers=address,
        )
        for i in range(12)
    )  # fmt: skip
    return await asyncio.gather(*calls)


async def test_nothing_secret_is_logged_or_answered(
    running_standin: WechatStandin, database_url: str, redis_url: str
) -> None:
    """A run that provokes every failure, at the noisiest level; then its log is read."""
    zego_secret = secrets.token_hex(16)
    settings = {
        **running_standin.settings,
        "ZEGO_APP_ID": "123456789",
        "ZEGO_SERVER_SECRET": zego_secret,
        "LOG_LEVEL": "debug",
    }
    calls = {"login": "jscode2session", "get-phone": "getuserphonenumber"}
    ways: list[dict[str, Any]] = [
        {"html": 503}, {"errcode": 40125}, {"errcode": 42001, "times": 2},
        {"answer": {"errcode": 40013, "errmsg": f"{running_standin.secret} session-key-x"}},
        {"answer": {"session_key": "session-key-x"}}, {},
    ]  # fmt: skip
    said = ""
    with Deployment(database_url, redis_url, **settings) as deployment:
        node = deployment.node()
        async with httpx.AsyncClient(base_url=node.url, timeout=patient(20)) as client:
            token = data(await client.post("/api/wechat/login", json={"code": code("log")}))[
                "token"
            ]
            headers = {"Authorization": f"Bearer {token}"}
            for path, how in [(p, w) for p in calls for w in ways] + [("login", {"hang": 30.0})]:
                running_standin.behave()
                if how:
                    running_standin.misbehave(calls[path], **how)
                response = await client.post(
                    f"/api/wechat/{path}", json={"code": code("log")}, headers=headers
                )
                said += response.text if response.status_code != 200 else ""
            room = "room_" + secrets.token_hex(6)
            body = {"roomId": room, "roomName": "房间", "hostName": "张经理"}
            await client.post("/api/interview/create-room", json=body, headers=headers)
            joining = {"roomId": room, "userName": "李明"}
            guest = data(await client.post("/api/interview/guest/join", json=joining))
            for user in (guest["guestId"], "user_999"):
                asking = {"roomId": room, "userName": "李明", "userId": user}
                asking |= {"guestToken": guest["guestToken"]}
                response = await client.post("/api/zego/generate-token", json=asking)
                said += response.text if response.status_code != 200 else ""
        log = node.logs()
    assert "wechat_no_answer" in log, "the failures were provoked"
    assert "wechat_misconfigured" in log
    for secret in (
        running_standin.secret, zego_secret, JWT_SECRET, "session-key-", "session_key", "access-",
        token, token[-20:], guest["guestToken"][-20:], number_of("log"), "js_code",
        "access_token=", "jscode2session?", "Traceback",
    ):  # fmt: skip
        assert secret not in log, secret
        assert secret not in said, secret

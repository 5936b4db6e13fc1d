"""Signing in at the console: printed links, pictures to scan, signing out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
import pytest_asyncio

from coordinator.standins.wechat import WechatStandin
from coordinator.store.database import Database
from coordinator.web.console import browser_name
from tests.harness.limited import limited_nodes
from tests.harness.node import JWT_SECRET, Deployment, data
from tests.harness.people import Api, Guest, Host, bearer, refusal

SESSION = "/api/console/session"
TICKETS = "/api/console/tickets"
ROOMS = "/api/interview/rooms"
PAGE = "pages/console/confirm/confirm"


def printed_code(deployment: Deployment, host: Host) -> str:
    """The code of the link that `coordinator console` prints."""
    printed = deployment.run("console", host.user_id)
    assert printed.returncode == 0, printed.stderr
    link = urlsplit(printed.stdout.strip())
    assert link.path == "/console"
    return link.fragment.removeprefix("code=")


async def ends(api: Api, token: str) -> Any:
    return await api.http.request("DELETE", SESSION, headers=bearer(token))


# -- a printed link ------------------------------------------------------------------------------


async def test_a_printed_link_signs_in_once_whichever_node_is_asked(
    a: Api, b: Api, host: Host, deployment: Deployment
) -> None:
    code = printed_code(deployment, host)

    answers = await asyncio.gather(*(api.post(SESSION, {"code": code}) for api in (a, b) * 4))

    (session,) = [answer.json()["data"] for answer in answers if answer.status_code == 200]
    assert session["userInfo"]["id"] == host.user_id
    assert (await b.get(ROOMS, session["token"])).status_code == 200
    claims = jwt.decode(session["token"], JWT_SECRET, algorithms=["HS256"])
    assert claims["exp"] - claims["iat"] == 12 * 3600
    assert claims["jti"]
    refused = [refusal(answer) for answer in answers if answer.status_code != 200]
    assert refused == [(401, "LOGIN_FAILED")] * 7


async def test_a_link_is_good_for_two_minutes(
    a: Api, host: Host, deployment: Deployment, database: Database
) -> None:
    code = printed_code(deployment, host)
    left = await database.fetchval(
        "SELECT expires_at - clock_timestamp() FROM console_codes WHERE user_id = $1", host.number
    )
    assert 100 < left.total_seconds() <= 120

    await database.execute(
        "UPDATE console_codes SET expires_at = clock_timestamp() WHERE user_id = $1", host.number
    )

    assert refusal(await a.post(SESSION, {"code": code})) == (401, "LOGIN_FAILED")


async def test_a_link_of_somebody_disabled_signs_nobody_in(
    a: Api, host: Host, deployment: Deployment
) -> None:
    code = printed_code(deployment, host)
    deployment.run("users", "disable", host.user_id)

    assert refusal(await a.post(SESSION, {"code": code})) == (401, "LOGIN_FAILED")


@pytest.mark.parametrize("body", [{}, {"code": ""}, {"code": 5}, []])
async def test_a_body_without_a_code_is_refused(a: Api, body: object) -> None:
    assert refusal(await a.post(SESSION, body)) == (400, "INVALID_PARAMS")


async def test_the_database_holds_no_code_that_could_be_used(
    host: Host, deployment: Deployment, database: Database
) -> None:
    code = printed_code(deployment, host)
    assert not await database.fetchval("SELECT count(*) FROM console_codes WHERE digest = $1", code)


def test_nobody_gets_no_link(deployment: Deployment) -> None:
    printed = deployment.run("console", "user_999999")
    assert printed.returncode == 1
    assert "user_999999" in printed.stderr


# -- signing out ---------------------------------------------------------------------------------


async def test_who_signs_out_is_refused_on_every_node_from_then_on(
    a: Api, b: Api, host: Host, deployment: Deployment, room: str
) -> None:
    token = data(await a.post(SESSION, {"code": printed_code(deployment, host)}))["token"]

    assert (await ends(a, token)).json() == {"success": True, "message": "已退出登录"}

    for api in (a, b):
        assert refusal(await api.get(ROOMS, token)) == (401, "UNAUTHORIZED")
        assert refusal(await ends(api, token)) == (401, "UNAUTHORIZED")
    assert await (await b.watch(room, token)).is_put_out() == 4301
    assert (await a.get(ROOMS, host.token)).status_code == 200, "other tokens of hers stay good"


async def test_who_signs_out_loses_its_live_connections_on_every_node(
    a: Api, b: Api, host: Host, deployment: Deployment, room: str
) -> None:
    token = data(await a.post(SESSION, {"code": printed_code(deployment, host)}))["token"]
    lives = [await api.watch(room, token) for api in (a, b)]
    other = await b.watch(room, host.token)
    for live in (*lives, other):
        await live.sees("welcome")

    assert (await ends(a, token)).status_code == 200

    for live in lives:
        assert await live.is_put_out() == 4301
    await other.hears_pong()


async def test_only_a_session_can_be_signed_out(a: Api, host: Host, room: str) -> None:
    guest = await Guest(a).joins(room)

    assert refusal(await ends(a, host.token)) == (400, "INVALID_PARAMS")
    assert refusal(await ends(a, guest.token)) == (401, "UNAUTHORIZED")
    assert refusal(await a.http.request("DELETE", SESSION)) == (401, "UNAUTHORIZED")


# -- a picture to scan ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wechat() -> Iterator[WechatStandin]:
    with WechatStandin() as standin:
        yield standin


@pytest_asyncio.fixture(scope="module")
async def nodes(
    deployment: Deployment, wechat: WechatStandin
) -> AsyncIterator[tuple[Api, Api]]:
    """Two nodes whose mini-program has a page that confirms sign-ins."""
    settings = {
        **wechat.settings, "WX_CONSOLE_PAGE": PAGE, "RATE_LIMITS": "ticket=1000/minute",
    }  # fmt: skip
    apis = Api(deployment.node(**settings)), Api(deployment.node(**settings))
    yield apis
    for api in apis:
        await api.aclose()


async def asks(api: Api, wechat: WechatStandin) -> tuple[dict[str, Any], str]:
    """A browser asks; what it was told, and the scan ticket in its picture."""
    headers = {"User-Agent": "Mozilla/5.0 (Windows NT 10.0) Chrome/150.0.0.0 Safari/537.36"}
    opened = data(await api.http.post(TICKETS, headers=headers))
    order = wechat.bodies[-1]
    assert order["page"] == PAGE
    assert order["scene"].startswith("t=")
    return opened, order["scene"].removeprefix("t=")


async def test_who_scans_sees_who_asks_and_signs_it_in(
    nodes: tuple[Api, Api], wechat: WechatStandin, host: Host
) -> None:
    a, b = nodes
    opened, scan = await asks(a, wechat)
    assert opened["qrcode"].startswith("data:image/png;base64,")
    assert opened["expiresIn"] == 120
    assert scan not in opened["ticket"]
    assert data(await b.get(f"{TICKETS}/{opened['ticket']}")) == {"status": "pending"}

    seen = data(await b.get(f"/api/console/scans/{scan}", host.token))
    assert seen["browser"] == "Chrome 150 (Windows)"
    assert seen["address"] == "127.0.0.1"
    confirm = f"/api/console/scans/{scan}/confirm"
    for _ in range(2):  # a repeat after a lost answer is harmless
        data(await b.post(confirm, {"match": opened["match"]}, host.token))

    session = data(await a.get(f"{TICKETS}/{opened['ticket']}"))
    assert session["status"] == "confirmed"
    assert session["userInfo"]["id"] == host.user_id
    assert (await b.get(ROOMS, session["token"])).status_code == 200
    assert refusal(await b.get(f"{TICKETS}/{opened['ticket']}")) == (404, "NOT_FOUND")
    assert refusal(await b.get(f"/api/console/scans/{scan}", host.token)) == (404, "NOT_FOUND")


async def test_a_wrong_match_ends_the_ticket(
    nodes: tuple[Api, Api], wechat: WechatStandin, host: Host
) -> None:
    a, b = nodes
    opened, scan = await asks(a, wechat)
    wrong = f"{(int(opened['match']) + 1) % 100:02d}"
    confirm = f"/api/console/scans/{scan}/confirm"

    assert refusal(await a.post(confirm, {"match": wrong}, host.token)) == (400, "INVALID_PARAMS")

    right = {"match": opened["match"]}
    assert refusal(await b.post(confirm, right, host.token)) == (404, "NOT_FOUND")
    assert refusal(await b.get(f"{TICKETS}/{opened['ticket']}")) == (404, "NOT_FOUND")


async def test_what_is_in_the_picture_signs_nobody_in(
    nodes: tuple[Api, Api], wechat: WechatStandin, room: str
) -> None:
    a, _ = nodes
    opened, scan = await asks(a, wechat)
    guest = await Guest(a).joins(room)

    assert refusal(await a.get(f"{TICKETS}/{scan}")) == (404, "NOT_FOUND")
    assert refusal(await a.get(f"/api/console/scans/{scan}")) == (401, "UNAUTHORIZED")
    confirm = f"/api/console/scans/{scan}/confirm"
    match = {"match": opened["match"]}
    assert refusal(await a.post(confirm, match)) == (401, "UNAUTHORIZED")
    assert refusal(await a.post(confirm, match, guest.token)) == (401, "UNAUTHORIZED")
    assert data(await a.get(f"{TICKETS}/{opened['ticket']}")) == {"status": "pending"}


async def test_a_ticket_confirmed_by_one_is_nobody_elses(
    nodes: tuple[Api, Api], wechat: WechatStandin, host: Host, admin: Host
) -> None:
    a, b = nodes
    opened, scan = await asks(a, wechat)
    confirm = f"/api/console/scans/{scan}/confirm"
    match = {"match": opened["match"]}
    data(await a.post(confirm, match, host.token))

    assert refusal(await b.post(confirm, match, admin.token)) == (404, "NOT_FOUND")
    taken = data(await b.get(f"{TICKETS}/{opened['ticket']}"))
    assert taken["userInfo"]["id"] == host.user_id


async def test_a_ticket_is_good_for_two_minutes(
    nodes: tuple[Api, Api], wechat: WechatStandin, host: Host, database: Database
) -> None:
    a, _ = nodes
    opened, scan = await asks(a, wechat)
    await database.execute("UPDATE console_tickets SET expires_at = clock_timestamp()")

    assert refusal(await a.get(f"{TICKETS}/{opened['ticket']}")) == (404, "NOT_FOUND")
    assert refusal(await a.get(f"/api/console/scans/{scan}", host.token)) == (404, "NOT_FOUND")
    confirm = f"/api/console/scans/{scan}/confirm"
    match = {"match": opened["match"]}
    assert refusal(await a.post(confirm, match, host.token)) == (404, "NOT_FOUND")


async def test_eleven_tickets_in_a_minute_are_one_too_many(
    deployment: Deployment, wechat: WechatStandin
) -> None:
    settings = {
        **wechat.settings, "WX_CONSOLE_PAGE": PAGE, "RATE_LIMITS": "",
    }  # fmt: skip
    for node in limited_nodes(deployment, settings):
        async with aclosing(Api(node)) as api:
            answers = [await api.post(TICKETS) for _ in range(11)]

    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert int(answers[-1].headers["retry-after"]) >= 1


async def test_without_a_page_in_the_mini_program_there_is_no_such_way(a: Api) -> None:
    assert refusal(await a.post(TICKETS)) == (503, "SERVICE_UNAVAILABLE")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/150.0.0.0 Safari/537.36 Edg/150.0.1",
         "Edge 150 (Windows)"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 19_0) Version/19.0 Mobile/15E148 Safari/604.1",
         "Safari 19 (iPhone)"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
         "Firefox 140 (Linux)"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("", "?"),
    ],
)  # fmt: skip
def test_a_browser_is_named_in_words(header: str, name: str) -> None:
    assert browser_name(header) == name

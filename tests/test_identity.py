"""Who is calling: staff tokens, guest tokens, and trust on first proof."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest

from coordinator.store.database import Database
from tests.harness.node import JWT_SECRET, Deployment, data
from tests.harness.people import Api, Guest, Host, refusal
from tests.harness.tokens import aged, staff_token

ROOMS = "/api/interview/rooms"
JOIN = "/api/interview/guest/join"
LEAVE = "/api/interview/guest/leave"


def part(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def signed(claims: dict[str, object], secret: str = JWT_SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, secret, algorithm=algorithm)


# -- staff ---------------------------------------------------------------------------------------


async def test_a_good_token_is_good_whatever_the_schemes_case(a: Api, host: Host) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {host.token}"}
        assert (await a.http.get(ROOMS, headers=headers)).status_code == 200


async def test_a_well_signed_token_past_its_time_is_told_so(a: Api, host: Host) -> None:
    answer = await a.get(ROOMS, aged(host.token, 1))

    assert refusal(answer) == (401, "TOKEN_EXPIRED")
    for past in (-1, 0, 1.5):
        old = signed({"id": host.number, "exp": past})
        assert refusal(await a.get(ROOMS, old)) == (401, "TOKEN_EXPIRED")


async def test_a_token_of_seven_days_lasts_seven_days(a: Api, host: Host) -> None:
    almost = staff_token(host.number, host.openid, age=7 * 86400 - 60)
    past = staff_token(host.number, host.openid, age=7 * 86400 + 1)

    assert (await a.get(ROOMS, almost)).status_code == 200
    assert refusal(await a.get(ROOMS, past)) == (401, "TOKEN_EXPIRED")


async def test_what_is_not_our_signature_is_no_token(a: Api, host: Host) -> None:
    """Also where it is expired: only a well-signed token may say so."""
    now = int(time.time())
    claims = {"id": host.number, "openid": host.openid, "role": "hr", "iat": now}
    good = {**claims, "exp": now + 60}
    head, body, signature = signed(good).split(".")
    wrong_ids: list[object] = [0, -1, 2**31, 2**63, "1", str(host.number), True, None, [], 1.5]
    forged = [
        "x",
        "a.b.c",
        "..",
        "é" * 5,
        signed(good, "another-secret-another-secret-another"),
        signed({**claims, "exp": now - 60}, "another-secret-another-secret-another"),
        signed(good, JWT_SECRET * 2, "HS512"),
        f"{part({'alg': 'none', 'typ': 'JWT'})}.{body}.",
        f"{part({'alg': 'none', 'typ': 'JWT'})}.{body}.{signature}",
        f"{head}.{part({**good, 'id': 1})}.{signature}",
        f"{head}.{body}.{signature[:-4]}",
        f"{head}.{body}",
        f"{head}.{body}.{signature}" * 3,
        signed({**good, "exp": "tomorrow"}),
        signed({**good, "exp": None}),
        signed({**good, "exp": 2**39}),
        signed(claims),
        signed({"exp": now + 60}),
        *(signed({**good, "jti": wrong}) for wrong in (5, "a\0b", "\ud800")),
        *(signed({**good, "id": wrong}) for wrong in wrong_ids),
    ]
    for token in forged:
        headers = {b"Authorization": f"Bearer {token}".encode()}
        answer = await a.http.get(ROOMS, headers=headers)
        assert refusal(answer) == (401, "UNAUTHORIZED"), token


@pytest.mark.parametrize("header", ["", "Bearer", "Basic dTpw", "Token x"])
async def test_another_header_is_no_token(a: Api, header: str) -> None:
    answer = await a.http.get(ROOMS, headers={"Authorization": header})

    assert answer.headers["www-authenticate"] == "Bearer"
    assert refusal(answer) == (401, "UNAUTHORIZED")


async def test_the_role_of_the_database_counts_not_the_tokens(
    a: Api, host: Host, database: Database, room: str
) -> None:
    other = await Host.hired(database, a)
    self_made = staff_token(other.number, other.openid, "admin")
    path = f"/api/interview/room/{room}/end"

    assert refusal(await a.post(path, token=self_made)) == (403, "FORBIDDEN")
    await database.execute("UPDATE users SET role = 'admin' WHERE id = $1", other.number)
    assert (await a.post(path, token=other.token)).status_code == 200


async def test_who_is_disabled_or_gone_is_nobody(
    a: Api, b: Api, database: Database, room: str
) -> None:
    disabled, gone = await Host.hired(database, a), await Host.hired(database, a)
    assert (await a.get(ROOMS, disabled.token)).status_code == 200
    await database.execute("UPDATE users SET disabled_at = now() WHERE id = $1", disabled.number)
    await database.execute("DELETE FROM users WHERE id = $1", gone.number)

    for who in (disabled, gone):
        for api in (a, b):
            assert refusal(await api.get(ROOMS, who.token)) == (401, "UNAUTHORIZED")
        assert await (await a.watch(room, who.token)).is_put_out() == 4301


async def test_a_guests_token_of_strange_texts_lets_nobody_return(a: Api, room: str) -> None:
    strange = signed({"room": room, "guest": "a\0b", "exp": int(time.time()) + 60})

    joined = data(await a.post(JOIN, {"roomId": room, "userName": "n", "guestToken": strange}))

    assert joined["guestId"].startswith("guest_")


async def test_a_guest_token_is_no_staff_token(a: Api, host: Host, room: str) -> None:
    guest = await Guest(a).joins(room)
    create = {"roomId": "x", "roomName": "n", "hostName": "h"}

    assert refusal(await a.post("/api/interview/create-room", create, guest.token)) == (
        401, "UNAUTHORIZED"
    )  # fmt: skip
    assert refusal(await a.post(f"/api/interview/room/{room}/end", token=guest.token)) == (
        401, "UNAUTHORIZED"
    )  # fmt: skip


async def test_secrets_rotate_without_logging_anybody_out(
    a: Api, host: Host, deployment: Deployment, room: str
) -> None:
    new = "the-new-secret-the-new-secret-the-new-secret"
    rotated = Api(deployment.node(JWT_SECRET=f"{new}, {JWT_SECRET}"))

    assert (await rotated.get(ROOMS, host.token)).status_code == 200
    guest = await Guest(rotated).joins(room)
    jwt.decode(guest.token, new, algorithms=["HS256"])
    assert refusal(await a.get(f"/api/interview/room/{room}/events", guest.token)) == (
        401, "UNAUTHORIZED"
    )  # fmt: skip
    await rotated.aclose()


# -- trust on first proof ------------------------------------------------------------------------


async def test_a_guest_that_connected_is_nobody_elses_to_speak_for(
    a: Api, b: Api, host: Host, room: str
) -> None:
    guest = await Guest(a).joins(room)
    other = await Guest(a).joins(room)
    await guest.connects()

    assert refusal(await guest.leaves(b)) == (401, "UNAUTHORIZED")
    assert refusal(await guest.leaves(b, token=other.token)) == (403, "FORBIDDEN")
    assert refusal(await guest.leaves(b, token=host.token)) == (403, "FORBIDDEN")
    assert (await guest.leaves(b, token=guest.token)).status_code == 200
    assert (await other.leaves()).status_code == 200, "the other never proved itself"


@pytest.mark.parametrize("how", ["member", "bearer"])
async def test_a_proof_given_to_leave_makes_one_due_the_next_time(
    a: Api, room: str, how: str
) -> None:
    guest = await Guest(a).joins(room)
    body = {"roomId": room, "guestId": guest.user_id}
    if how == "member":
        answer = await a.post(LEAVE, {**body, "guestToken": guest.token})
    else:
        answer = await a.post(LEAVE, body, guest.token)
    assert answer.status_code == 200
    await guest.joins(room)

    assert refusal(await guest.leaves()) == (401, "UNAUTHORIZED")
    assert (await guest.leaves(token=guest.token)).status_code == 200


async def test_a_token_of_another_room_proves_nothing_here(a: Api, host: Host, room: str) -> None:
    guest = await Guest(a).joins(room)
    elsewhere = await Guest(a).joins(await host.creates())

    assert refusal(await guest.leaves(token=elsewhere.token)) == (403, "FORBIDDEN")
    assert await (await a.watch(room, elsewhere.token)).is_put_out() == 4003


async def test_a_return_is_a_first_use_of_a_proof(a: Api, room: str) -> None:
    """Whoever has come back with its token is no longer spoken for by its bare, public id."""
    guest = await Guest(a).joins(room)
    data(await guest.asks_to_join(room))

    assert refusal(await guest.leaves()) == (401, "UNAUTHORIZED")
    assert (await guest.leaves(token=guest.token)).status_code == 200


# -- browsers ------------------------------------------------------------------------------------


async def test_only_the_origins_that_are_listed_may_read_answers(
    a: Api, deployment: Deployment, room: str
) -> None:
    opened = Api(deployment.node(ALLOWED_ORIGINS="https://crm.example.com"))
    path = f"/api/interview/room/{room}"
    asked = {
        "Origin": "https://crm.example.com",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }

    async def allowed(api: Api, origin: str, path: str = path) -> Any:
        answer = await api.http.get(path, headers={"Origin": origin})
        return answer.headers.get("Access-Control-Allow-Origin")

    assert await allowed(opened, "https://crm.example.com") == "https://crm.example.com"
    assert await allowed(opened, "https://crm.example.com", ROOMS) == "https://crm.example.com"
    assert await allowed(opened, "https://evil.example.com") is None
    assert await allowed(a, "https://crm.example.com") is None
    for headers in ({}, {"Origin": "https://evil.example.com"}, {"Origin": asked["Origin"]}):
        kept = await opened.http.get("/client/room.js", headers=headers)
        assert kept.headers["Vary"] == "Accept-Encoding, Origin", headers
    preflight = await opened.http.options("/api/interview/guest/join", headers=asked)
    assert preflight.status_code < 300
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://crm.example.com"
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"].lower()
    for path, complaint in (("/api/interview/guest/join", "message"), ("/api/open/jobs", "error")):
        refused = await opened.http.options(path, headers=asked | {"Origin": "https://evil.com"})
        assert refused.status_code == 403
        assert refused.json() == {"success": False, complaint: "禁止访问", "code": "FORBIDDEN"}
        assert "Access-Control-Allow-Origin" not in refused.headers
    await opened.aclose()


async def test_a_page_of_a_listed_origin_may_read_when_to_come_again(
    deployment: Deployment, room: str
) -> None:
    origin = {"Origin": "https://crm.example.com"}
    settings = {"ALLOWED_ORIGINS": origin["Origin"], "RATE_LIMITS": "join=1/minute"}
    limited = Api(deployment.node(**settings))
    path, body = "/api/interview/guest/join", {"roomId": room, "userName": "李明"}

    answers = [await limited.http.post(path, json=body, headers=origin) for _ in range(3)]

    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert answers[-1].headers["Access-Control-Expose-Headers"] == "Retry-After"
    await limited.aclose()

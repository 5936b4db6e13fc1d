"""generate-token through a real node: who gets one, for how long, and what is in it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio

from coordinator.domain.people import Staff
from coordinator.services.access import Access
from coordinator.store.database import Database
from coordinator.store.people import People
from tests.harness.node import JWT_SECRET, Deployment, NodeProcess, data
from tests.harness.patience import patient
from tests.test_token04 import decode

APP_ID, SERVER_SECRET = 123456789, "0123456789abcdef0123456789ABCDEF"
PATH = "/api/zego/generate-token"
SETTINGS = {"ZEGO_APP_ID": str(APP_ID), "ZEGO_SERVER_SECRET": SERVER_SECRET}


@pytest.fixture(scope="module")
def node(database_url: str, redis_url: str) -> Iterator[NodeProcess]:
    with Deployment(database_url, redis_url, **SETTINGS) as deployment:
        yield deployment.node()


@pytest_asyncio.fixture
async def api(node: NodeProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=node.url, verify=False, timeout=patient(20)) as client:
        yield client


class VideoRoom:
    """A room with its host and one guest; both have been there over REST only."""

    def __init__(self, room_id: str, host: Staff, host_token: str, guest: dict[str, str]) -> None:
        self.room_id = room_id
        self.host = host
        self.host_token = host_token
        self.guest_id = guest["guestId"]
        self.guest_token = guest["guestToken"]

    def body(self, user_id: str | None = None, **more: Any) -> dict[str, Any]:
        user = user_id or self.guest_id
        return {"userId": user, "userName": "李明", "roomId": self.room_id, **more}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def make_room(api: httpx.AsyncClient, database: Database) -> VideoRoom:
    people = People(database)
    staff = await people.add("o" + secrets.token_hex(8), "张经理")
    token = Access((JWT_SECRET,), people).issue_staff(staff)
    room_id = "room_" + secrets.token_hex(6)
    body = {"roomId": room_id, "roomName": "张经理的面试房间", "hostName": "张经理"}
    data(await api.post("/api/interview/create-room", json=body, headers=bearer(token)))
    joining = {"roomId": room_id, "userName": "李明", "identity": "求职者"}
    guest = data(await api.post("/api/interview/guest/join", json=joining))
    return VideoRoom(room_id, staff, token, guest)


@pytest_asyncio.fixture
async def room(api: httpx.AsyncClient, database: Database) -> VideoRoom:
    return await make_room(api, database)


def refused(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body["success"] is False
    return response.status_code, body["code"]


async def test_the_documents_example_works_but_for_the_secret(
    api: httpx.AsyncClient, room: VideoRoom
) -> None:
    before = int(time.time())
    body = room.body(room.host.user_id, userName="张经理", expireTime=7200)
    response = await api.post(PATH, json=body)
    token = response.json()["data"]["token"]
    assert response.json() == {
        "success": True,
        "message": "操作成功",
        "data": {
            "token": token,
            "appId": APP_ID,
            "userId": room.host.user_id,
            "roomId": room.room_id,
            "expireTime": 7200,
        },
    }
    assert SERVER_SECRET not in response.text
    inside = decode(token, SERVER_SECRET)
    assert inside.cipher == "gcm"
    assert inside.fields["app_id"] == APP_ID
    assert inside.fields["user_id"] == room.host.user_id
    assert before <= inside.fields["ctime"] <= time.time()
    assert inside.fields["expire"] - inside.fields["ctime"] == 7200
    assert inside.header_expire == inside.fields["expire"]
    assert json.loads(inside.fields["payload"]) == {
        "room_id": room.room_id,
        "privilege": {"1": 1, "2": 1},
        "stream_id_list": None,
    }


@pytest.mark.parametrize(
    ("asked", "granted"), [({}, 7200), (60, 60), (86400, 86400), (86401, 86400), (10**30, 86400)]
)
async def test_the_answer_states_what_was_granted(
    api: httpx.AsyncClient, room: VideoRoom, asked: Any, granted: int
) -> None:
    more = {} if asked == {} else {"expireTime": asked}
    answer = data(await api.post(PATH, json=room.body(**more)))
    inside = decode(answer["token"], SERVER_SECRET).fields
    assert answer["expireTime"] == granted
    assert inside["expire"] - inside["ctime"] == granted


@pytest.mark.parametrize("bad", [59, 0, -1, "7200", "x", 7200.5, 7200.0, True, None, [], {}])
async def test_a_lifetime_of_the_wrong_kind_is_refused(
    api: httpx.AsyncClient, room: VideoRoom, bad: Any
) -> None:
    response = await api.post(PATH, json=room.body(expireTime=bad))
    assert refused(response) == (400, "INVALID_PARAMS")
    assert "expireTime" in response.json()["message"]


@pytest.mark.parametrize("member", ["userId", "userName", "roomId"])
@pytest.mark.parametrize("bad", [None, 5, "", "  ", [], {}, True, "a\u0000b", "\udc80"])
async def test_a_member_that_is_missing_or_wrong_is_named(
    api: httpx.AsyncClient, room: VideoRoom, member: str, bad: Any
) -> None:
    body = room.body()
    for content in (body | {member: bad}, {k: v for k, v in body.items() if k != member}):
        response = await api.post(PATH, content=json.dumps(content))
        assert refused(response) == (400, "INVALID_PARAMS")
        assert member in response.json()["message"]


async def test_an_unknown_room_is_404_and_an_ended_one_400(
    api: httpx.AsyncClient, room: VideoRoom
) -> None:
    for unknown in ("room_nobody", "x" * 5000, "../x", "房间"):
        response = await api.post(PATH, json=room.body() | {"roomId": unknown})
        assert refused(response) == (404, "ROOM_NOT_FOUND")
    headers = bearer(room.host_token)
    await api.post(f"/api/interview/room/{room.room_id}/end", headers=headers)
    assert refused(await api.post(PATH, json=room.body())) == (400, "ROOM_ENDED")


async def test_who_is_not_in_the_room_gets_none(api: httpx.AsyncClient, room: VideoRoom) -> None:
    for stranger in ("guest_nobody", "user_999", "x" * 5000, "李明"):
        assert refused(await api.post(PATH, json=room.body(stranger))) == (403, "FORBIDDEN")
    leaving = {"roomId": room.room_id, "guestId": room.guest_id}
    data_left = await api.post("/api/interview/guest/leave", json=leaving)
    assert data_left.status_code == 200
    assert refused(await api.post(PATH, json=room.body())) == (403, "FORBIDDEN")


async def test_after_the_first_proof_bare_ids_are_not_enough(
    api: httpx.AsyncClient, room: VideoRoom
) -> None:
    data(await api.post(PATH, json=room.body()))
    data(await api.post(PATH, json=room.body(guestToken=room.guest_token)))
    assert refused(await api.post(PATH, json=room.body())) == (401, "UNAUTHORIZED")
    data(await api.post(PATH, json=room.body(), headers=bearer(room.guest_token)))


async def test_staff_proves_itself_by_its_own_token(
    api: httpx.AsyncClient, room: VideoRoom
) -> None:
    body = room.body(room.host.user_id)
    data(await api.post(PATH, json=body, headers=bearer(room.host_token)))
    assert refused(await api.post(PATH, json=body)) == (401, "UNAUTHORIZED")


async def test_somebody_elses_token_is_refused_also_before_one_is_due(
    api: httpx.AsyncClient, room: VideoRoom, database: Database
) -> None:
    other = await make_room(api, database)
    for token in (other.guest_token, other.host_token, room.host_token):
        response = await api.post(PATH, json=room.body(guestToken=token))
        assert refused(response) == (403, "FORBIDDEN")
    data(await api.post(PATH, json=room.body()))  # and it proved nothing


async def test_a_broken_token_is_refused_also_before_one_is_due(
    api: httpx.AsyncClient, room: VideoRoom
) -> None:
    for broken in ("nonsense", room.guest_token[:-3] + "abc", "a.b.c"):
        response = await api.post(PATH, json=room.body(guestToken=broken))
        assert refused(response) == (401, "UNAUTHORIZED")
        response = await api.post(PATH, json=room.body(), headers=bearer(broken))
        assert refused(response) == (401, "UNAUTHORIZED")


async def test_the_room_is_judged_before_the_token(
    api: httpx.AsyncClient, room: VideoRoom
) -> None:
    stranger = room.body("guest_nobody", guestToken="broken")
    assert refused(await api.post(PATH, json=stranger)) == (403, "FORBIDDEN")
    host_ends = f"/api/interview/room/{room.room_id}/end"
    data(await api.post(host_ends, headers=bearer(room.host_token)))
    for token in ("broken", room.host_token, room.guest_token):
        ended = room.body(guestToken=token)
        assert refused(await api.post(PATH, json=ended)) == (400, "ROOM_ENDED")
        unknown = ended | {"roomId": "room_nobody"}
        assert refused(await api.post(PATH, json=unknown)) == (404, "ROOM_NOT_FOUND")


async def test_an_expired_token_is_told_as_such(api: httpx.AsyncClient, room: VideoRoom) -> None:
    claims = {"iat": 1, "exp": int(time.time()) - 5}
    for mine, user in (
        ({"room": room.room_id, "guest": room.guest_id}, room.guest_id),
        ({"id": room.host.number, "openid": room.host.openid, "role": "hr"}, room.host.user_id),
    ):
        token = jwt.encode({**mine, **claims}, JWT_SECRET, algorithm="HS256")
        response = await api.post(PATH, json=room.body(user, guestToken=token))
        assert refused(response) == (401, "TOKEN_EXPIRED")


async def test_without_settings_it_is_503_after_the_body_was_read(
    room: VideoRoom, database_url: str, redis_url: str
) -> None:
    with Deployment(database_url, redis_url) as deployment:
        async with httpx.AsyncClient(base_url=deployment.node().url, timeout=patient(20)) as bare:
            assert refused(await bare.post(PATH, json={})) == (400, "INVALID_PARAMS")
            unknown = room.body() | {"roomId": "room_nobody"}
            assert refused(await bare.post(PATH, json=unknown)) == (503, "SERVICE_UNAVAILABLE")


async def test_the_old_cipher_by_setting_and_proof_from_the_first_call_on(
    room: VideoRoom, database_url: str, redis_url: str
) -> None:
    settings = SETTINGS | {"ZEGO_TOKEN_CIPHER": "cbc", "IDENTITY_PROOF": "required"}
    with Deployment(database_url, redis_url, **settings) as deployment:
        async with httpx.AsyncClient(base_url=deployment.node().url, timeout=patient(20)) as strict:
            assert refused(await strict.post(PATH, json=room.body())) == (401, "UNAUTHORIZED")
            answer = data(await strict.post(PATH, json=room.body(guestToken=room.guest_token)))
    inside = decode(answer["token"], SERVER_SECRET)
    assert inside.cipher == "cbc"
    assert inside.fields["user_id"] == room.guest_id

"""Watching an interview live, through real nodes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from coordinator.store.database import Database
from coordinator.store.people import People
from tests.harness.node import JWT_SECRET, Deployment, NodeProcess
from tests.harness.patience import patient
from tests.harness.people import PATIENCE, Live, everybody_hangs_up
from tests.open_api import KEY, KEYS, answered, change, create, read, shown


class InterviewWatcher(Live):
    """Somebody who watches an interview."""

    def _picture(self, frame: dict[str, Any]) -> None:
        """There is nobody in an interview to draw."""


async def watch(
    node: NodeProcess, interview: str, *, since: int | None = None, protocols: tuple[str, ...] = (),
    **headers: str,
) -> InterviewWatcher:  # fmt: skip
    """Opens a websocket; `headers` by names with `_` for `-`."""
    query = "" if since is None else f"?since={since}"
    socket = await connect(
        f"{node.ws}/api/open/interviews/{interview}/live{query}",
        compression=None, proxy=None, ping_interval=None, max_size=None,
        open_timeout=patient(PATIENCE),
        additional_headers={name.replace("_", "-"): value for name, value in headers.items()},
        subprotocols=[Subprotocol(p) for p in protocols] or None,
    )  # fmt: skip
    return InterviewWatcher(socket)


GOOD: dict[str, Any] = {"X_API_Key": KEY["X-API-Key"]}


@pytest.fixture(scope="module")
def node(deployment: Deployment) -> NodeProcess:
    assert deployment.run("seed").returncode == 0
    return deployment.node(OPEN_API_KEYS=KEYS)


@pytest.fixture(scope="module")
def other_node(deployment: Deployment) -> NodeProcess:
    return deployment.node(OPEN_API_KEYS=KEYS)


@pytest_asyncio.fixture
async def coze(node: NodeProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=node.url, headers=KEY, verify=False, timeout=patient(20)
    ) as client:
        yield client
    await everybody_hangs_up()


@pytest_asyncio.fixture
async def interview(coze: httpx.AsyncClient) -> dict[str, Any]:
    return await create(coze, secrets.token_hex(8))


async def staff_token(database: Database, role: str) -> str:
    staff = await People(database).add(f"o-watching-{role}", "李经理", role)
    claims = {"id": staff.number, "openid": staff.openid, "role": role, "exp": 2**31}
    return jwt.encode(claims, JWT_SECRET, algorithm="HS256")


async def test_a_watcher_sees_the_record_and_then_every_change(
    node: NodeProcess, coze: httpx.AsyncClient, interview: dict[str, Any]
) -> None:
    watcher = await watch(node, interview["id"], **GOOD)
    welcome = await watcher.sees("welcome")
    assert (welcome["interviewId"], welcome["seq"], welcome["resumed"]) == (
        interview["id"],
        1,
        False,
    )
    assert welcome["interview"] == interview
    assert not {"roomId", "room", "participants", "tokenExpiresAt"} & welcome.keys()
    changed = shown(await change(coze, interview, answers=[answered(0)], currentIndex=1))
    assert await watcher.sees("interview_updated") == {
        "type": "interview_updated",
        "interviewId": interview["id"],
        "seq": 2,
        "at": changed["updatedAt"],
        "status": "IN_PROGRESS",
        "currentIndex": 1,
        "answeredCount": 1,
        "totalQuestions": 2,
    }


async def test_changes_on_another_node_arrive_without_a_gap(
    node: NodeProcess, other_node: NodeProcess, coze: httpx.AsyncClient, interview: dict[str, Any]
) -> None:
    watcher = await watch(other_node, interview["id"], **GOOD)
    await watcher.sees("welcome")
    calls = (change(coze, interview, answers=[answered(n)]) for n in range(20))
    await asyncio.gather(*calls)
    await watcher.reaches(21)
    assert watcher.seqs == list(range(2, 22))


async def test_who_resumes_is_sent_what_it_missed(
    node: NodeProcess, coze: httpx.AsyncClient, interview: dict[str, Any]
) -> None:
    for index in (1, 2):
        shown(await change(coze, interview, currentIndex=index))
    everything = await watch(node, interview["id"], since=0, **GOOD)
    await everything.reaches(3)
    assert [e["type"] for e in everything.history] == [
        "interview_created",
        "interview_updated",
        "interview_updated",
    ]
    last = await watch(node, interview["id"], since=2, **GOOD)
    await last.reaches(3)
    assert (last.welcome["resumed"], last.welcome["seq"], last.seqs) == (True, 2, [3])


async def test_a_late_watcher_is_shown_all_members_without_what_was_said(
    node: NodeProcess, coze: httpx.AsyncClient, interview: dict[str, Any]
) -> None:
    """The feed is open already and has only seen events, which do not tell all members."""
    first = await watch(node, interview["id"], **GOOD)
    await first.sees("welcome")
    said = {**answered(0, "what was said"), "timestamp": "2026-03-01T10:05:00.000Z"}
    highlight = {"question": "q", "answer": "what was said", "comment": "好"}
    outline = [{"id": "new", "question": "新题目"}]
    shown(
        await change(
            coze, interview, answers=[said], outline=outline, highlights=[highlight],
            dimensions=[{"name": "n", "score": 1}], totalScore=1, grade="C",
        )
    )  # fmt: skip
    await first.reaches(2)
    late = await watch(node, interview["id"], **GOOD)
    record = (await late.sees("welcome"))["interview"]
    assert record == {
        **await read(coze, interview),
        "answers": [{"questionIndex": 0, "timestamp": said["timestamp"]}],
        "highlights": [{"question": "q", "comment": "好"}],
    }
    await first.says(type="sync", since=99)
    again = await first.sees("welcome")
    assert (again["seq"], again["interview"]) == (2, record)


async def test_watchers_that_come_during_changes_lose_and_double_nothing(
    node: NodeProcess, other_node: NodeProcess, coze: httpx.AsyncClient, interview: dict[str, Any]
) -> None:
    async def change_often() -> None:
        for number in range(30):
            shown(await change(coze, interview, suggestions=f"version {number}"))

    changing = asyncio.create_task(change_often())
    watchers: list[InterviewWatcher] = []
    while not changing.done():
        watchers.append(await watch((node, other_node)[len(watchers) % 2], interview["id"], **GOOD))
    await changing
    for watcher in watchers:
        await watcher.reaches(31)
        start = watcher.welcome["seq"]
        assert watcher.seqs == list(range(start + 1, 32))
        version = f"version {start - 2}" if start > 1 else None
        assert watcher.welcome["interview"].get("suggestions") == version


@pytest.mark.parametrize("by", ["subprotocol", "frame"])
async def test_a_key_may_come_as_subprotocol_or_first_frame(
    node: NodeProcess, coze: httpx.AsyncClient, interview: dict[str, Any], by: str
) -> None:
    key = KEY["X-API-Key"]
    if by == "subprotocol":
        watcher = await watch(node, interview["id"], protocols=("room.v1", f"key.{key}"))
        assert watcher.socket.subprotocol == "room.v1"
    else:
        watcher = await watch(node, interview["id"])
        await watcher.says(type="auth", key=key)
    assert (await watcher.sees("welcome"))["self"] == {"name": "coze", "role": "observer"}


@pytest.mark.parametrize("by", ["header", "subprotocol", "frame"])
async def test_an_admin_may_watch(
    node: NodeProcess, coze: httpx.AsyncClient, interview: dict[str, Any], database: Database,
    by: str,
) -> None:  # fmt: skip
    token = await staff_token(database, "admin")
    if by == "header":
        watcher = await watch(
            node, interview["id"], Authorization=f"Bearer {token}", X_API_Key=""
        )
    elif by == "subprotocol":
        watcher = await watch(node, interview["id"], protocols=("room.v1", f"bearer.{token}"))
    else:
        watcher = await watch(node, interview["id"])
        await watcher.says(type="auth", token=token)
    welcome = await watcher.sees("welcome")
    assert welcome["self"]["role"] == "observer"
    assert welcome["tokenExpiresAt"] == "2038-01-19T03:14:08.000Z"


async def test_staff_who_are_no_admins_may_not_watch(
    node: NodeProcess, coze: httpx.AsyncClient, interview: dict[str, Any], database: Database
) -> None:
    token = await staff_token(database, "hr")
    watcher = await watch(node, interview["id"], Authorization=f"Bearer {token}")
    assert await watcher.is_put_out() == 4003


async def test_a_key_that_is_offered_alone_is_told_what_is_missing(
    node: NodeProcess, coze: httpx.AsyncClient, interview: dict[str, Any]
) -> None:
    watcher = await watch(node, interview["id"], protocols=("key.whatever",))
    assert await watcher.is_put_out() == 4001
    assert watcher.socket.subprotocol == "key.whatever"


async def test_a_reading_key_may_watch(
    node: NodeProcess, coze: httpx.AsyncClient, interview: dict[str, Any]
) -> None:
    watcher = await watch(node, interview["id"], X_API_Key="read-only-key-of-the-tests")
    await watcher.sees("welcome")


@pytest.mark.parametrize("identity", ["unknown", "%00", "{{id}}"])
async def test_no_such_interview_is_4004(
    node: NodeProcess, coze: httpx.AsyncClient, identity: str
) -> None:
    assert await (await watch(node, identity, **GOOD)).is_put_out() == 4004


async def test_another_tenants_interview_is_4004(
    node: NodeProcess, coze: httpx.AsyncClient, interview: dict[str, Any]
) -> None:
    watcher = await watch(node, interview["id"], X_API_Key="tenant-key-of-the-tests")
    assert await watcher.is_put_out() == 4004


@pytest.mark.parametrize("headers", [{"X_API_Key": "wrong"}, {"Authorization": "Bearer wrong"}])
async def test_a_wrong_key_or_token_is_4301(
    node: NodeProcess, coze: httpx.AsyncClient, interview: dict[str, Any], headers: dict[str, Any]
) -> None:
    assert await (await watch(node, interview["id"], **headers)).is_put_out() == 4301


async def test_a_guest_of_a_room_may_not_watch(
    node: NodeProcess, coze: httpx.AsyncClient, interview: dict[str, Any]
) -> None:
    claims = {"room": "room_1", "guest": "guest_1", "exp": 2**31}
    token = jwt.encode(claims, JWT_SECRET, algorithm="HS256")
    watcher = await watch(node, interview["id"], Authorization=f"Bearer {token}")
    assert await watcher.is_put_out() == 4003


async def test_a_watcher_has_no_presence(
    node: NodeProcess, coze: httpx.AsyncClient, interview: dict[str, Any]
) -> None:
    watcher = await watch(node, interview["id"], **GOOD)
    await watcher.sees("welcome")
    await watcher.says(type="away")
    await watcher.sees("error")
    assert (await watcher.hears_pong())["seq"] == 1
    await watcher.says(type="leave")
    assert await watcher.is_put_out() == 1000
    assert (await read(coze, interview)) == interview


async def test_without_an_upgrade_it_says_so(coze: httpx.AsyncClient) -> None:
    response = await coze.get("/api/open/interviews/x/live")
    assert (response.status_code, response.json()["code"]) == (400, "INVALID_PARAMS")

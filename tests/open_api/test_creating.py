"""Creating interviews: defaults, refusals, and calls that come again."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import httpx
import pytest
from litestar import Litestar

from coordinator.store.database import Database
from tests.open_api import (
    INTERVIEWS,
    JOB_ID,
    OTHER_KEY,
    answered,
    change,
    create,
    question,
    refused,
    shown,
)
from tests.open_api.server import Published, calling


async def test_a_new_interview_has_its_defaults(coze: httpx.AsyncClient, user: str) -> None:
    created = shown(await coze.post(INTERVIEWS, json={"userId": user, "jobId": JOB_ID}))
    assert created.pop("createdAt") == created.pop("updatedAt")
    assert len(created.pop("id")) == 25
    assert created == {
        "userId": user,
        "jobId": JOB_ID,
        "status": "IN_PROGRESS",
        "outline": [],
        "currentIndex": 0,
        "answers": [],
        "job": {
            "id": JOB_ID,
            "title": "前端开发工程师",
            "enterprise": {"id": "ent_xxx", "name": "武汉光谷科技有限公司"},
        },
    }


async def test_absent_members_may_come_as_empty_texts(coze: httpx.AsyncClient, user: str) -> None:
    """Coze's engine fills in zero values."""
    blank = {"status": "", "outline": "", "currentIndex": "", "answers": "", "resumeId": ""}
    created = await create(coze, user, **blank)
    assert (created["currentIndex"], created["outline"], created["answers"]) == (0, [], [])
    assert "resumeId" not in created


@pytest.mark.parametrize(
    ("members", "status", "told"),
    [
        ({"userId": ""}, 400, "userId"),
        ({"userId": "  "}, 400, "userId"),
        ({"userId": 5}, 400, "userId"),
        ({"userId": "u" * 256}, 400, "userId"),
        ({"userId": "{{sys_uuid}}"}, 400, "模板"),
        ({"jobId": "{{job_id}}"}, 400, "模板"),
        ({"jobId": None}, 400, "jobId"),
        ({"jobId": "unknown"}, 404, "岗位"),
        ({"jobId": "j" * 5000}, 404, "岗位"),
        ({"status": "COMPLETED"}, 400, "status"),
        ({"status": "DONE"}, 400, "status"),
        ({"outline": [question(1), question(1)]}, 400, "outline[1].id"),
        ({"outline": [{"id": "q1"}]}, 400, "outline[0].question"),
        ({"outline": ["q1"]}, 400, "outline"),
        ({"currentIndex": 3}, 400, "currentIndex"),
        ({"currentIndex": -1}, 400, "currentIndex"),
        ({"currentIndex": 1.5}, 400, "currentIndex"),
        ({"currentIndex": True}, 400, "currentIndex"),
        ({"currentIndex": "NaN"}, 400, "currentIndex"),
        ({"currentIndex": "Infinity"}, 400, "currentIndex"),
        ({"currentIndex": "{{index}}"}, 400, "模板"),
        ({"currentIndex": 10**400}, 400, "数值"),
        ({"answers": [{"answer": "…"}]}, 400, "answers[0].questionIndex"),
        ({"answers": [{"questionIndex": -1, "answer": "…"}]}, 400, "answers[0].questionIndex"),
        ({"answers": [{"questionIndex": 0, "answer": "\x00"}]}, 400, "NUL"),
    ],
)
async def test_what_is_wrong_is_refused_and_named(
    coze: httpx.AsyncClient, user: str, members: dict[str, Any], status: int, told: str
) -> None:
    body = {"userId": user, "jobId": JOB_ID, "outline": [question(1), question(2)], **members}
    response = await coze.post(INTERVIEWS, json=body)
    code = "NOT_FOUND" if status == 404 else "INVALID_PARAMS"
    assert told in refused(response, status, code)
    assert shown(await coze.get(INTERVIEWS, params={"userId": user}))["total"] == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"   ",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b'{"userId": "u", "jobId": "j", "answers": [{"answer": "he said "hi""}]}',
        b'{"userId": "two\nlines"}',
        b'{"userId": "u", "currentIndex": NaN}',
        b'{"userId": "u", "currentIndex": 1e400}',
        b'{"userId": "u", "currentIndex": ' + b"9" * 5000 + b"}",
        b'{"userId": "\\ud800"}',
        b'{"userId": "\\u0000"}',
        b'{"userId": "u", "jobId": "j", "a\\u0000b": 1}',
        b'{"userId": "\xff"}',
        b'{"userId": {{user_id}}}',
        b"[" * 100_000,
        b'{"a":' * 900 + b"1" + b"}" * 900,
    ],
)
async def test_bodies_that_are_no_good_json_are_400(coze: httpx.AsyncClient, raw: bytes) -> None:
    interview = await create(coze, secrets.token_hex(8))
    refused(await coze.post(INTERVIEWS, content=raw), 400, "INVALID_PARAMS")
    for method in ("PATCH", "POST"):
        response = await coze.request(method, f"{INTERVIEWS}/{interview['id']}", content=raw)
        refused(response, 400, "INVALID_PARAMS")


async def test_the_same_call_again_gives_the_same_record(
    coze: httpx.AsyncClient, user: str, published: Published
) -> None:
    """Coze retries without an idempotency key."""
    first = await create(coze, user)
    assert await create(coze, user) == first
    assert len(published.of(first)) == 1


@pytest.mark.parametrize(
    "members",
    [{"outline": [question(1)]}, {"jobId": "cmm6neue0000f2i9w9bhkc4bk"}, {"userId": "another"}],
)
async def test_another_call_makes_another_record(
    coze: httpx.AsyncClient, user: str, members: dict[str, Any]
) -> None:
    first = await create(coze, user)
    second = await create(coze, members.pop("userId", "") + user, **members)
    assert second["id"] != first["id"]


async def test_another_key_makes_another_record(
    app: Litestar, coze: httpx.AsyncClient, user: str
) -> None:
    first = await create(coze, user)
    async with calling(app, OTHER_KEY) as other:
        assert (await create(other, user))["id"] != first["id"]


async def test_a_record_with_answers_is_not_given_out_again(
    coze: httpx.AsyncClient, user: str
) -> None:
    first = await create(coze, user)
    shown(await change(coze, first, answers=[answered(0)]))
    assert (await create(coze, user))["id"] != first["id"]


async def test_a_record_that_is_over_is_not_given_out_again(
    coze: httpx.AsyncClient, user: str
) -> None:
    first = await create(coze, user)
    shown(await change(coze, first, status="CANCELLED"))
    assert (await create(coze, user))["id"] != first["id"]


async def test_after_two_minutes_the_same_call_makes_another_record(
    coze: httpx.AsyncClient, database: Database, user: str
) -> None:
    first = await create(coze, user)
    await database.execute(
        "UPDATE interviews SET created_at = created_at - interval '121 seconds' WHERE id = $1",
        first["id"],
    )
    assert (await create(coze, user))["id"] != first["id"]


async def test_an_idempotency_key_holds_at_any_time(
    coze: httpx.AsyncClient, database: Database, user: str
) -> None:
    body = {"userId": user, "jobId": JOB_ID, "outline": [question(1)]}
    named = {"Idempotency-Key": f"run-{user}"}
    first = shown(await coze.post(INTERVIEWS, json=body, headers=named))
    shown(await change(coze, first, answers=[answered(0)]))
    await database.execute(
        "UPDATE interviews SET created_at = created_at - interval '1 day' WHERE id = $1",
        first["id"],
    )
    again = shown(await coze.post(INTERVIEWS, json=body, headers=named))
    assert again["id"] == first["id"]
    assert len(again["answers"]) == 1


async def test_an_idempotency_key_with_another_body_is_refused(
    coze: httpx.AsyncClient, user: str
) -> None:
    named = {"Idempotency-Key": f"run-{user}"}
    body = {"userId": user, "jobId": JOB_ID}
    shown(await coze.post(INTERVIEWS, json=body, headers=named))
    other = await coze.post(INTERVIEWS, json={**body, "resumeId": "r"}, headers=named)
    assert "Idempotency-Key" in refused(other, 400, "INVALID_PARAMS")


async def test_a_new_idempotency_key_makes_a_new_record(coze: httpx.AsyncClient, user: str) -> None:
    body = {"userId": user, "jobId": JOB_ID}
    made = [
        shown(await coze.post(INTERVIEWS, json=body, headers={"Idempotency-Key": name + user}))
        for name in ("a", "b")
    ]
    assert made[0]["id"] != made[1]["id"]


async def test_a_call_without_a_key_is_repeated_past_those_that_have_one(
    coze: httpx.AsyncClient, user: str
) -> None:
    """Equal calls that somebody has told apart do not come between a call and its retry."""
    body = {"userId": user, "jobId": JOB_ID}
    first = await create(coze, user)
    named = shown(await coze.post(INTERVIEWS, json=body, headers={"Idempotency-Key": "n" + user}))
    assert named["id"] != first["id"]
    assert (await create(coze, user))["id"] == first["id"]
    shown(await change(coze, named, status="COMPLETED"))
    assert (await create(coze, user))["id"] == first["id"]
    answers = [{"questionIndex": 0, "answer": "好"}]
    assert (await create(coze, user, answers=answers))["id"] != first["id"]
    assert (await create(coze, user))["id"] == first["id"]


async def test_an_idempotency_key_that_is_no_utf_8_is_refused(
    coze: httpx.AsyncClient, user: str
) -> None:
    """Read as a text it would be the same as others."""
    body = {"userId": user, "jobId": JOB_ID}
    for name in ("é".encode("latin-1"), b"\xff"):
        answer = await coze.post(INTERVIEWS, json=body, headers={b"Idempotency-Key": name})
        assert "Idempotency-Key" in refused(answer, 400, "INVALID_PARAMS")


async def test_an_idempotency_key_that_was_left_unfilled_is_refused(
    coze: httpx.AsyncClient, user: str
) -> None:
    """It would be the key of each call of that workflow: the user's first interview for ever."""
    answer = await coze.post(
        INTERVIEWS,
        json={"userId": user, "jobId": JOB_ID},
        headers={"Idempotency-Key": "{{execute_id}}"},
    )
    assert "Idempotency-Key，含有未填充的模板变量 {{execute_id}}" in refused(
        answer, 400, "INVALID_PARAMS"
    )


@pytest.mark.parametrize("named", [{}, {"Idempotency-Key": "at once"}])
async def test_equal_calls_at_once_make_one_record(
    coze: httpx.AsyncClient, user: str, named: dict[str, str]
) -> None:
    headers = {name: value + user for name, value in named.items()}
    body = {"userId": user, "jobId": JOB_ID, "outline": [question(1)]}
    responses = await asyncio.gather(
        *(coze.post(INTERVIEWS, json=body, headers=headers) for _ in range(10))
    )
    assert len({shown(response)["id"] for response in responses}) == 1

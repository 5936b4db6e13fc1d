"""Changing interviews: answers merge, a refused call changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.open_api import (
    INTERVIEWS,
    answered,
    change,
    create,
    read,
    refused,
    shown,
)
from tests.open_api.server import REPORT, Published


async def test_answers_merge_by_question_and_others_stay(
    coze: httpx.AsyncClient, user: str
) -> None:
    interview = await create(coze, user)
    shown(await change(coze, interview, answers=[answered(3), answered(0, "first")]))
    changed = shown(await change(coze, interview, answers=[answered(0, "second")]))
    assert [(a["questionIndex"], a["answer"]) for a in changed["answers"]] == [
        (0, "second"),
        (3, "我是..."),
    ]


async def test_thirty_answers_at_once_all_stay(
    coze: httpx.AsyncClient, user: str, published: Published
) -> None:
    interview = await create(coze, user)
    calls = (change(coze, interview, answers=[answered(n, f"answer {n}")]) for n in range(30))
    for response in await asyncio.gather(*calls):
        shown(response)
    answers = (await read(coze, interview))["answers"]
    assert [a["answer"] for a in answers] == [f"answer {n}" for n in range(30)]
    assert sorted(event["seq"] for event in published.of(interview)) == list(range(1, 32))


async def test_a_change_answers_with_the_whole_record_and_moves_its_time_on(
    coze: httpx.AsyncClient, user: str
) -> None:
    interview = await create(coze, user)
    changed = shown(await change(coze, interview, currentIndex=1))
    assert changed["updatedAt"] > interview["updatedAt"]
    assert changed == {**interview, "currentIndex": 1, "updatedAt": changed["updatedAt"]}
    assert await read(coze, interview) == changed


async def test_post_changes_like_patch(coze: httpx.AsyncClient, user: str) -> None:
    interview = await create(coze, user)
    response = await coze.post(f"{INTERVIEWS}/{interview['id']}", json={"currentIndex": 2})
    assert shown(response)["currentIndex"] == 2


async def test_a_change_that_says_nothing_changes_nothing(
    coze: httpx.AsyncClient, user: str, published: Published
) -> None:
    interview = await create(coze, user)
    zero_values = {
        "status": "", "grade": "", "recommendation": "", "suggestions": "", "totalScore": "",
        "outline": [], "dimensions": [], "highlights": [], "improvements": [], "currentIndex": "",
    }  # fmt: skip
    no_answers: dict[str, list[Any]] = {"answers": []}
    for members in ({}, {"unknown": 1}, zero_values, no_answers, {**zero_values, **no_answers}):
        assert shown(await change(coze, interview, **members)) == interview
    assert len(published.of(interview)) == 1


async def test_numbers_may_come_as_texts_and_stay_numbers(
    coze: httpx.AsyncClient, user: str
) -> None:
    interview = await create(coze, user)
    changed = shown(
        await change(
            coze,
            interview,
            currentIndex="1",
            totalScore="72.5",
            answers=[{"questionIndex": "0", "question": "", "answer": "1"}],
            dimensions=[{"name": "n", "score": "8", "maxScore": " 10 "}],
        )
    )
    assert (changed["currentIndex"], changed["totalScore"]) == (1, 72.5)
    assert changed["answers"] == [{"questionIndex": 0, "question": "", "answer": "1"}]
    assert changed["dimensions"] == [{"name": "n", "score": 8, "maxScore": 10}]


async def test_unknown_members_of_list_items_are_kept_and_others_dropped(
    coze: httpx.AsyncClient, user: str
) -> None:
    interview = await create(coze, user)
    item = {**answered(0), "feedback": {"score": 8.5, "tags": ["好", None]}, "timestamp": "昨天"}
    changed = shown(await change(coze, interview, answers=[item], strange="x"))
    assert changed["answers"] == [item]
    assert "strange" not in changed


async def test_texts_come_back_as_they_were_sent(coze: httpx.AsyncClient, user: str) -> None:
    interview = await create(coze, user)
    text = "  第一行\r\n\t第二行\x01 \U0001f600 \u202e e\u0301 {{x}} </script> "
    changed = shown(await change(coze, interview, answers=[answered(0, text)]))
    assert changed["answers"][0]["answer"] == text


async def test_a_refused_change_leaves_nothing_behind(
    coze: httpx.AsyncClient, user: str, published: Published
) -> None:
    interview = await create(coze, user)
    response = await change(
        coze,
        interview,
        answers=[answered(0)],
        totalScore=90,
        dimensions=[{"name": "n", "score": 51, "maxScore": 50}],
    )
    assert "dimensions[0].score" in refused(response, 400, "INVALID_PARAMS")
    assert await read(coze, interview) == interview
    assert len(published.of(interview)) == 1


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"currentIndex": 3}, "currentIndex"),
        ({"status": "STARTED"}, "status"),
        ({"grade": "D"}, "grade，只能是 A、B、C"),
        ({"recommendation": "maybe"}, "recommendation，只能是 不通过、待定、通过"),
        ({"totalScore": -1}, "totalScore"),
        ({"totalScore": "Infinity"}, "totalScore"),
        ({"totalScore": "1e400"}, "totalScore"),
        ({"totalScore": [1]}, "totalScore"),
        ({"dimensions": [{"name": "", "score": 1, "maxScore": 2}]}, "dimensions[0].name"),
        ({"dimensions": [{"name": "n", "score": "NaN", "maxScore": 2}]}, "dimensions[0].score"),
        ({"dimensions": [{"name": "n", "score": "", "maxScore": 2}]}, "dimensions[0].score"),
        ({"dimensions": {"name": "n"}}, "dimensions"),
        ({"highlights": [{"score": -1}]}, "highlights[0].score"),
        ({"highlights": [{"comment": 5}]}, "highlights[0].comment"),
        ({"improvements": ["text"]}, "improvements"),
        ({"suggestions": ["text"]}, "suggestions"),
        ({"answers": "text"}, "answers"),
        ({"answers": [{"questionIndex": "first", "answer": ""}]}, "answers[0].questionIndex"),
        ({"answers": [{**answered(0), "x": "\x00"}]}, "NUL"),
    ],
)
async def test_a_wrong_change_is_refused_and_named(
    coze: httpx.AsyncClient, user: str, members: dict[str, Any], told: str
) -> None:
    interview = await create(coze, user)
    assert told in refused(await change(coze, interview, **members), 400, "INVALID_PARAMS")


async def test_a_final_status_stays(coze: httpx.AsyncClient, user: str) -> None:
    interview = await create(coze, user)
    shown(await change(coze, interview, **REPORT))
    for status in ("IN_PROGRESS", "CANCELLED"):
        refused(await change(coze, interview, status=status), 400, "INVALID_PARAMS")
    again = shown(await change(coze, interview, **{**REPORT, "totalScore": 80}))
    assert (again["status"], again["totalScore"]) == ("COMPLETED", 80)


@pytest.mark.parametrize(
    ("identity", "status", "code"),
    [
        ("unknown", 404, "NOT_FOUND"),
        ("{interview_id}", 404, "NOT_FOUND"),
        ("a%00b", 404, "NOT_FOUND"),
        ("%ff", 404, "NOT_FOUND"),
        ("x" * 5000, 404, "NOT_FOUND"),
        ("{{interview_id}}", 400, "INVALID_PARAMS"),
        ("%7B%7Binterview_id%7D%7D", 400, "INVALID_PARAMS"),
    ],
)
async def test_ids_of_no_record(
    coze: httpx.AsyncClient, identity: str, status: int, code: str
) -> None:
    for path in (f"{INTERVIEWS}/{identity}", f"{INTERVIEWS}/{identity}/report",
                 f"/api/open/jobs/{identity}"):  # fmt: skip
        refused(await coze.get(path), status, code)
    refused(await coze.patch(f"{INTERVIEWS}/{identity}", json={}), status, code)

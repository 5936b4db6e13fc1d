"""Lists, reports, the log, and whatever comes."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.store.database import Database
from coordinator.store.interviews import StoredInterviews
from tests.open_api import (
    INTERVIEWS,
    JOB_ID,
    answered,
    change,
    create,
    question,
    read,
    refused,
    shown,
)
from tests.open_api.server import REPORT, Published


async def test_lists_are_newest_first_and_filtered(coze: httpx.AsyncClient, user: str) -> None:
    made = [await create(coze, user, outline=[question(n)]) for n in range(5)]
    shown(await change(coze, made[1], **REPORT))
    query = {"userId": user, "pageSize": "2"}
    pages = [
        shown(await coze.get(INTERVIEWS, params={**query, "page": page})) for page in (1, 2, 3, 4)
    ]
    assert [{k: page[k] for k in ("total", "page", "pageSize")} for page in pages] == [
        {"total": 5, "page": n, "pageSize": 2} for n in (1, 2, 3, 4)
    ]
    listed = [row["id"] for page in pages for row in page["list"]]
    assert listed == [interview["id"] for interview in reversed(made)]
    done = shown(await coze.get(INTERVIEWS, params={"userId": user, "status": "COMPLETED"}))
    assert done["list"] == [
        {
            "id": made[1]["id"],
            "userId": user,
            "jobId": JOB_ID,
            "status": "COMPLETED",
            "currentIndex": 0,
            "answeredCount": 0,
            "totalQuestions": 1,
            "totalScore": 72,
            "grade": "B",
            "recommendation": "待定",
            "job": made[1]["job"],
            "createdAt": made[1]["createdAt"],
            "updatedAt": done["list"][0]["updatedAt"],
        }
    ]
    other = {"userId": user, "jobId": "cmm6neue0000f2i9w9bhkc4bk"}
    assert shown(await coze.get(INTERVIEWS, params=other)) == {
        "total": 0, "page": 1, "pageSize": 10, "list": [],
    }  # fmt: skip


async def test_a_list_reads_no_more_than_it_shows(
    coze: httpx.AsyncClient, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of half a megabyte each: what their list reads of Postgres is a few hundred bytes."""
    texts = [answered(n, "x" * 60_000) for n in range(8)]
    for _ in range(3):
        made = await create(coze, user)
        shown(await change(coze, made, answers=texts, suggestions="长" * 20_000))
    sizes: list[int] = []
    fetch = asyncpg.Connection.fetch

    async def weighed(self: Any, sql: str, *values: Any, **more: Any) -> list[Any]:
        rows: list[Any] = await fetch(self, sql, *values, **more)
        sizes.extend(len(repr(tuple(row.values()))) for row in rows)
        return rows

    monkeypatch.setattr(asyncpg.Connection, "fetch", weighed)

    assert shown(await coze.get(INTERVIEWS, params={"userId": user}))["total"] == 3
    assert len(sizes) >= 3
    assert max(sizes) < 2000


async def test_an_id_with_blanks_at_its_ends_is_found_as_it_is(
    coze: httpx.AsyncClient, user: str
) -> None:
    """It is opaque, and kept as it came."""
    made = await create(coze, f" {user}\t")

    found = shown(await coze.get(INTERVIEWS, params={"userId": f" {user}\t"}))

    assert [row["id"] for row in found["list"]] == [made["id"]]
    assert shown(await coze.get(INTERVIEWS, params={"userId": user}))["total"] == 0


@pytest.mark.parametrize(
    "query",
    ["page=0", "page=-1", "page=abc", "page=1.0", "page=" + "9" * 30, "pageSize=0",
     "pageSize=101", "page=%00", "page=１"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/open/jobs", INTERVIEWS])
async def test_a_wrong_page_is_400(coze: httpx.AsyncClient, path: str, query: str) -> None:
    refused(await coze.get(f"{path}?{query}"), 400, "INVALID_PARAMS")


@pytest.mark.parametrize(
    "query", ["status=DONE", "userId=%00", "jobId=%00", "userId={{sys_uuid}}", "jobId={{job_id}}"]
)
async def test_a_wrong_filter_is_400(coze: httpx.AsyncClient, query: str) -> None:
    refused(await coze.get(f"{INTERVIEWS}?{query}"), 400, "INVALID_PARAMS")


async def test_there_is_no_report_until_one_is_stored(coze: httpx.AsyncClient, user: str) -> None:
    interview = await create(coze, user)
    path = f"{INTERVIEWS}/{interview['id']}/report"
    refused(await coze.get(path), 400, "INVALID_PARAMS")
    shown(await change(coze, interview, grade="A"))
    refused(await coze.get(path), 400, "INVALID_PARAMS")
    shown(await change(coze, interview, **REPORT))
    report = shown(await coze.get(path))
    assert report.keys() == {"reportMarkdown", "reportJson", "grade", "recommendation"}
    assert (report["grade"], report["recommendation"]) == ("B", "待定")
    assert json.loads(report["reportJson"])["totalScore"] == 72
    assert "| 专业知识 | 38 | 50 | 76% |" in report["reportMarkdown"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/open/unknown", 404, "NOT_FOUND"),
        ("DELETE", INTERVIEWS, 405, "METHOD_NOT_ALLOWED"),
        ("PUT", f"{INTERVIEWS}/x", 405, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_what_the_framework_refuses_has_the_same_shape(
    coze: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    refused(await coze.request(method, path), status, code)


@pytest.mark.parametrize("path", [f"/api/open/jobs/{JOB_ID}/", f"{INTERVIEWS}/"])
async def test_a_trailing_slash_is_served_and_not_redirected(
    coze: httpx.AsyncClient, path: str
) -> None:
    shown(await coze.get(path))


# -- the log ------------------------------------------------------------------------------------


async def test_each_change_is_one_event_in_the_log_and_on_the_bus(
    coze: httpx.AsyncClient, database: Database, user: str, published: Published
) -> None:
    interview = await create(coze, user)
    changed = shown(await change(coze, interview, answers=[answered(0, "secret")], currentIndex=1))
    done = shown(await change(coze, interview, **REPORT))
    common = {"interviewId": interview["id"], "totalQuestions": 2}
    expected = [
        {"type": "interview_created", "seq": 1, "at": interview["createdAt"], **common,
         "status": "IN_PROGRESS", "currentIndex": 0, "answeredCount": 0},
        {"type": "interview_updated", "seq": 2, "at": changed["updatedAt"], **common,
         "status": "IN_PROGRESS", "currentIndex": 1, "answeredCount": 1},
        {"type": "interview_updated", "seq": 3, "at": done["updatedAt"], **common,
         "status": "COMPLETED", "currentIndex": 1, "answeredCount": 1, "totalScore": 72,
         "grade": "B"},
    ]  # fmt: skip
    assert published.of(interview) == expected
    stored = StoredInterviews(database)
    assert [e.body() for e in await stored.events_after(interview["id"], 0, 10)] == expected
    assert [e.seq for e in await stored.events_after(interview["id"], 1, 1)] == [2]


async def test_the_source_of_a_feed_tells_its_state_without_what_was_said(
    coze: httpx.AsyncClient, database: Database, user: str
) -> None:
    interview = await create(coze, user)
    await change(coze, interview, answers=[answered(0, "secret")], **REPORT)
    stored = StoredInterviews(database)
    loaded = await stored.load(interview["id"])
    assert loaded is not None
    head, state = loaded
    watched = state.snapshot()["interview"]
    assert (head.seq, watched["answers"]) == (2, [{"questionIndex": 0}])
    assert watched["highlights"] == [{"question": "题目1", "score": 8, "comment": "回答很完整"}]
    assert watched["status"] == "COMPLETED"
    assert await stored.load("unknown") is None
    assert (await stored.head(interview["id"]), await stored.head("unknown")) == (2, None)
    assert await stored.moved([(interview["id"], head)]) == []


# -- whatever comes -----------------------------------------------------------------------------

WHATEVER = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["", "1", "NaN", "{{x}}", "\x00", "1e999", 10**400, -1, 2**63]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["id", "questionIndex", "score", "name", "x"]), inner),
    max_leaves=6,
)  # fmt: skip
ITEMS = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from(["q1", "q2"]) | WHATEVER},
        optional=dict.fromkeys(
            ("question", "questionIndex", "answer", "name", "score", "maxScore"), WHATEVER
        ),
    ),
    max_size=3,
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "userId": st.just("fuzz") | WHATEVER,
        "jobId": st.just(JOB_ID) | WHATEVER,
        "status": st.sampled_from(["IN_PROGRESS", "COMPLETED", "CANCELLED"]) | WHATEVER,
        **dict.fromkeys(
            ("outline", "answers", "dimensions", "highlights", "improvements"), ITEMS | WHATEVER
        ),
        **{
            name: st.integers(-1, 5) | WHATEVER
            for name in ("currentIndex", "totalScore", "suggestions", "grade", "recommendation")
        },
    },
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(body=BODIES | WHATEVER | st.binary(max_size=40), identity=st.text(max_size=12))
async def test_no_body_and_no_id_is_a_500(
    coze: httpx.AsyncClient, body: Any, identity: str
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    known = await create(coze, "fuzzed")
    path = quote(identity.encode("utf-8", "replace"), safe="") or "x"
    responses = [
        await coze.post(INTERVIEWS, content=raw),
        await coze.patch(f"{INTERVIEWS}/{known['id']}", content=raw),
        await coze.patch(f"{INTERVIEWS}/{path}", content=raw),
        await coze.get(f"{INTERVIEWS}/{path}"),
        await coze.get(f"/api/open/jobs/{path}"),
        await coze.get(f"{INTERVIEWS}/{known['id']}/report"),
        await coze.get(INTERVIEWS, params={"userId": identity, "page": identity}),
    ]
    for response in responses:
        assert response.status_code in (200, 400, 404, 405), (raw, response.text)
        told = response.json()
        assert told["success"] is (response.status_code == 200)
        assert response.status_code == 200 or told.keys() == {"success", "error", "code"}
    await read(coze, known)

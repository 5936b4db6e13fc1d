"""The open API on real Postgres: what callers see, and what they may not do."""

from __future__ import annotations

import asyncio
import gc
import json
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar.datastructures import State

from coordinator.cli.job_file import ImportRefused, import_jobs
from coordinator.domain.errors import InvalidParams
from coordinator.domain.events import Event
from coordinator.redis import fail_fast_redis
from coordinator.services.access import Access
from coordinator.services.api_keys import ApiKeys
from coordinator.services.interviews import Interviews
from coordinator.settings import ApiKey, Settings
from coordinator.standins.seed import seed
from coordinator.store.database import Database
from coordinator.store.interviews import Interviews as StoredInterviews
from coordinator.store.jobs import Jobs
from coordinator.store.people import People
from coordinator.web import open_api
from coordinator.web.coze_body import read_tolerantly
from coordinator.web.dependencies import injected
from coordinator.web.errors import EXCEPTION_HANDLERS
from coordinator.web.guards import GUARDED
from coordinator.web.limits import Limits
from coordinator.web.open_api_schema import ChangeInterviewBody
from tests.open_api import (
    INTERVIEWS,
    JOB_ID,
    KEY,
    KEYS,
    OTHER_KEY,
    READER,
    TENANT,
    answered,
    change,
    create,
    question,
    read,
    refused,
    shown,
)

SECRET = "s" * 32
REPORT: dict[str, Any] = {
    "status": "COMPLETED",
    "totalScore": 72,
    "dimensions": [
        {"name": "专业知识", "score": 38, "maxScore": 50},
        {"name": "表达能力", "score": 18, "maxScore": 25},
        {"name": "逻辑思维", "score": 16, "maxScore": 25},
    ],
    "highlights": [{"question": "题目1", "answer": "...", "score": 8, "comment": "回答很完整"}],
    "improvements": [{"area": "技术深度", "suggestion": "建议加强..."}],
    "suggestions": "整体建议：该候选人基础扎实，但需要加强...",
    "grade": "B",
    "recommendation": "待定",
}


def keys() -> tuple[ApiKey, ...]:
    environ = {
        "OPEN_API_KEYS": KEYS, "DATABASE_URL": "postgresql:///x", "REDIS_URL": "redis://x",
        "JWT_SECRET": "x" * 32,
    }  # fmt: skip
    return Settings.from_env(environ).open_api_keys


class Published(list[Event]):
    """What the service handed to the bus, in order."""

    def __call__(self, events: list[Event]) -> None:
        self.extend(events)

    def of(self, interview: dict[str, Any]) -> list[dict[str, Any]]:
        return [event.body() for event in self if event.feed.id == interview["id"]]


@pytest_asyncio.fixture(scope="session")
async def published() -> Published:
    return Published()


def app_with(
    database: Database,
    redis_url: str,
    publish: Any,
    *,
    rate: str = "",
    key_rate: str = "",
    api_keys: Any = None,
) -> Litestar:
    """The open API alone, as a node serves it."""
    jobs = Jobs(database)
    rates = {"open": rate, "key": key_rate}
    limits = Limits(rates, fail_fast_redis(redis_url), secrets.token_hex(4), (), nodes=lambda: 1)
    people = People(database)
    services = {
        "base_url": "https://interviews.example.com",
        "interviews": Interviews(StoredInterviews(database), jobs, publish),
        "jobs": jobs,
        "api_keys": ApiKeys(keys() if api_keys is None else api_keys),
        "limits": limits,
        "people": people,
        "access": Access((SECRET,), people),
    }
    return Litestar(
        open_api.HANDLERS,
        dependencies=injected(services) | GUARDED,
        state=State(services),
        exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=None,
    )


def calling(app: Litestar, headers: dict[str, str] = KEY) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(cast(Any, app)), base_url="http://node", headers=headers
    )


@pytest_asyncio.fixture(scope="session")
async def app(database: Database, redis_url: str, published: Published) -> Litestar:
    await seed(database)
    return app_with(database, redis_url, published)


@pytest_asyncio.fixture(scope="session")
async def coze(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """A caller with a key that sees everything."""
    async with calling(app) as client:
        yield client


@pytest.fixture
def user() -> str:
    """A candidate that no other test has: base64, as Coze's sys_uuid is."""
    return secrets.token_hex(8) + "/+=="


# -- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "", "wrong", "wehan_open_api_key_202", "密钥"])
async def test_without_a_good_key_nothing_is_told(app: Litestar, key: str | None) -> None:
    headers = [] if key is None else [(b"X-API-Key", key.encode())]
    async with calling(app, {}) as client:
        response = await client.get(f"/api/open/jobs/{JOB_ID}", headers=headers)
    refused(response, 401, "UNAUTHORIZED")


async def test_keys_that_are_tried_out_are_limited_by_address(
    database: Database, redis_url: str, published: Published
) -> None:
    guarded = app_with(database, redis_url, published, key_rate="3/minute")
    async with calling(guarded, {}) as client:
        for n in range(3):
            response = await client.get("/api/open/jobs", headers={"X-API-Key": f"guess-{n}"})
            refused(response, 401, "UNAUTHORIZED")
        refused(await client.get("/api/open/jobs"), 429, "RATE_LIMITED")
        shown(await client.get("/api/open/jobs", headers=KEY))


async def test_an_admins_token_reads_what_all_tenants_have_and_writes_nothing(
    app: Litestar, coze: httpx.AsyncClient, database: Database, user: str
) -> None:
    interview = await create(coze, user)
    people = People(database)
    bearer = {}
    for role in ("hr", "admin"):
        staff = await people.add(f"{role}-{user}", None, role)
        bearer[role] = {"Authorization": f"Bearer {Access((SECRET,), people).issue_staff(staff)}"}
    path = f"{INTERVIEWS}/{interview['id']}"
    async with calling(app, bearer["admin"]) as admin:
        assert await read(admin, interview) == interview
        assert shown(await admin.get(INTERVIEWS, params={"userId": user}))["total"] == 1
        shown(await admin.get(f"/api/open/jobs/{JOB_ID}"))
        refused(await admin.patch(path, json={"currentIndex": 1}), 401, "UNAUTHORIZED")
        refused(await admin.get(path, headers={"X-API-Key": "wrong"}), 401, "UNAUTHORIZED")
    async with calling(app, bearer["hr"]) as hr:
        refused(await hr.get(path), 403, "FORBIDDEN")
    async with calling(app, {"Authorization": "Bearer nonsense"}) as stranger:
        refused(await stranger.get(path), 401, "UNAUTHORIZED")


async def test_two_keys_are_good_at_once(app: Litestar) -> None:
    for headers in (KEY, OTHER_KEY):
        async with calling(app, headers) as client:
            shown(await client.get(f"/api/open/jobs/{JOB_ID}"))


async def test_without_any_key_set_the_open_api_is_not_served(
    database: Database, redis_url: str, published: Published
) -> None:
    closed = app_with(database, redis_url, published, api_keys=())
    async with calling(closed) as client:
        refused(await client.get(f"/api/open/jobs/{JOB_ID}"), 503, "SERVICE_UNAVAILABLE")


async def test_a_reading_key_does_not_write(
    app: Litestar, coze: httpx.AsyncClient, user: str
) -> None:
    interview = await create(coze, user)
    async with calling(app, READER) as reader:
        assert await read(reader, interview) == interview
        refused(await reader.post(INTERVIEWS, json={}), 403, "FORBIDDEN")
        refused(await change(reader, interview, currentIndex=1), 403, "FORBIDDEN")
    assert await read(coze, interview) == interview


async def test_a_tenant_sees_what_is_its_own(
    app: Litestar, coze: httpx.AsyncClient, database: Database, user: str, tmp_path: Path
) -> None:
    theirs = await create(coze, user)
    job = {"id": "tenant_job", "title": "测试", "enterprise": {"id": "ent_other", "name": "他司"}}
    (tmp_path / "jobs.json").write_text(json.dumps([job]))
    await import_jobs(database, tmp_path / "jobs.json", lambda done, total: None)
    async with calling(app, TENANT) as tenant:
        own = await create(tenant, user, jobId="tenant_job")
        assert await read(tenant, own) == own
        assert [j["id"] for j in shown(await tenant.get("/api/open/jobs"))["list"]] == [
            "tenant_job"
        ]
        assert shown(await tenant.get(INTERVIEWS))["total"] == 1
        refused(await tenant.get(f"/api/open/jobs/{JOB_ID}"), 404, "NOT_FOUND")
        refused(await tenant.get(f"{INTERVIEWS}/{theirs['id']}"), 404, "NOT_FOUND")
        refused(await tenant.get(f"{INTERVIEWS}/{theirs['id']}/report"), 404, "NOT_FOUND")
        refused(await change(tenant, theirs, currentIndex=1), 404, "NOT_FOUND")
        body = {"userId": user, "jobId": JOB_ID}
        refused(await tenant.post(INTERVIEWS, json=body), 404, "NOT_FOUND")
    assert await read(coze, theirs) == theirs


async def test_records_bear_the_names_of_keys_and_no_key(
    app: Litestar, coze: httpx.AsyncClient, database: Database, user: str
) -> None:
    interview = await create(coze, user)
    async with calling(app, OTHER_KEY) as other:
        shown(await change(other, interview, currentIndex=1))
    row = await database.fetchrow("SELECT * FROM interviews WHERE id = $1", interview["id"])
    assert (row["created_by"], row["updated_by"]) == ("coze", "coze-dev")
    assert row["external_user_id"] == user
    assert not [value for value in row.values() if "wehan" in str(value)]


@pytest.mark.usefixtures("app")  # which seeds the database
async def test_calls_are_limited_by_key(
    database: Database, redis_url: str, published: Published
) -> None:
    limited = app_with(database, redis_url, published, rate="2/minute")
    async with calling(limited) as client, calling(limited, OTHER_KEY) as other:
        for _ in range(2):
            shown(await client.get(f"/api/open/jobs/{JOB_ID}"))
        response = await client.get(f"/api/open/jobs/{JOB_ID}")
        refused(response, 429, "RATE_LIMITED")
        assert int(response.headers["Retry-After"]) > 0
        shown(await other.get(f"/api/open/jobs/{JOB_ID}"))


# -- creating -----------------------------------------------------------------------------------


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


async def test_an_interview_stays_with_the_enterprise_that_it_was_made_for(
    app: Litestar, database: Database, user: str, tmp_path: Path
) -> None:
    """A job with interviews moves nowhere; one without does."""
    path = tmp_path / "jobs.json"
    names = ("kept_job", "free_job")

    async def offered_by(enterprise: str, *ids: str) -> None:
        owner = {"id": enterprise, "name": enterprise}
        path.write_text(json.dumps([{"id": i, "title": "测试", "enterprise": owner} for i in ids]))
        await import_jobs(database, path, lambda *_: None)

    await offered_by("ent_other", *names)
    async with calling(app, TENANT) as tenant:
        own = await create(tenant, user, jobId="kept_job")
        with pytest.raises(ImportRefused, match=r"kept_job.*ent_other"):
            await offered_by("ent_thief", *names)
        shown(await tenant.get("/api/open/jobs/free_job"))
        await offered_by("ent_thief", "free_job")
        refused(await tenant.get("/api/open/jobs/free_job"), 404, "NOT_FOUND")
        assert await read(tenant, own) == own
        assert shown(await tenant.get(INTERVIEWS, params={"userId": user}))["total"] == 1


async def test_lists_know_what_a_node_of_the_version_before_has_written(
    app: Litestar, database: Database, coze: httpx.AsyncClient, user: str
) -> None:
    interview = await create(coze, user)
    shown(await change(coze, interview, **REPORT))
    await database.execute(
        """
        INSERT INTO interviews (id, external_user_id, job_id, status, outline, answers, report,
            created_by, updated_by, fingerprint, created_at, updated_at, last_seq)
        SELECT id || 'x', external_user_id, job_id, status, outline, answers, report, created_by,
            updated_by, fingerprint, created_at, updated_at, last_seq FROM interviews WHERE id = $1
        """,
        interview["id"],
    )
    theirs, ours = shown(await coze.get(INTERVIEWS, params={"userId": user}))["list"]
    assert theirs.pop("id") == ours.pop("id") + "x"
    assert theirs == ours
    assert (ours["totalScore"], ours["grade"], ours["totalQuestions"]) == (72, "B", 2)


async def test_a_body_over_a_mebibyte_is_413_and_one_below_is_taken(
    coze: httpx.AsyncClient, user: str
) -> None:
    interview = await create(coze, user)
    refused(await coze.post(INTERVIEWS, content=b" " * (1024 * 1024 + 1)), 413, "PAYLOAD_TOO_LARGE")
    texts = ["长" * 21_000 for _ in range(16)]
    changed = shown(
        await change(coze, interview, answers=[answered(i, text) for i, text in enumerate(texts)])
    )
    assert [item["answer"] for item in changed["answers"]] == texts


LARGEST_TEXT = 64 * 1024


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"suggestions": "x" * (LARGEST_TEXT + 1)}, "suggestions"),
        ({"suggestions": "长" * (LARGEST_TEXT // 3 + 1)}, "suggestions"),
        ({"answers": [answered(0, "x" * (LARGEST_TEXT + 1))]}, "answers"),
        ({"answers": [{**answered(0), "note": {"deep": "x" * (LARGEST_TEXT + 1)}}]}, "answers"),
        ({"outline": [question(n) for n in range(201)]}, "outline"),
        ({"answers": [answered(n) for n in range(201)]}, "answers"),
        ({"dimensions": [{"name": "x", "score": 1}] * 201}, "dimensions"),
        ({"highlights": [{"comment": "x"}] * 201}, "highlights"),
        ({"improvements": [{"area": "x", "all": [1] * 201}]}, "improvements"),
    ],
)
async def test_what_is_too_large_is_refused_by_name(
    coze: httpx.AsyncClient, user: str, members: dict[str, Any], named: str
) -> None:
    interview = await create(coze, user)
    assert named in refused(await change(coze, interview, **members), 400, "INVALID_PARAMS")
    assert await read(coze, interview) == interview


async def test_the_largest_text_and_list_are_taken(coze: httpx.AsyncClient, user: str) -> None:
    interview = await create(coze, user, outline=[question(n) for n in range(200)])
    text = "x" * LARGEST_TEXT
    changed = shown(await change(coze, interview, suggestions=text))
    assert (len(changed["outline"]), changed["suggestions"]) == (200, text)


async def test_answers_that_add_up_have_an_end(coze: httpx.AsyncClient, user: str) -> None:
    interview = await create(coze, user)
    shown(await change(coze, interview, answers=[answered(n) for n in range(200)]))
    shown(await change(coze, interview, answers=[answered(7, "anew")]))
    assert "answers" in refused(
        await change(coze, interview, answers=[answered(200)]), 400, "INVALID_PARAMS"
    )


async def test_a_record_of_more_than_a_mebibyte_is_refused(
    coze: httpx.AsyncClient, user: str
) -> None:
    interview = await create(coze, user)
    for first in (0, 8):
        answers = [answered(first + n, "x" * LARGEST_TEXT) for n in range(8)]
        response = await change(coze, interview, answers=answers)
        if first == 0:
            shown(response)
    assert "answers" in refused(response, 400, "INVALID_PARAMS")
    assert len((await read(coze, interview))["answers"]) == 8


async def test_numbers_of_members_that_we_do_not_know_are_kept(
    coze: httpx.AsyncClient, user: str
) -> None:
    item = {**answered(0), "ids": [2**53 + 1, 2**64 - 1, -(2**63)], "share": 0.1}
    interview = await create(coze, user)
    shown(await change(coze, interview, answers=[item]))
    assert (await read(coze, interview))["answers"] == [item]


def largest_report(text: str) -> dict[str, Any]:
    """A report of nearly a mebibyte, of texts as long as they may be."""
    longest = (text * LARGEST_TEXT)[:LARGEST_TEXT]
    item = {"question": longest, "answer": longest, "comment": longest}
    items = 1_000_000 // len(json.dumps(item))
    return {"totalScore": 1, "suggestions": "x", "highlights": [item] * items}


def many_small_items() -> dict[str, Any]:
    item = {"comment": "x", "more": [{"a": n} for n in range(40)]}
    return {"totalScore": 1, "highlights": [item] * 200}


@pytest.mark.parametrize(
    "report",
    [
        *(largest_report(text) for text in ("*", " -", "_ ", "a@", "x", "1. ", "-\n")),
        many_small_items(),
    ],
)
async def test_the_largest_records_do_not_hold_the_loop_up(
    coze: httpx.AsyncClient, user: str, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop's longest turn, in CPU time of its thread: 20 ms is the promise."""
    turns: list[float] = []
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        turns.append(time.thread_time() - began)

    interview = await create(coze, user)
    path = f"{INTERVIEWS}/{interview['id']}"
    gc.collect()
    gc.freeze()  # as a node does: what the tests have loaded is not looked through here
    monkeypatch.setattr(asyncio.Handle, "_run", timed)
    shown(await coze.patch(path, content=json.dumps(report).encode()))
    shown(await coze.get(path))
    told = shown(await coze.get(path + "/report"))
    monkeypatch.undo()
    gc.unfreeze()
    assert told["reportMarkdown"].startswith("# ")
    assert max(turns) < 0.02, sorted(turns)[-5:]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"answers": [' + b"[]," * 300_000 + b"[]]}",
        b'{"answers": [' + b"{}," * 300_000 + b"{}]}",
        b'{"answers": [' + b"0," * 500_000 + b"0]}",
    ],
)
async def test_a_body_of_very_many_values_is_refused_before_it_is_read(
    coze: httpx.AsyncClient, user: str, raw: bytes
) -> None:
    interview = await create(coze, user)
    began = time.thread_time()
    with pytest.raises(InvalidParams):
        await read_tolerantly(ChangeInterviewBody, raw)
    assert time.thread_time() - began < 0.02
    response = await coze.patch(f"{INTERVIEWS}/{interview['id']}", content=raw)
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


# -- changing -----------------------------------------------------------------------------------


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
    for members in ({}, {"unknown": 1}, zero_values):
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


# -- lists, reports, the framework's own refusals -----------------------------------------------


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


@pytest.mark.parametrize(
    "query",
    ["page=0", "page=-1", "page=abc", "page=1.0", "page=" + "9" * 30, "pageSize=0",
     "pageSize=101", "page=%00", "page=１"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/open/jobs", INTERVIEWS])
async def test_a_wrong_page_is_400(coze: httpx.AsyncClient, path: str, query: str) -> None:
    refused(await coze.get(f"{path}?{query}"), 400, "INVALID_PARAMS")


@pytest.mark.parametrize("query", ["status=DONE", "userId=%00", "jobId=%00"])
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


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
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

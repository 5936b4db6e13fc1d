"""Keys of the open API, their tenants and limits."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from litestar import Litestar

from coordinator.cli.job_file import ImportRefused, import_jobs
from coordinator.services.access import Access
from coordinator.store.database import Database
from coordinator.store.people import People
from tests.harness.limited import wait_for_redis
from tests.open_api import (
    INTERVIEWS,
    JOB_ID,
    KEY,
    OTHER_KEY,
    READER,
    TENANT,
    change,
    create,
    read,
    refused,
    shown,
)
from tests.open_api.server import REPORT, SECRET, Published, app_with, calling


@pytest.fixture
def patient_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not a dead Redis, without which each node would count for itself."""
    wait_for_redis(monkeypatch)


@pytest.mark.parametrize("key", [None, "", "wrong", "wehan_open_api_key_202", "密钥"])
@pytest.mark.parametrize("path", [f"jobs/{JOB_ID}", "interviews/x/live"])
async def test_without_a_good_key_nothing_is_told(
    app: Litestar, key: str | None, path: str
) -> None:
    headers = [] if key is None else [(b"X-API-Key", key.encode())]
    async with calling(app, {}) as client:
        response = await client.get(f"/api/open/{path}", headers=headers)
    refused(response, 401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    ("method", "challenge"),
    [
        ("GET", 'ApiKey header="X-API-Key", Bearer'),
        ("POST", 'ApiKey header="X-API-Key"'),
    ],
)
async def test_a_401_names_what_would_be_let_in(
    app: Litestar, method: str, challenge: str
) -> None:
    """An admin's token, where something is read; a key everywhere."""
    async with calling(app, {}) as client:
        response = await client.request(method, "/api/open/interviews", json={})

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == challenge


@pytest.mark.usefixtures("patient_limits")
async def test_keys_that_are_tried_out_are_limited_by_address(
    database: Database, redis_url: str, published: Published
) -> None:
    guarded = app_with(database, redis_url, published, key_rate="3/hour")
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
        shown(await admin.get(path, headers={"X-API-Key": ""}))  # blank is missing
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


@pytest.mark.usefixtures("app", "patient_limits")  # `app` seeds the database
async def test_calls_are_limited_by_key(
    database: Database, redis_url: str, published: Published
) -> None:
    limited = app_with(database, redis_url, published, rate="2/hour")
    async with calling(limited) as client, calling(limited, OTHER_KEY) as other:
        for _ in range(2):
            shown(await client.get(f"/api/open/jobs/{JOB_ID}"))
        response = await client.get(f"/api/open/jobs/{JOB_ID}")
        refused(response, 429, "RATE_LIMITED")
        assert int(response.headers["Retry-After"]) > 0
        shown(await other.get(f"/api/open/jobs/{JOB_ID}"))


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

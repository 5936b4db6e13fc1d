"""Interviews: the record, and what a tenant may hear."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from coordinator.standins.seed import seed
from coordinator.store.database import Database
from tests.harness.node import NodeProcess
from tests.harness.patience import patient
from tests.harness.people import Host
from tests.harness.receiver import (
    Receiver,
)
from tests.harness.webhook_admin import Admin
from tests.open_api import KEY, answered, change, create


@pytest_asyncio.fixture
async def coze(database: Database, node: NodeProcess) -> AsyncIterator[httpx.AsyncClient]:
    """A workflow on Coze, on the sending node."""
    await seed(database)
    async with httpx.AsyncClient(
        base_url=node.url, headers=KEY, trust_env=False, verify=False, timeout=patient(20)
    ) as client:
        yield client


async def test_what_ends_an_interview_carries_the_record(
    admin: Admin, coze: httpx.AsyncClient, receiver: Receiver
) -> None:
    await admin.adds(receiver.url)

    interview = await create(coze, "candidate")
    await change(coze, interview, answers=[answered(0)], currentIndex=1)
    done = (await change(coze, interview, status="COMPLETED", totalScore=72, grade="B")).json()
    again = (await change(coze, interview, suggestions="再练练")).json()
    told = await receiver.has(interview["id"], 1, 2, 3, 4)

    assert [d.type for d in told] == [
        "interview_created", "interview_updated", "interview_completed", "interview_report",
    ]  # fmt: skip
    assert "answers" not in told[1].data
    completed, report = told[2].data, told[3].data
    assert completed["type"] == "interview_updated"
    assert completed["interviewId"] == interview["id"]
    assert completed.items() >= {"seq": 3, "totalScore": 72, "grade": "B"}.items()
    assert completed["answers"] == done["data"]["answers"]
    assert completed["revision"] >= 3
    assert report["suggestions"] == again["data"]["suggestions"]
    assert report["revision"] == 4


async def test_a_cancelled_interview_is_told_as_such(
    admin: Admin, coze: httpx.AsyncClient, receiver: Receiver
) -> None:
    await admin.adds(receiver.url, events=["interview_cancelled"])

    interview = await create(coze, "candidate")
    await change(coze, interview, status="CANCELLED")

    (told,) = await receiver.has(interview["id"], 2)
    assert told.data["status"] == "CANCELLED"
    assert told.data["revision"] == 2


async def test_a_tenants_webhook_hears_of_its_own_interviews_alone(
    admin: Admin, host: Host, coze: httpx.AsyncClient, receiver: Receiver
) -> None:
    await admin.adds(receiver.url, tenant="ent_other")
    async with Receiver() as other:
        await admin.adds(other.url, tenant="ent_xxx")
        await host.creates()
        interview = await create(coze, "candidate")
        theirs = await other.has(interview["id"], 1)

    assert [d.type for d in theirs] == ["interview_created"]
    assert {d.feed for d in other.taken} == {interview["id"]}
    assert receiver.delivered == []


async def test_a_tenants_webhook_cannot_ask_for_rooms(admin: Admin, receiver: Receiver) -> None:
    body = {"url": receiver.url, "tenant": "ent_xxx", "events": ["room_ended"]}

    assert (await admin.call("POST", "", body)).status_code == 400

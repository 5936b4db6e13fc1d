"""Webhooks from outside: a back end that is told by real nodes, and what admins do with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from subprocess import CompletedProcess
from typing import Any

import httpx
import pytest
import pytest_asyncio

from coordinator.standins.seed import seed
from coordinator.store.database import Database
from tests.harness.node import Deployment, Node, data
from tests.harness.people import Api, Guest, Host, bearer
from tests.harness.receiver import (
    CLOSE,
    DIE,
    FLOOD,
    HANG,
    NOISE,
    SETTINGS,
    Deed,
    Delivery,
    Receiver,
)
from tests.open_api import KEY, KEYS, answered, change, create


class Admin:
    """An admin who manages webhooks over REST; those that it added are removed at the end."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.api = host.api
        self.added: list[str] = []

    async def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return await self.api.http.request(
            method, f"/api/webhooks{path}", json=body, headers=bearer(self.host.token)
        )

    async def adds(self, url: str, **more: Any) -> dict[str, Any]:
        """A new webhook, with its secret, which nodes already send to."""
        name = more.pop("name", f"crm-{len(self.added)}-{url.rpartition(':')[2].split('/')[0]}")
        added: dict[str, Any] = data(
            await self.call("POST", "", {"url": url, "name": name, **more})
        )
        self.added.append(added["id"])
        return added

    async def sees(self, webhook_id: str) -> dict[str, Any]:
        seen: dict[str, Any] = data(await self.call("GET", f"/{webhook_id}"))
        return seen


@pytest_asyncio.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def sending(database_url: str, redis_url: str) -> Iterator[Deployment]:
    """A deployment whose nodes may send to this machine."""
    with Deployment(database_url, redis_url, OPEN_API_KEYS=KEYS, **SETTINGS) as started:
        yield started


@pytest.fixture(scope="module")
def node(sending: Deployment) -> Node:
    return sending.node()


@pytest_asyncio.fixture
async def api(node: Node) -> AsyncIterator[Api]:
    opened = Api(node)
    yield opened
    await opened.aclose()


@pytest_asyncio.fixture
async def host(database: Database, api: Api) -> Host:
    return await Host.hired(database, api)


@pytest_asyncio.fixture
async def admin(database: Database, api: Api) -> AsyncIterator[Admin]:
    hired = Admin(await Host.hired(database, api, "admin"))
    yield hired
    for webhook_id in hired.added:
        await hired.call("DELETE", f"/{webhook_id}")


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as listening:
        yield listening


async def test_a_back_end_is_told_what_happens_in_order_and_signed(
    admin: Admin, host: Host, api: Api, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)

    room = await host.creates()
    guest = await Guest(api).joins(room)
    await guest.leaves()
    await host.ends(room)

    told = await receiver.has(room, 1, 2, 3, 4)
    assert [d.type for d in told][:3] == ["room_created", "participant_joined", "participant_left"]
    assert [d.seq for d in told] == list(range(1, len(told) + 1))
    assert [d.data for d in told] == await host.log(room)
    assert all(d.is_signed_by(added["secret"]) for d in told)
    assert len({d.id for d in told}) == len(told)


async def test_a_new_webhook_starts_at_now(
    admin: Admin, host: Host, api: Api, receiver: Receiver
) -> None:
    room = await host.creates()
    await Guest(api).joins(room)

    await admin.adds(receiver.url)
    await Guest(api).joins(room)

    assert [d.seq for d in await receiver.has(room, 3)] == [3]


async def test_only_the_types_that_are_wanted_are_told(
    admin: Admin, host: Host, api: Api, receiver: Receiver
) -> None:
    await admin.adds(receiver.url, events=["participant_left", "room_ended"])

    room = await host.creates()
    guest = await Guest(api).joins(room)
    await guest.leaves()
    await host.ends(room)

    assert [d.seq for d in await receiver.has(room, 3, 4)] == [3, 4]


def _once(deed: Deed) -> Callable[[Delivery], Deed]:
    """A plan that does something to the first delivery, and takes the others."""
    left = [deed]
    return lambda _: left.pop() if left else 200


@pytest.mark.parametrize("deed", [500, 302, 404, CLOSE, NOISE], ids=str)
async def test_what_is_not_taken_is_sent_again_after_5_s_and_nothing_of_that_room_before(
    admin: Admin, host: Host, api: Api, receiver: Receiver, deed: Deed
) -> None:
    await admin.adds(receiver.url, events=["room_created", "participant_joined"])
    receiver.plan = _once(deed)

    room = await host.creates()
    await Guest(api).joins(room)
    await receiver.has(room, 1, 2)

    first, again, second = receiver.delivered
    assert [first.seq, again.seq, second.seq] == [1, 1, 2]
    assert again.id == first.id
    assert 5.0 <= again.at - first.at < 8.0


async def test_a_room_that_fails_does_not_hold_up_another(
    admin: Admin, host: Host, api: Api, receiver: Receiver
) -> None:
    await admin.adds(receiver.url)
    refused, taken = await host.creates(), await host.creates()
    receiver.plan = lambda d: 500 if d.feed == refused else 200

    await Guest(api).joins(refused)
    await Guest(api).joins(taken)
    await receiver.has(taken, 2, patience=4)

    assert 2 not in [d.seq for d in receiver.of(refused)]


async def test_a_receiver_that_dies_after_it_said_200_has_taken_the_event(
    admin: Admin, host: Host, api: Api, receiver: Receiver
) -> None:
    await admin.adds(receiver.url, events=["room_created", "participant_joined"])
    receiver.plan = _once(DIE)

    room = await host.creates()
    await Guest(api).joins(room)

    assert [d.seq for d in await receiver.has(room, 1, 2)] == [1, 2]


async def test_an_answer_without_end_is_read_up_to_64_kib(
    admin: Admin, host: Host, api: Api, receiver: Receiver
) -> None:
    await admin.adds(receiver.url, events=["room_created", "participant_joined"])
    receiver.plan = _once(FLOOD)

    room = await host.creates()
    await Guest(api).joins(room)
    await receiver.until(lambda: len(receiver.delivered) == 2, patience=4)

    assert [d.seq for d in receiver.delivered] == [1, 2]


async def test_retry_after_is_honoured(
    admin: Admin, host: Host, receiver: Receiver
) -> None:
    await admin.adds(receiver.url, events=["room_created"])
    receiver.plan = _once((503, {"Retry-After": "1"}))

    room = await host.creates()
    await receiver.has(room, 1)

    assert 1.0 <= receiver.delivered[1].at - receiver.delivered[0].at < 3.0


async def test_no_answer_within_10_s_is_a_failure(
    admin: Admin, host: Host, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url, events=["room_created"])
    receiver.plan = _once(HANG)

    room = await host.creates()
    await receiver.has(room, 1, patience=25)

    assert 15.0 <= receiver.delivered[1].at - receiver.delivered[0].at < 20.0
    assert (await admin.sees(added["id"]))["failing"] == 0


async def test_410_disables_the_webhook_and_enabling_it_goes_on_where_it_stopped(
    admin: Admin, host: Host, api: Api, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)
    receiver.plan = lambda _: 410
    room = await host.creates()
    await _until_async(lambda: _is_disabled(admin, added["id"]))
    assert (await admin.sees(added["id"]))["disabledReason"] == "gone"
    await Guest(api).joins(room)

    receiver.plan = lambda _: 200
    seen = data(await admin.call("PATCH", f"/{added['id']}", {"enabled": True}))

    assert seen["enabled"] is True
    assert [d.seq for d in await receiver.has(room, 1, 2)] == [1, 2]


async def _is_disabled(admin: Admin, webhook_id: str) -> bool:
    return not (await admin.sees(webhook_id)).get("enabled", False)


async def _until_async(holds: Callable[[], Any], patience: float = 10.0) -> None:
    deadline = time.monotonic() + patience
    while not await holds():
        assert time.monotonic() < deadline, "never came true"


async def test_ping_tells_the_answer(admin: Admin, receiver: Receiver) -> None:
    added = await admin.adds(receiver.url)
    receiver.plan = lambda _: 418

    answer = data(await admin.call("POST", f"/{added['id']}/test"))

    assert (answer["success"], answer["status"], answer["body"]) == (False, 418, "ok")
    (ping,) = receiver.delivered
    assert ping.type == "ping"
    assert ping.is_signed_by(added["secret"])


async def test_for_a_day_after_rotating_both_secrets_verify(
    admin: Admin, host: Host, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)

    rotated = data(await admin.call("POST", f"/{added['id']}/rotate"))
    room = await host.creates()
    (told,) = await receiver.has(room, 1)

    assert rotated["secret"] != added["secret"]
    assert told.is_signed_by(added["secret"])
    assert told.is_signed_by(rotated["secret"])
    assert "secret" not in await admin.sees(added["id"])


async def test_after_that_day_the_new_secret_alone_signs(
    admin: Admin, host: Host, database: Database, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)
    await admin.call("POST", f"/{added['id']}/rotate")
    await database.execute(
        "UPDATE webhooks SET old_secret_until = clock_timestamp() + interval '8 seconds',"
        " generation = generation + 1, lease_until = NULL WHERE id = $1",
        added["id"],
    )
    room = await host.creates()
    (told,) = await receiver.has(room, 1)
    assert " " in told.headers["webhook-signature"]

    async def signs_once() -> bool:
        room = await host.creates()
        (told,) = await receiver.has(room, 1)
        return " " not in told.headers["webhook-signature"]

    await _until_async(signs_once, 30)


async def test_a_room_is_told_once_more_with_the_same_ids(
    admin: Admin, host: Host, api: Api, receiver: Receiver
) -> None:
    room = await host.creates()
    added = await admin.adds(receiver.url)
    await Guest(api).joins(room)
    (first,) = await receiver.has(room, 2)

    data(await admin.call("POST", f"/{added['id']}/replay", {"room": room}))
    told = await receiver.has(room, 1)
    await receiver.until(lambda: len(receiver.of(room)) == 3)

    told = receiver.of(room)
    assert [d.seq for d in told] == [2, 1, 2]
    assert told[2].id == first.id


async def test_everything_since_a_moment_is_told_once_more(
    admin: Admin, host: Host, api: Api, receiver: Receiver
) -> None:
    before, room = await host.creates(), await host.creates()
    moment = (await host.log(room))[0]["at"]
    added = await admin.adds(receiver.url)
    await Guest(api).joins(room)
    await receiver.has(room, 2)

    data(await admin.call("POST", f"/{added['id']}/replay", {"from": moment}))
    await receiver.has(room, 1)
    await receiver.until(lambda: len(receiver.of(room)) == 3)

    assert [d.seq for d in receiver.of(room)] == [2, 1, 2]
    assert receiver.of(before) == []


async def test_what_failed_is_tried_at_once_when_an_operator_says_so(
    admin: Admin, host: Host, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)
    receiver.plan = _once((500, {"Retry-After": "3600"}))
    room = await host.creates()
    await receiver.until(lambda: len(receiver.delivered) == 1)
    await _until_async(lambda: _fails(admin, added["id"]))

    retried = data(await admin.call("POST", f"/{added['id']}/retry", {"room": room}))

    assert retried == {"retried": 1}
    assert [d.seq for d in await receiver.has(room, 1)] == [1]


async def _fails(admin: Admin, webhook_id: str) -> bool:
    return bool((await admin.sees(webhook_id))["failing"])


async def _three_days_pass(database: Database, webhook_id: str, table: str) -> None:
    """What fails has failed for three days; whoever sends starts anew from what is stored."""
    column = "id" if table == "webhooks" else "webhook_id"
    await database.execute(
        f"UPDATE {table} SET failing_since = failing_since - interval '3 days' WHERE {column} = $1",
        webhook_id,
    )
    await database.execute(
        "UPDATE webhooks SET generation = generation + 1, lease_until = NULL WHERE id = $1",
        webhook_id,
    )


async def test_after_three_days_a_room_is_parked_and_listed_until_it_is_retried(
    admin: Admin, host: Host, api: Api, database: Database, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)
    refused = await host.creates()
    receiver.plan = lambda d: (500, {"Retry-After": "1"}) if d.feed == refused else 200
    await Guest(api).joins(refused)
    await _until_async(lambda: _fails(admin, added["id"]))

    await _three_days_pass(database, added["id"], "webhook_feeds")
    await receiver.has(await host.creates(), 1)
    await _until_async(lambda: _is_parked(admin, added["id"]))

    seen = await admin.sees(added["id"])
    assert (seen["enabled"], seen["failing"], seen["parked"]) == (True, 0, 1)
    (log,) = seen["parkedLogs"]
    assert (log["roomId"], log["lastAnswer"]) == (refused, "500")
    receiver.plan = lambda _: 200
    await Guest(api).joins(refused)
    data(await admin.call("POST", f"/{added['id']}/retry", {"room": refused}))
    assert [d.seq for d in await receiver.has(refused, 3)][-2:] == [2, 3]


async def _is_parked(admin: Admin, webhook_id: str) -> bool:
    return bool((await admin.sees(webhook_id))["parked"])


async def test_after_three_days_without_any_2xx_the_webhook_is_disabled(
    admin: Admin, host: Host, api: Api, database: Database, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)
    receiver.plan = lambda _: (500, {"Retry-After": "1"})
    room = await host.creates()
    await _until_async(lambda: _has_noted_failing(admin, added["id"]))

    await _three_days_pass(database, added["id"], "webhooks")
    await _until_async(lambda: _is_disabled(admin, added["id"]), 20)

    seen = await admin.sees(added["id"])
    assert (seen["disabledReason"], seen["parked"]) == ("failing", 0)
    assert seen["lagSeconds"] > 0
    metrics = (await api.get("/metrics")).text
    assert f'webhook_disabled_total{{endpoint="{added["name"]}",reason="failing"}} 1.0' in metrics
    receiver.plan = lambda _: 200
    data(await admin.call("PATCH", f"/{added['id']}", {"enabled": True}))
    assert [d.seq for d in await receiver.has(room, 1)] == [1]


async def _has_noted_failing(admin: Admin, webhook_id: str) -> bool:
    return "failingSince" in await admin.sees(webhook_id)


async def test_the_lag_and_the_outcomes_are_metrics(
    admin: Admin, host: Host, api: Api, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)
    await receiver.has(await host.creates(), 1)

    metrics = (await api.get("/metrics")).text

    assert f'coordinator_webhook_lag_seconds{{endpoint="{added["name"]}"}} 0.0' in metrics
    outcome = f'endpoint="{added["name"]}",outcome="success"'
    assert f"coordinator_webhook_deliveries_total{{{outcome}}} 1.0" in metrics


async def test_webhooks_are_for_admins(host: Host, api: Api) -> None:
    mine = await api.get("/api/webhooks", host.token)
    nobody = await api.get("/api/webhooks")

    assert (mine.status_code, nobody.status_code) == (403, 401)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "http://example.com/", "https://", "https://u:p@example.com/",
        "https://10.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest",
        "https://[::ffff:10.0.0.1]/", "https://[64:ff9b::a00:1]/", "https://0.0.0.0/",
        "https://100.64.0.1/", "https://[fe80::1]/", "https://224.0.0.1/", "https://example.com/#x",
        "https://exa mple.com/", "http://10.0.0.1/", "https://2130706434:x/",
    ],
)  # fmt: skip
async def test_a_url_that_leads_elsewhere_than_to_the_public_is_refused(
    admin: Admin, url: str
) -> None:
    refused = await admin.call("POST", "", {"url": url})

    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_PARAMS")


async def test_without_data_keys_no_webhook_can_be_added(
    sending: Deployment, database: Database
) -> None:
    api = Api(sending.node(DATA_KEYS=""))
    admin = Admin(await Host.hired(database, api, "admin"))

    refused = await admin.call("POST", "", {"url": "https://example.com/"})

    assert refused.status_code == 503
    await api.aclose()
    api.node.stop()


async def test_secrets_are_encrypted_in_the_database(
    admin: Admin, database: Database, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)

    stored = await database.fetchval("SELECT secret FROM webhooks WHERE id = $1", added["id"])

    assert added["secret"].removeprefix("whsec_") not in stored


async def test_the_commands_do_what_rest_does(
    sending: Deployment, host: Host, receiver: Receiver
) -> None:
    async def run(*arguments: str) -> CompletedProcess[str]:
        return await asyncio.to_thread(sending.run, "webhooks", *arguments)

    added = await run(
        "add", receiver.url, "--name", "cli", "--events", "room_created,room_ended"
    )
    assert added.returncode == 0, added.stderr
    secret = added.stdout.strip()
    assert secret.startswith("whsec_")

    tried = await run("test", "cli")
    assert (tried.returncode, tried.stdout.split()[0]) == (0, "200")
    room = await host.creates()
    (told,) = await receiver.has(room, 1)
    assert told.is_signed_by(secret)

    listed = (await run("list")).stdout
    assert "cli" in listed
    assert "room_created,room_ended" in listed
    assert secret not in listed
    for action in ("disable", "enable", "rotate"):
        assert (await run(action, "cli")).returncode == 0
    assert (await run("replay", "cli", "--room", room)).returncode == 0
    await receiver.until(lambda: len(receiver.of(room)) == 2)
    assert (await run("remove", "cli")).returncode == 0
    assert (await run("remove", "cli")).returncode == 1


# -- interviews -----------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def coze(database: Database, node: Node) -> AsyncIterator[httpx.AsyncClient]:
    """A workflow on Coze, on the sending node."""
    await seed(database)
    async with httpx.AsyncClient(base_url=node.url, headers=KEY, trust_env=False) as client:
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

"""Events told once more, failing rooms that are parked, webhooks that are given up."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from coordinator.domain.events import FeedKey
from coordinator.services.webhooks import Webhooks
from coordinator.store.database import Database
from coordinator.store.webhook_repairs import WebhookRepairs
from coordinator.store.webhooks import Endpoints
from coordinator.webhooks.addresses import AddressGuard
from tests.harness.node import CIPHER, data
from tests.harness.observing import comes_true
from tests.harness.people import Api, Guest, Host
from tests.harness.receiver import (
    Receiver,
    once,
)
from tests.harness.webhook_admin import Admin


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


async def test_a_replay_beside_another_change_of_the_webhook_is_told_whole(
    admin: Admin, host: Host, api: Api, database: Database, receiver: Receiver
) -> None:
    """The change lets a sender begin while positions are moved: it writes its own over them."""
    added, room = await admin.adds(receiver.url), await host.creates()
    await receiver.has(room, 1)
    changes = [{"name": f"{added['name']}-renamed"}]

    async def changes_something() -> None:
        while changes:
            data(await admin.call("PATCH", f"/{added['id']}", changes.pop()))
            await Guest(api).joins(room)
            await receiver.has(room, 2)

    await _webhooks(database, changes_something).replay(added["id"], since=None, log_id=room)

    def seqs() -> list[int]:
        return [delivery.seq for delivery in receiver.of(room)]

    await receiver.until(lambda: seqs().count(1) == 2 and seqs()[-2:] == [1, 2], patience=6.0)


def _webhooks(database: Database, interrupt: Callable[[], Awaitable[None]]) -> Webhooks:
    """Their stories as a command tells them, with something that happens while it moves positions.
    """

    class Interrupted(WebhookRepairs):
        async def replay_log(self, endpoint_id: str, feed: FeedKey) -> None:
            await interrupt()
            await super().replay_log(endpoint_id, feed)

    return Webhooks(
        Endpoints(database), Interrupted(database), CIPHER, AddressGuard(()),
        ssl.create_default_context(), on_change=lambda: None,
    )  # fmt: skip


async def test_what_failed_is_tried_at_once_when_an_operator_says_so(
    admin: Admin, host: Host, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)
    receiver.plan = once((500, {"Retry-After": "3600"}))
    room = await host.creates()
    await receiver.until(lambda: len(receiver.delivered) == 1)
    await comes_true(lambda: admin.is_failing(added["id"]))

    retried = data(await admin.call("POST", f"/{added['id']}/retry", {"room": room}))

    assert retried == {"retried": 1}
    assert [d.seq for d in await receiver.has(room, 1)] == [1]


async def _fails(admin: Admin, host: Host, receiver: Receiver) -> tuple[dict[str, Any], str]:
    """A webhook that is to be tried again in an hour, and the room that it was told of."""
    added = await admin.adds(receiver.url)
    receiver.plan = lambda _: (500, {"Retry-After": "3600"})
    room = await host.creates()
    await comes_true(lambda: admin.is_failing(added["id"]))
    return added, room


async def test_what_failed_is_tried_at_once_where_the_url_is_another(
    admin: Admin, host: Host, receiver: Receiver
) -> None:
    added, room = await _fails(admin, host, receiver)

    async with Receiver() as mended:
        data(await admin.call("PATCH", f"/{added['id']}", {"url": mended.url}))

        assert [d.seq for d in await mended.has(room, 1)] == [1]


async def test_a_change_of_the_name_alone_tries_nothing_sooner(
    admin: Admin, host: Host, receiver: Receiver
) -> None:
    added, _ = await _fails(admin, host, receiver)

    change = {"name": f"{added['name']}-2", "url": receiver.url}
    data(await admin.call("PATCH", f"/{added['id']}", change))

    assert await admin.is_failing(added["id"])


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
    await comes_true(lambda: admin.is_failing(added["id"]))

    await _three_days_pass(database, added["id"], "webhook_feeds")
    await receiver.has(await host.creates(), 1)
    await comes_true(lambda: admin.is_parked(added["id"]))

    seen = await admin.sees(added["id"])
    assert (seen["enabled"], seen["failing"], seen["parked"]) == (True, 0, 1)
    (log,) = seen["parkedLogs"]
    assert (log["roomId"], log["lastAnswer"]) == (refused, "500")
    receiver.plan = lambda _: 200
    await Guest(api).joins(refused)
    data(await admin.call("POST", f"/{added['id']}/retry", {"room": refused}))
    assert [d.seq for d in await receiver.has(refused, 3)][-2:] == [2, 3]


async def test_after_three_days_without_any_2xx_the_webhook_is_disabled(
    admin: Admin, host: Host, api: Api, database: Database, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)
    receiver.plan = lambda _: (500, {"Retry-After": "1"})
    room = await host.creates()
    await comes_true(lambda: admin.is_failing_as_a_whole(added["id"]))

    await comes_true(lambda: admin.is_failing(added["id"]))
    for table in ("webhook_feeds", "webhooks"):
        await _three_days_pass(database, added["id"], table)
    await comes_true(lambda: admin.is_disabled(added["id"]), 20)

    seen = await admin.sees(added["id"])
    assert (seen["disabledReason"], seen["parked"]) == ("failing", 0)
    assert seen["lagSeconds"] > 0
    metrics = (await api.get("/metrics")).text
    assert f'webhook_disabled_total{{endpoint="{added["name"]}",reason="failing"}} 1.0' in metrics
    receiver.plan = lambda _: 200
    data(await admin.call("PATCH", f"/{added['id']}", {"enabled": True}))
    assert [d.seq for d in await receiver.has(room, 1)] == [1]


async def test_one_refusal_after_days_of_silence_does_not_disable_the_webhook(
    admin: Admin, host: Host, database: Database, receiver: Receiver
) -> None:
    """What was refused before them is not wanted any more: nothing was tried in these days."""
    added = await admin.adds(receiver.url)
    receiver.plan = lambda _: 500
    await host.creates()
    await comes_true(lambda: admin.is_failing_as_a_whole(added["id"]))
    for wanted in (["interview_completed"], ["all"]):
        data(await admin.call("PATCH", f"/{added['id']}", {"events": wanted}))
    await _three_days_pass(database, added["id"], "webhooks")

    receiver.plan = lambda _: (500, {"Retry-After": "1"})
    room = await host.creates()
    await comes_true(lambda: admin.is_failing(added["id"]))
    seen = await admin.sees(added["id"])
    receiver.plan = lambda _: 200

    assert (seen["enabled"], seen["parked"]) == (True, 0)
    assert [d.seq for d in await receiver.has(room, 1)] == [1]


async def test_the_lag_and_the_outcomes_are_metrics(
    admin: Admin, host: Host, api: Api, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)
    await receiver.has(await host.creates(), 1)

    lag = f'coordinator_webhook_lag_seconds{{endpoint="{added["name"]}"}} 0.0'
    outcome = f'endpoint="{added["name"]}",outcome="success"'
    delivered = f"coordinator_webhook_deliveries_total{{{outcome}}} 1.0"

    async def are_told() -> bool:
        """Soon after the receiver has answered, the node has heard that."""
        metrics = (await api.get("/metrics")).text
        return lag in metrics and delivered in metrics

    await comes_true(are_told)


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-01", "soon"]
)
async def test_a_moment_that_is_none_is_refused(
    admin: Admin, receiver: Receiver, moment: str
) -> None:
    added = await admin.adds(receiver.url)

    refused = await admin.call("POST", f"/{added['id']}/replay", {"from": moment})

    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_PARAMS")

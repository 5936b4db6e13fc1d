"""What a back end is sent: in order, signed, again where it was not taken."""

from __future__ import annotations

import pytest

from tests.harness.node import data
from tests.harness.observing import comes_true
from tests.harness.people import Api, Guest, Host
from tests.harness.receiver import (
    CLOSE,
    DIE,
    FLOOD,
    HANG,
    NOISE,
    Deed,
    Receiver,
    once,
)
from tests.harness.webhook_admin import Admin


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


@pytest.mark.parametrize("deed", [500, 302, 404, CLOSE, NOISE], ids=str)
async def test_what_is_not_taken_is_sent_again_after_5_s_and_nothing_of_that_room_before(
    admin: Admin, host: Host, api: Api, receiver: Receiver, deed: Deed
) -> None:
    await admin.adds(receiver.url, events=["room_created", "participant_joined"])
    receiver.plan = once(deed)

    room = await host.creates()
    await Guest(api).joins(room)
    await receiver.has(room, 1, 2)

    first, again, second = receiver.delivered
    assert [first.seq, again.seq, second.seq] == [1, 1, 2]
    assert again.id == first.id
    assert again.at - first.at >= 5.0
    assert again.sent_at - first.answered_at < 8.0


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
    receiver.plan = once(DIE)

    room = await host.creates()
    await Guest(api).joins(room)

    assert [d.seq for d in await receiver.has(room, 1, 2)] == [1, 2]


async def test_an_answer_without_end_is_read_up_to_64_kib(
    admin: Admin, host: Host, api: Api, receiver: Receiver
) -> None:
    await admin.adds(receiver.url, events=["room_created", "participant_joined"])
    receiver.plan = once(FLOOD)

    room = await host.creates()
    await Guest(api).joins(room)
    await receiver.until(lambda: len(receiver.delivered) == 2, patience=4)

    assert [d.seq for d in receiver.delivered] == [1, 2]


async def test_retry_after_is_honoured(
    admin: Admin, host: Host, receiver: Receiver
) -> None:
    await admin.adds(receiver.url, events=["room_created"])
    receiver.plan = once((503, {"Retry-After": "1"}))

    room = await host.creates()
    await receiver.has(room, 1)

    first, again = receiver.delivered
    assert again.at - first.at >= 1.0
    assert again.sent_at - first.answered_at < 3.0


async def test_no_answer_within_10_s_is_a_failure(
    admin: Admin, host: Host, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url, events=["room_created"])
    receiver.plan = once(HANG)

    room = await host.creates()
    await receiver.has(room, 1, patience=25)

    first, again = receiver.delivered
    assert again.sent_at + 1 - first.sent_at >= 15.0
    assert again.sent_at - (first.sent_at + 1) < 20.0
    await comes_true(lambda: admin.has_no_failing_room(added["id"]))


async def test_410_disables_the_webhook_and_enabling_it_goes_on_where_it_stopped(
    admin: Admin, host: Host, api: Api, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)
    receiver.plan = lambda _: 410
    room = await host.creates()
    await comes_true(lambda: admin.is_disabled(added["id"]))
    assert (await admin.sees(added["id"]))["disabledReason"] == "gone"
    await Guest(api).joins(room)

    receiver.plan = lambda _: 200
    seen = data(await admin.call("PATCH", f"/{added['id']}", {"enabled": True}))

    assert seen["enabled"] is True
    assert [d.seq for d in await receiver.has(room, 1, 2)] == [1, 2]

"""Connections that end for good: leaving, removal, the end of the room."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coordinator.store.database import Database
from tests.harness.observing import types
from tests.harness.people import Api, Guest, Host


async def test_a_client_that_connects_while_the_room_ends_is_told_that_it_has(
    a: Api, b: Api, host: Host, admin: Host
) -> None:
    """However the two interleave: nobody stays connected to a room that is over."""
    for number in range(12):
        room = await host.creates()
        guest = await Guest(a).joins(room)
        lives = await asyncio.gather(
            a.watch(room, guest.token),
            b.watch(room, guest.token, since=number % 3),
            b.watch(room, admin.token),
            _after(number * 0.0007, host.ends(room)),
        )
        for live in lives[:3]:
            assert await live.is_put_out() == 4010


async def test_a_client_that_connects_while_it_is_removed_is_put_out(
    a: Api, b: Api, host: Host, room: str
) -> None:
    for number in range(12):
        guest = await Guest(a).joins(room)
        lives = await asyncio.gather(
            a.watch(room, guest.token),
            b.watch(room, guest.token),
            _after(number * 0.0007, host.removes(room, guest.user_id)),
        )
        for live in lives[:2]:
            assert await live.is_put_out() == 4005


async def _after(seconds: float, what: Any) -> Any:
    await asyncio.sleep(seconds)
    return await what


async def test_leaving_closes_this_one_with_1000_and_the_others_with_4009(
    a: Api, b: Api, host: Host, room: str
) -> None:
    watching = await host.connects(room)
    guest = await Guest(a).joins(room)
    here, also_here, there = [await guest.connects(api) for api in (a, a, b)]

    await here.says(type="leave")

    assert await here.is_put_out() == 1000
    assert await also_here.is_put_out() == 4009
    assert await there.is_put_out() == 4009
    left = await watching.sees("participant_left", user_id=guest.user_id)
    assert left["reason"] == "left"
    await watching.hears_pong()
    assert types(watching)[-1] == "participant_left", "no away before or after it"
    assert types(watching).count("participant_away") == 0


@pytest.mark.parametrize("before", [[], ["sync"], ["away", "ping"]])
async def test_who_says_leave_and_hangs_up_in_one_write_has_left(
    a: Api, host: Host, room: str, before: list[str]
) -> None:
    """Also where `leave` waits for the answer to what was said before it."""
    watching = await host.connects(room)
    guest = await Guest(a).joins(room)
    live = await guest.connects()

    await live.hangs_up_with(*(f'{{"type":"{kind}"}}' for kind in (*before, "leave")))

    left = await watching.sees("participant_left", user_id=guest.user_id)
    assert left["reason"] == "left"
    if "away" not in before:
        assert types(watching)[-2:] == ["participant_online", "participant_left"]


async def test_leaving_over_rest_closes_the_connections(a: Api, b: Api, room: str) -> None:
    guest = await Guest(a).joins(room)
    live = await guest.connects(b)

    await guest.leaves(a, token=guest.token)

    assert await live.is_put_out() == 4009


async def test_who_left_and_came_back_over_rest_while_it_connected_has_left(
    a: Api, database: Database, host: Host
) -> None:
    """The node knows the room first as it is after all three: in it again, and not connected."""
    kinds: list[str] = []
    while kinds != ["participant_online", "participant_left", "participant_joined"]:
        room = await host.creates()
        guest = await Guest(a).joins(room)
        calls = []
        async with database.transaction() as busy:
            await busy.execute("SELECT FROM interview_rooms WHERE room_id = $1 FOR UPDATE", room)
            live = await a.watch(room, guest.token)
            for call in (guest.leaves(token=guest.token), guest.asks_to_join(room)):
                await asyncio.sleep(0.2)  # the commands wait for the room in this order
                calls.append(asyncio.create_task(call))
            await asyncio.sleep(0.2)
        await asyncio.gather(*calls)
        kinds = [event["type"] for event in (await host.log(room))[2:]]

    assert await live.is_put_out() == 4009


async def test_the_host_may_leave_and_the_room_goes_on(a: Api, host: Host, room: str) -> None:
    guest = await Guest(a).joins(room)
    watching = await guest.connects()
    live = await host.connects(room)

    await live.says(type="leave")

    assert await live.is_put_out() == 1000
    await watching.sees("participant_left", user_id=host.user_id)
    assert (await a.room(room))["status"] == "active"
    again = await host.connects(room)
    await watching.sees("participant_joined", user_id=host.user_id)
    assert again.people[host.user_id] == "online"


async def test_who_is_removed_is_put_out_everywhere(a: Api, b: Api, host: Host, room: str) -> None:
    guest = await Guest(a).joins(room)
    here, there = await guest.connects(a), await guest.connects(b)

    await host.removes(room, guest.user_id)

    for live in (here, there):
        assert await live.is_put_out() == 4005
        assert live.history[-1]["reason"] == "removed"
    assert await (await a.watch(room, guest.token)).is_put_out() == 4005


async def test_the_end_of_the_room_puts_everybody_out_observers_too(
    a: Api, b: Api, host: Host, admin: Host, room: str
) -> None:
    guest = await Guest(a).joins(room)
    lives = [await guest.connects(b), await host.connects(room), await admin.connects(room, at=b)]

    await host.ends(room)

    for live in lives:
        assert await live.is_put_out() == 4010
        assert types(live)[-1] == "room_ended"

"""Rooms whose time has passed end by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from coordinator.store.database import Database
from tests.harness.node import Deployment, NodeProcess
from tests.harness.observing import comes_true
from tests.harness.patience import long_enough
from tests.harness.people import (
    Api,
    Guest,
    Host,
)
from tests.harness.promises import wall_clock

LATE = 2.5
"""Seconds that a room may outlive its time: the pace at which nodes look for such rooms."""


@pytest.mark.parametrize(
    ("setting", "reason"), [("HOST_ABSENT_END", "host_absent"), ("ROOM_MAX_AGE", "expired")]
)
async def test_a_room_ends_when_its_time_has_passed(
    ground: Deployment, apis: Callable[[NodeProcess], Api], own: Database, setting: str, reason: str
) -> None:
    limit = long_enough(3)  # in which everybody has to come
    a = apis(await asyncio.to_thread(ground.node, **{setting: f"{limit:.3f}"}))
    boss = await Host.hired(own, a)
    room = await boss.creates()
    host = await boss.connects(room, at=a)
    guest = await Guest(a).joins(room)
    live = await guest.connects(at=a)
    if setting == "HOST_ABSENT_END":
        await asyncio.sleep(limit + 0.7)
        await live.hears_pong()  # the host is here: nothing happens
        await host.vanishes()

    ended = await live.sees("room_ended", 8 + limit)

    begins = "room_created" if setting == "ROOM_MAX_AGE" else "participant_away"
    began = next(event for event in await boss.log(room) if event["type"] == begins)
    assert limit - 0.001 <= wall_clock(ended["at"]) - wall_clock(began["at"]) < limit + LATE
    assert (ended["by"], ended["reason"]) == ("system", reason)
    assert await live.is_put_out() == 4010


async def test_a_room_ends_when_nobody_was_in_it_for_long(
    ground: Deployment, apis: Callable[[NodeProcess], Api], own: Database
) -> None:
    limit = long_enough(3)  # in which somebody has to come
    a = apis(await asyncio.to_thread(ground.node, ROOM_EMPTY_END=f"{limit:.3f}"))
    boss = await Host.hired(own, a)
    empty, inhabited = await boss.creates(), await boss.creates()
    await Guest(a).joins(inhabited)  # over REST alone: it is in the room

    async def has_ended() -> bool:
        return bool((await a.room(empty))["status"] == "ended")

    await comes_true(has_ended, 10 + limit)

    created, *_, last = await boss.log(empty)
    assert limit - 0.001 <= wall_clock(last["at"]) - wall_clock(created["at"]) < limit + LATE
    assert (last["type"], last["reason"], last["by"]) == ("room_ended", "empty", "system")
    assert (await a.room(inhabited))["status"] == "active"

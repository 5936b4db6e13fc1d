"""Rooms whose time has passed end by themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from coordinator.store.database import Database
from tests.harness.node import Deployment, Node
from tests.harness.patience import patient
from tests.harness.people import (
    Api,
    Guest,
    Host,
)


@pytest.mark.parametrize(
    ("setting", "reason"), [("HOST_ABSENT_END", "host_absent"), ("ROOM_MAX_AGE", "expired")]
)
async def test_a_room_ends_when_its_time_has_passed(
    ground: Deployment, apis: Callable[[Node], Api], own: Database, setting: str, reason: str
) -> None:
    a = apis(await asyncio.to_thread(ground.node, **{setting: "2"}))
    boss = await Host.hired(own, a)
    room = await boss.creates()
    started = time.monotonic()
    host = await boss.connects(room, at=a)
    guest = await Guest(a).joins(room)
    live = await guest.connects(at=a)
    if setting == "HOST_ABSENT_END":
        await asyncio.sleep(2.7)
        await live.hears_pong()  # the host is here: nothing happens
        await host.vanishes()
        started = time.monotonic()

    ended = await live.sees("room_ended", 6)

    assert 1.9 < time.monotonic() - started < patient(4.5)
    assert (ended["by"], ended["reason"]) == ("system", reason)
    assert await live.is_put_out() == 4010


async def test_a_room_ends_when_nobody_was_in_it_for_long(
    ground: Deployment, apis: Callable[[Node], Api], own: Database
) -> None:
    a = apis(await asyncio.to_thread(ground.node, ROOM_EMPTY_END="2"))
    boss = await Host.hired(own, a)
    empty, inhabited = await boss.creates(), await boss.creates()
    await Guest(a).joins(inhabited)  # over REST alone: it is in the room
    start = time.monotonic()
    while (await a.room(empty))["status"] == "active":
        assert time.monotonic() - start < patient(5)
        await asyncio.sleep(0.1)
    assert time.monotonic() - start > 1.5
    last = (await boss.log(empty))[-1]
    assert (last["type"], last["reason"], last["by"]) == ("room_ended", "empty", "system")
    assert (await a.room(inhabited))["status"] == "active"

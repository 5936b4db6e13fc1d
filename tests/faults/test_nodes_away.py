"""Nodes that die, freeze or drain, and what becomes of their people."""

from __future__ import annotations

import asyncio
import time

from tests.faults import GRACE, LEASE_NOTICED
from tests.harness.observing import becomes, gapless, kinds_of
from tests.harness.patience import patient
from tests.harness.people import (
    Api,
    Guest,
    Host,
)
from tests.harness.promises import wall_clock


async def test_a_killed_nodes_people_are_away_then_left_unless_they_return(
    two: tuple[Api, Api], boss: Host
) -> None:
    a, b = two
    room = await boss.creates()
    watching = await boss.connects(room, at=a)
    returns, stays_out = await Guest(b).joins(room), await Guest(b).joins(room)
    await returns.connects(at=b)
    await stays_out.connects(at=b)
    await watching.until(lambda: list(watching.people.values()).count("online") == 3)

    killed = time.time()
    b.node.kill()
    away = await watching.sees("participant_away", LEASE_NOTICED, user_id=stays_out.user_id)
    assert wall_clock(away["at"]) - killed < LEASE_NOTICED
    back = await returns.connects(at=a)
    left = await watching.sees("participant_left", GRACE + 2.5)
    assert 0 <= wall_clock(left["at"]) - wall_clock(away["leaveAt"]) < 2
    assert wall_clock(left["at"]) - killed < LEASE_NOTICED + GRACE + 2
    assert left["participant"]["userId"] == stays_out.user_id
    await asyncio.sleep(GRACE)
    await back.hears_pong()

    log = await boss.log(room)
    assert kinds_of(log, returns.user_id) == ["joined", "online", "away", "back"]
    assert kinds_of(log, stays_out.user_id) == ["joined", "online", "away", "left"]
    assert gapless(watching)


async def test_who_reconnects_before_a_node_is_known_to_be_dead_was_never_away(
    two: tuple[Api, Api], boss: Host
) -> None:
    a, b = two
    room = await boss.creates()
    watching = await boss.connects(room, at=a)
    guest = await Guest(b).joins(room)
    first = await guest.connects(at=b)
    await watching.sees("participant_online", user_id=guest.user_id)

    b.node.kill()
    await first.until(lambda: first.code is not None)
    second = await guest.connects(at=a, since=first.seq)
    assert second.welcome["resumed"] is True
    await asyncio.sleep(LEASE_NOTICED + 0.5)
    await second.hears_pong()
    assert kinds_of(await boss.log(room), guest.user_id) == ["joined", "online"]


async def test_a_frozen_node_does_not_fight_when_it_wakes(two: tuple[Api, Api], boss: Host) -> None:
    a, b = two
    room = await boss.creates()
    watching = await boss.connects(room, at=a)
    guest = await Guest(b).joins(room)
    old = await guest.connects(at=b)
    await watching.sees("participant_online", user_id=guest.user_id)
    before = (await b.get("/health/ready")).json()["node"]

    b.node.freeze()
    try:
        await watching.sees("participant_away", LEASE_NOTICED, user_id=guest.user_id)
        new = await guest.connects(at=a)
    finally:
        b.node.wake()
    assert await old.is_put_out() == 4201
    await becomes(b, "ready")
    assert (await b.get("/health/ready")).json()["node"] != before
    await asyncio.sleep(1)
    await new.hears_pong()
    again = await guest.connects(at=b)
    await again.hears_pong()
    assert kinds_of(await boss.log(room), guest.user_id) == ["joined", "online", "away", "back"]


async def test_a_draining_node_sends_everybody_elsewhere_and_nobody_leaves(
    two: tuple[Api, Api], boss: Host
) -> None:
    a, b = two
    room = await boss.creates()
    watching = await boss.connects(room, at=a)
    guests = [await Guest(b, f"g{n}").joins(room) for n in range(8)]
    lives = [await guest.connects(at=b) for guest in guests]
    await watching.until(lambda: list(watching.people.values()).count("online") == 9)

    b.node.terminate()
    for guest, live in zip(guests, lives, strict=True):
        assert await live.is_put_out() == 4200
        assert live.frames[-1]["afterMs"] >= 0
        await guest.connects(at=a, since=live.seq)
    assert await asyncio.to_thread(b.node.process.wait, patient(10)) == 0
    await asyncio.sleep(GRACE + 1)
    assert set(watching.people.values()) == {"online"}
    assert "participant_left" not in {event["type"] for event in watching.history}
    assert gapless(watching)

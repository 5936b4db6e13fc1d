"""Clients that come back, and what everybody is told: the log, each event once and in order."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pytest

from tests.harness.people import Api, Guest, Host, Live, moment


async def test_a_client_resumes_after_what_it_has(a: Api, b: Api, host: Host, room: str) -> None:
    guest = await Guest(a).joins(room)
    live = await guest.connects()
    stood_at = live.seq
    await live.vanishes()
    for _ in range(3):
        await Guest(b).joins(room)

    again = await guest.connects(b, since=stood_at)
    await again.reaches(len(await host.log(room)))

    welcome = again.frames[0]
    assert (welcome["resumed"], welcome["seq"]) == (True, stood_at)
    assert "room" not in welcome
    assert "participants" not in welcome
    assert again.history == (await host.log(room))[stood_at:]


async def test_since_zero_is_the_whole_log(a: Api, host: Host, room: str) -> None:
    guest = await Guest(a).joins(room)

    live = await guest.connects(since=0)
    await live.reaches(3)

    assert (live.frames[0]["resumed"], live.frames[0]["seq"]) == (True, 0)
    assert live.history == await host.log(room)
    assert live.people == {host.user_id: "none", guest.user_id: "online"}


@pytest.mark.parametrize("beyond", [1, 1000, 10**18, 10**30])
async def test_past_the_end_is_a_snapshot(
    a: Api, host: Host, admin: Host, room: str, beyond: int
) -> None:
    live = await admin.connects(room, since=1 + beyond)

    assert (live.welcome["resumed"], live.welcome["seq"]) == (False, 1)
    assert list(live.people) == [host.user_id]


async def test_at_the_end_nothing_is_missed(admin: Host, room: str) -> None:
    live = await admin.connects(room, since=1)

    assert (live.welcome["resumed"], live.welcome["seq"]) == (True, 1)
    assert (await live.hears_pong())["seq"] == 1
    assert live.history == []


@pytest.mark.parametrize("is_open", [False, True], ids=["feed not open", "feed open"])
async def test_more_than_three_hundred_missed_events_are_a_snapshot(
    a: Api, b: Api, host: Host, admin: Host, room: str, is_open: bool
) -> None:
    if is_open:
        await admin.connects(room, at=b)
    await asyncio.gather(*(Guest(a).joins(room) for _ in range(310)))

    just = await admin.connects(room, at=b, since=11)
    more = await admin.connects(room, at=b, since=10)
    await just.reaches(311)

    assert just.welcome["resumed"] is True
    assert just.seqs == list(range(12, 312))
    assert (more.welcome["resumed"], more.welcome["seq"]) == (False, 311)
    assert len(more.people) == 311
    assert more.history == []


async def test_everybody_on_both_nodes_is_told_the_same_as_the_log(
    a: Api, b: Api, host: Host, admin: Host, room: str
) -> None:
    watching = [await host.connects(room), await admin.connects(room, at=b)]
    guest = await Guest(b).joins(room)
    live = await guest.connects(b)
    await live.hangs_up()
    await watching[0].sees("participant_away", user_id=guest.user_id)
    live = await guest.connects(a)
    await (await Guest(a).joins(room)).leaves()
    ended = await host.ends(room)

    log = await host.log(room)
    for each in (*watching, live):
        assert await each.is_put_out() == 4010
    assert watching[0].history == log[2:]
    assert watching[1].history == log[2:]
    assert [event["type"] for event in log] == [
        "room_created", "participant_online", "participant_joined", "participant_online",
        "participant_away", "participant_back", "participant_joined", "participant_left",
        "room_ended",
    ]  # fmt: skip
    who = {"userId": guest.user_id, "userName": "李明", "role": "guest"}
    assert log[3]["participant"] == log[4]["participant"] == log[5]["participant"] == who
    assert moment(log[4]["leaveAt"]) - moment(log[4]["at"]) == timedelta(seconds=30)
    assert log[8]["endedAt"] == ended["endedAt"]


async def test_the_snapshot_is_a_function_of_the_log(
    a: Api, b: Api, host: Host, admin: Host, room: str
) -> None:
    """After any of many random changes: snapshot, replay and GET room agree."""
    chance = random.Random(7)
    guests = [await Guest(a, f"guest {number}").joins(room) for number in range(6)]
    lives: list[Live] = []
    for _ in range(60):
        guest, api = chance.choice(guests), chance.choice((a, b))
        match chance.randrange(5):
            case 0:
                await guest.leaves(api, token=guest.token)
            case 1:
                await guest.joins(room, api)
            case 2 | 3:
                lives.append(await guest.connects(api))
            case 4 if lives:
                await lives.pop(chance.randrange(len(lives))).hangs_up()
    for live in lives:
        if live.code is None:
            await live.says(type="ping")

    watching = await admin.connects(room, at=b)
    told = dict(watching.people)
    replayed = await admin.connects(room, since=0)
    await replayed.reaches(watching.welcome["seq"])

    log = (await host.log(room))[: watching.welcome["seq"]]
    assert replayed.history[: len(log)] == log
    await asyncio.gather(replayed.hears_pong(), watching.hears_pong())
    assert list(replayed.people.items()) == list(watching.people.items())
    assert len(told) > 1
    seen = {p["userId"]: p["connection"] for p in (await a.room(room))["participants"]}
    await watching.reaches((await watching.hears_pong())["seq"])
    assert seen == watching.people

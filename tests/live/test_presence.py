"""Online, away, back, left: what connections mean for their participant."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from coordinator.store.database import Database
from tests.harness.observing import types
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host, moment
from tests.live.conftest import GRACE


async def test_connections_of_one_participant_are_one_presence(
    a: Api, b: Api, host: Host, room: str
) -> None:
    """The first puts it on, the last to go puts it out; a late close of an old one does nothing."""
    watching = await host.connects(room)
    guest = await Guest(a).joins(room)
    old, newer = await guest.connects(a), await guest.connects(b)

    await old.vanishes()
    await newer.hears_pong()
    again = await guest.connects(a)
    await newer.hangs_up()
    await again.hears_pong()
    await watching.hears_pong()
    assert types(watching) == ["participant_joined", "participant_online"]
    await again.vanishes()

    away = await watching.sees("participant_away", user_id=guest.user_id, patience=4)
    assert away["seq"] == guest.seq + 2


async def test_a_sixth_connection_closes_the_oldest_also_on_another_node(
    a: Api, b: Api, host: Host, room: str
) -> None:
    watching = await host.connects(room)
    guest = await Guest(a).joins(room)
    lives = [await guest.connects(api) for api in (a, b, a, b, a)]
    await watching.hears_pong()
    events = len(watching.history)

    sixth = await guest.connects(b)
    assert await lives[0].is_put_out() == 4006
    seventh = await guest.connects(a)
    assert await lives[1].is_put_out() == 4006

    for live in (*lives[2:], sixth, seventh):
        await live.hears_pong()
    await watching.hears_pong()
    assert len(watching.history) == events


async def test_a_sixth_connection_closes_the_oldest_also_where_some_are_marked_away(
    a: Api, host: Host, room: str
) -> None:
    watching = await host.connects(room)
    guest = await Guest(a).joins(room)
    in_use, *marked = [await guest.connects() for _ in range(5)]
    for live in marked:
        await live.says(type="away")
    await in_use.hears_pong()

    sixth = await guest.connects()
    assert await in_use.is_put_out() == 4006
    seventh = await guest.connects()
    assert await marked[0].is_put_out() == 4006

    for live in (*marked[1:], sixth, seventh):
        await live.hears_pong()
    await watching.hears_pong()
    assert types(watching) == ["participant_joined", "participant_online"]


async def test_a_sixth_connection_closes_the_oldest_though_it_is_marked_away_on_another_node(
    a: Api, b: Api, host: Host, database: Database, room: str
) -> None:
    """One that is used again is as old as it was."""
    watching = await host.connects(room)
    guest = await Guest(a).joins(room)
    lives = [await guest.connects(api) for api in (a, b, a, b, a)]
    for live in lives:
        await live.says(type="away")
    await watching.sees("participant_away", user_id=guest.user_id)
    await lives[1].hears_pong()
    await watching.sees("participant_back", user_id=guest.user_id)

    sixth = await guest.connects(b)
    assert await lives[0].is_put_out() == 4006
    seventh = await guest.connects(a)
    assert await lives[1].is_put_out() == 4006

    for live in (*lives[2:], sixth, seventh):
        await live.hears_pong()
    await watching.hears_pong()
    assert types(watching) == [
        "participant_joined", "participant_online", "participant_away", "participant_back"
    ]  # fmt: skip
    rows = "SELECT count(*) FROM connections WHERE user_id = $1"
    assert await database.fetchval(rows, guest.user_id) == 5
    assert await database.fetchval(
        "SELECT count(*) FROM away_connections WHERE user_id = $1", guest.user_id
    ) == 0  # fmt: skip


async def test_a_marked_connection_that_hangs_up_leaves_no_row(
    a: Api, host: Host, database: Database, room: str
) -> None:
    watching = await host.connects(room)
    guest = await Guest(a).joins(room)
    live = await guest.connects()
    await live.says(type="away")
    await watching.sees("participant_away", user_id=guest.user_id)
    rows = "SELECT count(*) FROM away_connections WHERE user_id = $1"
    assert await database.fetchval(rows, guest.user_id) == 1

    await live.vanishes()

    async with asyncio.timeout(patient(4)):
        while await database.fetchval(rows, guest.user_id):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await watching.hears_pong()
    assert types(watching)[-1] == "participant_away"


@pytest.mark.parametrize("later", ["ping", "nonsense", "not json"])
async def test_any_later_frame_brings_back_who_marked_itself_away(
    a: Api, host: Host, room: str, later: str
) -> None:
    watching = await host.connects(room)
    guest = await Guest(a).joins(room)
    live = await guest.connects()

    await live.says(type="away")
    await watching.sees("participant_away", user_id=guest.user_id)
    match later:
        case "not json":
            await live.sends("{")
        case _:
            await live.says(type=later)

    await watching.sees("participant_back", user_id=guest.user_id)
    await live.until(lambda: live.people[guest.user_id] == "online")
    answer = "pong" if later == "ping" else "error"
    await live.until(lambda: answer in [frame["type"] for frame in live.frames])


async def test_away_and_a_frame_right_after_it_leave_a_connection_that_works(
    a: Api, host: Host, database: Database, room: str
) -> None:
    """While somebody else holds the room, both wait for one transaction: a row goes and comes."""
    watching = await host.connects(room)
    guest = await Guest(a).joins(room)
    live = await guest.connects()

    async with database.transaction() as held:
        await held.execute("SELECT 1 FROM interview_rooms WHERE room_id = $1 FOR UPDATE", room)
        await asyncio.gather(live.says(type="away"), live.says(type="ping"))
        await asyncio.sleep(0.2)  # both have been read, and wait
    await live.sees("pong")

    await watching.hears_pong()
    assert watching.people[guest.user_id] == "online"
    rows = "SELECT count(*) FROM connections WHERE user_id = $1"
    assert await database.fetchval(rows, guest.user_id) == 1
    await live.vanishes()
    await watching.sees("participant_away", user_id=guest.user_id, seq=watching.seq + 1)


async def test_a_participant_is_away_when_each_connection_is_closed_or_marked(
    a: Api, b: Api, host: Host, room: str
) -> None:
    watching = await host.connects(room)
    guest = await Guest(a).joins(room)
    phone, desk = await guest.connects(a), await guest.connects(b)

    await phone.says(type="away")
    await Guest(a, "somebody").joins(room)
    await watching.sees("participant_joined", seq=guest.seq + 2)
    assert watching.people[guest.user_id] == "online"
    await desk.hangs_up()
    await watching.sees("participant_away", user_id=guest.user_id)

    assert phone.code is None
    await phone.sees("participant_away", user_id=guest.user_id)


async def test_leaving_from_the_background_is_no_return(a: Api, host: Host, room: str) -> None:
    watching = await host.connects(room)
    guest = await Guest(a).joins(room)
    live = await guest.connects()
    await live.says(type="away")
    await watching.sees("participant_away")

    await live.says(type="leave")

    assert await live.is_put_out() == 1000
    await watching.sees("participant_left", user_id=guest.user_id)
    assert types(watching)[-2:] == ["participant_away", "participant_left"]


@pytest.mark.parametrize("last", ['{"type":"ping"}', '{"type":"nonsense"}', "not json"])
async def test_a_last_word_from_the_background_with_the_close_in_one_write_is_no_return(
    quick: Api, database: Database, last: str
) -> None:
    """The connection has ended before what it said is carried out: nobody would undo a return."""
    host = await Host.hired(database, quick)
    room = await host.creates()
    watching = await host.connects(room)
    guest = await Guest(quick).joins(room)
    live = await guest.connects()
    await live.says(type="away")
    await watching.sees("participant_away", user_id=guest.user_id)

    await live.hangs_up_with(last)

    await watching.sees("participant_left", user_id=guest.user_id)
    assert types(watching)[-2:] == ["participant_away", "participant_left"]


async def test_who_does_not_return_in_time_has_left(a: Api, quick: Api, database: Database) -> None:
    host = await Host.hired(database, quick)
    room = await host.creates()
    watching = await host.connects(room)
    guest, marked = await Guest(quick).joins(room), await Guest(quick).joins(room)
    live, open_all_the_while = await guest.connects(), await marked.connects()

    await live.vanishes()
    await open_all_the_while.says(type="away")

    away = await watching.sees("participant_away", user_id=guest.user_id, patience=4)
    left = await watching.sees("participant_left", user_id=guest.user_id)
    assert left["reason"] == "disconnected"
    assert moment(left["at"]) >= moment(away["leaveAt"])
    assert moment(left["at"]) - moment(away["leaveAt"]) < timedelta(seconds=2)
    assert await open_all_the_while.is_put_out() == 4009

    again = await guest.connects()
    joined = await watching.sees("participant_joined", user_id=guest.user_id)
    assert joined["participant"]["connection"] == "online"
    assert again.people[guest.user_id] == "online"


async def test_who_returns_in_time_never_left(a: Api, quick: Api, database: Database) -> None:
    host = await Host.hired(database, quick)
    room = await host.creates()
    watching = await host.connects(room)
    guest = await Guest(quick).joins(room)
    live = await guest.connects()

    for api in (a, quick):
        await live.vanishes()
        away = await watching.sees("participant_away", user_id=guest.user_id)
        live = await guest.connects(api, since=away["seq"])
        await watching.sees("participant_back", user_id=guest.user_id)

    await asyncio.sleep(GRACE + 1)  # and what may follow it
    await watching.hears_pong()
    assert "participant_left" not in types(watching)


async def test_who_never_connected_stays(a: Api, quick: Api, database: Database) -> None:
    host = await Host.hired(database, quick)
    room = await host.creates()
    guest = await Guest(quick).joins(room)

    await asyncio.sleep(GRACE + 1)

    people = (await quick.room(room))["participants"]
    assert [(p["userId"], p["connection"]) for p in people] == [
        (host.user_id, "none"), (guest.user_id, "none")
    ]  # fmt: skip

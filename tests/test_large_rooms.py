"""Rooms of any size: what is shown of their people, in the view and in pages."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coordinator.store.database import Database
from tests.harness.node import Deployment, data
from tests.harness.people import Api, Guest, Host, refusal

VIEW = "/api/interview/room/"


async def fill(database: Database, room_id: str, guests: int) -> None:
    """So many guests joined long ago, without a call for each."""
    await database.execute(
        """
        INSERT INTO interview_participants
            (room_id, user_id, user_name, role, joined_at, joined_seq)
        SELECT $1, 'guest_' || n, '李明' || n, 'guest', clock_timestamp(), 1 + n
        FROM generate_series(1, $2::int) AS n
        """,
        room_id, guests,
    )  # fmt: skip
    await database.execute(
        "UPDATE interview_rooms SET present = $2 + 1, guests = $2 WHERE room_id = $1",
        room_id, guests,
    )  # fmt: skip


def ids(people: list[dict[str, Any]]) -> list[str]:
    return [person["userId"] for person in people]


@pytest.mark.parametrize("guests", [0, 1, 48, 49, 50, 51])
async def test_a_room_shows_everybody_in_order_of_joining(
    a: Api, database: Database, room: str, guests: int
) -> None:
    await fill(database, room, guests)
    view = await a.room(room)
    assert ids(view["participants"])[1:] == [f"guest_{n}" for n in range(1, guests + 1)]
    assert view["participantCount"] == guests + 1


async def test_a_large_room_shows_the_first_500_and_counts_all(
    a: Api, database: Database, host: Host, room: str
) -> None:
    await fill(database, room, 1200)
    view = await a.room(room)
    assert ids(view["participants"]) == [host.user_id, *(f"guest_{n}" for n in range(1, 500))]
    assert view["participantCount"] == 1201
    assert view["participants"][1].keys() == {
        "userId", "userName", "role", "joinedAt", "connection",
    }  # fmt: skip


async def test_an_ended_room_shows_the_first_500_who_attended(
    a: Api, database: Database, host: Host, room: str
) -> None:
    await fill(database, room, 700)
    await host.ends(room)
    view = await a.room(room)
    assert len(view["participants"]) == 500
    assert view["participantCount"] == 701
    listed = data(await a.get("/api/interview/rooms", host.token))["list"]
    assert listed[0]["participantCount"] == 701


async def test_pages_show_whom_the_view_does_not(
    a: Api, database: Database, room: str
) -> None:
    await fill(database, room, 620)
    page = data(await a.get(f"{VIEW}{room}/participants", page=7, pageSize=100))
    assert (page["total"], page["page"], page["pageSize"]) == (621, 7, 100)
    assert ids(page["list"]) == [f"guest_{n}" for n in range(600, 621)]
    past = data(await a.get(f"{VIEW}{room}/participants", page=8, pageSize=100))
    assert past["list"] == []


async def test_a_person_looks_the_same_on_a_page_as_in_the_view(
    a: Api, host: Host, room: str
) -> None:
    await Guest(a, name='张"三\\', identity="求职者").joins(room)
    await (await Guest(a, identity=None).joins(room)).leaves()
    for _ in range(2):
        shown = (await a.room(room))["participants"]
        page = data(await a.get(f"{VIEW}{room}/participants"))
        assert page["list"] == shown
        assert page["pageSize"] == 10
        await host.ends(room)


@pytest.mark.parametrize(
    "query", [{"page": "0"}, {"page": "abc"}, {"pageSize": "101"}, {"pageSize": "-1"}]
)
async def test_a_page_that_cannot_be(a: Api, room: str, query: dict[str, str]) -> None:
    response = await a.get(f"{VIEW}{room}/participants", **query)
    assert refusal(response) == (400, "INVALID_PARAMS")


async def test_pages_of_no_room(a: Api) -> None:
    assert refusal(await a.get(f"{VIEW}nowhere/participants")) == (404, "ROOM_NOT_FOUND")
    assert refusal(await a.get(f"{VIEW}a%20b/participants")) == (404, "ROOM_NOT_FOUND")


async def test_the_times_of_both_ways_are_cut_alike(
    a: Api, database: Database, host: Host, room: str
) -> None:
    """Postgres prints the people's times, we print the room's: neither rounds."""
    moment = datetime(2026, 11, 25, 10, 0, 0, 999_999, tzinfo=UTC)
    await database.execute("UPDATE interview_rooms SET created_at = $2 WHERE room_id = $1",
                           room, moment)  # fmt: skip
    await database.execute("UPDATE interview_participants SET joined_at = $2 WHERE room_id = $1",
                           room, moment)  # fmt: skip
    view = await a.room(room)
    assert view["createdAt"] == view["participants"][0]["joinedAt"] == "2026-11-25T10:00:00.999Z"


async def test_people_of_a_room_that_ended_long_ago_are_not_told(
    deployment: Deployment, database: Database, a: Api, host: Host, room: str
) -> None:
    node = Api(deployment.node(PARTICIPANTS_KEEP_DAYS="3", EVENTS_KEEP_DAYS="0"))
    await Guest(a).joins(room)
    await host.ends(room)
    for days, people in ((2, 2), (4, 0)):
        await database.execute("UPDATE interview_rooms SET ended_at = $2 WHERE room_id = $1",
                               room, datetime.now(UTC) - timedelta(days=days))  # fmt: skip
        view = await node.room(room)
        assert (len(view["participants"]), view["participantCount"]) == (people, 2)
        page = data(await node.get(f"{VIEW}{room}/participants"))
        assert (len(page["list"]), page["total"]) == (people, 2)
    log = data(await node.get(f"{VIEW}{room}/events", host.token))
    assert log["lastSeq"] == len(log["events"]) == 3  # EVENTS_KEEP_DAYS=0 keeps them for ever
    await node.aclose()


async def test_the_count_outlives_the_people(
    a: Api, database: Database, host: Host, room: str
) -> None:
    await host.ends(room)
    await database.execute("DELETE FROM interview_participants WHERE room_id = $1", room)
    await database.execute("UPDATE interview_rooms SET attended = 7 WHERE room_id = $1", room)
    view = await a.room(room)
    assert (view["participants"], view["participantCount"]) == ([], 7)


async def test_a_view_of_a_small_room_does_not_wait_for_a_large_one(
    a: Api, database: Database, host: Host, room: str
) -> None:
    """Views asked for at once share a query only where the rooms are small."""
    large = await host.creates()
    await fill(database, large, 5000)
    views = await asyncio.gather(*(a.room(large if n % 2 else room) for n in range(20)))
    assert [view["participantCount"] for view in views] == [1, 5001] * 10

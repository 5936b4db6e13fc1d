"""Two nodes on one Postgres and one Redis are one product: nothing twice, nothing missed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed

from coordinator.domain.events import ROOM, Event, FeedKey, timestamp
from coordinator.domain.roster import replay
from coordinator.store.database import Database
from tests.harness.databases import own_database
from tests.harness.node import Deployment, data
from tests.harness.people import Api, Guest, Host, Live


@pytest_asyncio.fixture(scope="module")
async def database() -> AsyncIterator[Database]:
    """Of this file's own: the last test looks at every room, and other files write rows by hand."""
    async with own_database("two_nodes") as opened:
        yield opened


@pytest.fixture(scope="module")
def deployment(database: Database, redis_url: str) -> Iterator[Deployment]:
    with Deployment(database.url, redis_url) as started:
        yield started


@pytest_asyncio.fixture(scope="module")
async def shared_apis(deployment: Deployment) -> AsyncIterator[tuple[Api, Api]]:
    apis = Api(deployment.shared_node("a")), Api(deployment.shared_node("b"))
    yield apis
    for api in apis:
        await api.aclose()


async def test_two_hundred_joins_at_once_are_told_to_everybody_once_in_order(
    a: Api, b: Api, host: Host, admin: Host, room: str
) -> None:
    lives = [
        await host.connects(room),
        await host.connects(room, at=b),
        await admin.connects(room),
        await admin.connects(room, at=b),
    ]
    stood_at = [live.seq for live in lives]

    guests = await asyncio.gather(
        *((Guest(a if number % 2 else b)).joins(room) for number in range(200))
    )
    log = await host.log(room)

    assert [event["seq"] for event in log] == list(range(1, 203))
    assert sorted(guest.seq for guest in guests) == list(range(3, 203))
    for live, start in zip(lives, stood_at, strict=True):
        await live.reaches(202)
        assert live.history[-200:] == log[2:]
        assert live.seqs == list(range(start + 1, 203))
        assert list(live.people) == [host.user_id, *_in_order(guests)]


def _in_order(guests: list[Guest]) -> list[str]:
    return [guest.user_id for guest in sorted(guests, key=lambda guest: guest.seq)]


async def test_who_hops_between_nodes_misses_nothing_and_sees_nothing_twice(
    a: Api, b: Api, host: Host, room: str
) -> None:
    """All the while the room goes on; each time it resumes after what it has, elsewhere."""
    guest = await Guest(a).joins(room)
    live = await guest.connects(a, since=0)
    seen: list[int] = []
    chance = random.Random(5)

    async def crowd() -> None:
        for _ in range(12):
            await asyncio.gather(*(Guest(chance.choice((a, b))).joins(room) for _ in range(10)))

    coming = asyncio.create_task(crowd())
    for hop in range(12):
        await live.reaches(min(8 * (hop + 1), 50))
        stood_at = live.seq
        seen += [seq for seq in live.seqs if seq <= stood_at]
        await (live.vanishes() if hop % 2 else live.hangs_up())
        seen += [seq for seq in live.seqs if seq > stood_at]
        live = await guest.connects(b if hop % 2 else a, since=seen[-1])
        assert live.frames[0]["seq"] == seen[-1]
    await coming
    log = await host.log(room)
    await live.reaches(len(log))

    assert seen + live.seqs == list(range(1, len(log) + 1))


async def test_an_answer_is_what_was_committed_where_the_other_node_was_faster(
    a: Api, b: Api, host: Host, room: str
) -> None:
    """The answer is made while Postgres works, from what the node remembers of the room."""
    guests = [await Guest(api).joins(room) for api in (a, a, a, b, a, b, b, a)]

    log = await host.log(room)

    assert [guest.seq for guest in guests] == list(range(2, 10))
    assert [event["participant"]["userId"] for event in log[1:]] == [g.user_id for g in guests]


async def test_what_one_node_answered_the_other_knows(a: Api, b: Api, host: Host) -> None:
    room = await host.creates(at=a)
    assert (await b.room(room))["status"] == "active"

    guest = await Guest(b).joins(room)
    assert [p["userId"] for p in (await a.room(room))["participants"]][1:] == [guest.user_id]

    live = await guest.connects(a, since=guest.seq)
    assert (live.frames[0]["resumed"], live.frames[0]["seq"]) == (True, guest.seq)

    await guest.leaves(b, token=guest.token)
    assert len((await a.room(room))["participants"]) == 1
    assert await live.is_put_out() == 4009


async def test_fifty_who_connect_and_leave_at_once_on_both_nodes(
    a: Api, b: Api, host: Host, room: str
) -> None:
    watching = await host.connects(room)
    guests = await asyncio.gather(*(Guest(a).joins(room) for _ in range(50)))
    lives: list[Live] = await asyncio.gather(
        *(guest.connects(b if number % 2 else a) for number, guest in enumerate(guests))
    )
    await watching.reaches(102)
    assert set(watching.people.values()) == {"online"}

    await asyncio.gather(*(live.says(type="leave") for live in lives))

    assert [await live.is_put_out() for live in lives] == [1000] * 50
    log = await host.log(room)
    await watching.reaches(len(log))
    assert watching.history == log[2:]
    kinds = [event["type"] for event in log]
    assert kinds.count("participant_left") == 50
    assert "participant_away" not in kinds
    assert list(watching.people) == [host.user_id]


async def test_the_same_leave_on_both_nodes_at_once_is_one_event(
    a: Api, b: Api, host: Host, room: str
) -> None:
    guests = await asyncio.gather(*(Guest(a).joins(room) for _ in range(10)))

    answers = await asyncio.gather(*(guest.leaves(api) for guest in guests for api in (a, b, a, b)))

    assert {answer.status_code for answer in answers} == {200}
    log = await host.log(room)
    assert [event["type"] for event in log].count("participant_left") == 10


async def test_both_nodes_end_a_room_at_once(a: Api, b: Api, host: Host, admin: Host) -> None:
    room = await host.creates()
    watching = await admin.connects(room)

    ended = await asyncio.gather(*(host.ends(room, at=api) for api in (a, b) * 5))

    assert len({answer["endedAt"] for answer in ended}) == 1
    assert [event["type"] for event in await host.log(room)] == ["room_created", "room_ended"]
    assert await watching.is_put_out() == 4010


async def test_a_node_that_dies_between_commit_and_telling_loses_nothing(
    a: Api, b: Api, host: Host, admin: Host, deployment: Deployment, room: str
) -> None:
    """The log has it; whoever was not told finds it by the next poll, within 5 s.

    The guest has its answer, from the turn of the COMMIT.
    """
    lives = [await admin.connects(room, at=a), await admin.connects(room, at=b)]
    script = Path(__file__).with_name("dies_before_it_tells.py")
    dying = Api(deployment.node(program=(str(script),)))

    answer = await Guest(dying, "the last").asks_to_join(room)
    assert data(answer)["seq"] == 2
    for live in lives:
        joined = await live.sees("participant_joined", patience=5)
        assert (joined["seq"], joined["participant"]["userName"]) == (2, "the last")

    await Guest(a, "the next").joins(room)
    for live in lives:
        await live.sees("participant_joined", seq=3)
        assert live.seqs == [2, 3]
    people = data(await a.get(f"/api/interview/room/{room}"))["participants"]
    assert [p["userName"] for p in people] == ["张经理", "the last", "the next"]
    await dying.aclose()


async def test_a_storm_of_everything_leaves_every_watcher_with_the_whole_truth(
    a: Api, b: Api, deployment: Deployment, database: Database
) -> None:
    """Thirty people do what people do, for some seconds, on three nodes, in three rooms."""
    c = Api(deployment.node(PRESENCE_GRACE="1"))
    apis = [a, b, c]
    chance = random.Random(11)
    host, admin = await Host.hired(database, c), await Host.hired(database, a, "admin")
    rooms = [await host.creates() for _ in range(3)]
    watchers = [await admin.connects(room, at=api) for room in rooms for api in apis]
    end = asyncio.get_running_loop().time() + 6

    async def live_a_life() -> None:
        guest = await Guest(a).joins(chance.choice(rooms))
        lives: list[Live] = []
        while asyncio.get_running_loop().time() < end:
            api = chance.choice(apis)
            lives = [live for live in lives if live.code is None]
            with contextlib.suppress(ConnectionClosed):
                match chance.randrange(12):
                    case 0 | 1 | 2 | 3:
                        how = chance.choice(("header", "frame", "subprotocol"))
                        since = chance.choice((None, 0))
                        lives.append(
                            await api.watch(guest.room_id, guest.token, since=since, by=how)
                        )
                    case 4 if lives:
                        await lives.pop(0).vanishes()
                    case 5 if lives:
                        await lives.pop().hangs_up()
                    case 6 | 7 if lives:
                        await chance.choice(lives).says(type=chance.choice(("away", "ping")))
                    case 8 if lives:
                        await chance.choice(lives).says(type="leave")
                    case 9:
                        await guest.leaves(api, token=guest.token)
                    case 10:
                        await guest.joins(guest.room_id, api)
                    case 11:
                        await host.removes(guest.room_id, guest.user_id, api)
                        guest = await Guest(api).joins(chance.choice(rooms))

    await asyncio.gather(*(live_a_life() for _ in range(30)))

    for room in rooms:
        log = await host.log(room)
        for watching in [each for each in watchers if each.welcome["roomId"] == room]:
            await watching.reaches(len(log))
            assert watching.history[: len(log) - 1] == log[1:]
    for api in apis:
        told = api.node.lines()
        assert [line for line in told if line["level"] in ("error", "critical")] == []
    await c.aclose()


async def test_every_room_that_any_test_made_is_what_its_log_says(
    a: Api, database: Database, room: str
) -> None:
    """Of one moment: seqs without holes, rows as the replay has them, counts that are right."""
    async with database.transaction() as moment:
        await moment.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        rooms = await moment.fetch("SELECT * FROM interview_rooms")
        people = await moment.fetch(
            "SELECT * FROM interview_participants WHERE left_at IS NULL ORDER BY joined_seq"
        )
        log = await moment.fetch("SELECT * FROM room_events ORDER BY room_id, seq")
        connections = await moment.fetch("SELECT DISTINCT room_id, user_id FROM connections")

    events: dict[str, list[Event]] = {}
    for row in log:
        data_ = msgspec.json.decode(row["payload"])
        event = Event(
            FeedKey(ROOM, row["room_id"]), row["seq"], row["type"], timestamp(row["at"]), data_
        )
        events.setdefault(row["room_id"], []).append(event)
    connected = {(row["room_id"], row["user_id"]) for row in connections}
    for each in rooms:
        room_id = each["room_id"]
        here = [person for person in people if person["room_id"] == room_id]
        told = replay(events[room_id])
        assert [e.seq for e in events[room_id]] == list(range(1, each["last_seq"] + 1))
        assert [e.at for e in events[room_id]] == sorted(e.at for e in events[room_id])
        assert told.room["status"] == each["status"]
        assert [
            (p["userId"], p["userName"], p.get("identity"), p["joinedAt"], p["connection"])
            for p in told.participants.values()
        ] == [
            (
                p["user_id"],
                p["user_name"],
                p["identity"],
                timestamp(p["joined_at"]),
                p["connection"],
            )
            for p in here
        ]
        assert each["present"] == len(here)
        assert each["guests"] == sum(p["role"] == "guest" for p in here)
        assert each["online"] == sum(p["connection"] == "online" for p in here)
        for person in here:
            is_online = (room_id, person["user_id"]) in connected
            assert is_online == (person["connection"] == "online")
            assert (person["leave_at"] is not None) == (person["connection"] == "away")

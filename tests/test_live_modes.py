"""The ways to listen to a room beside the usual one, and the events of a newer version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from coordinator.store.database import Database
from tests.harness.limited import limited_nodes
from tests.harness.node import Deployment
from tests.harness.observing import comes_true
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host, Live, everybody_hangs_up


def counts(frame: dict[str, Any]) -> tuple[int, int]:
    return frame["participantCount"], frame["onlineCount"]


# -- roster=none ---------------------------------------------------------------------------------


async def test_who_asks_for_no_roster_is_told_how_many_there_are(
    a: Api, host: Host, room: str
) -> None:
    counting = await host.connects(room, roster="none")
    guest = await Guest(a).joins(room)
    live = await guest.connects()
    await guest.leaves(token=guest.token)

    await counting.reaches(5)

    assert list(counting.welcome) == [
        "type", "roomId", "seq", "epoch", "resumed", "room", "participantCount", "onlineCount",
        "self", "sessionId", "pingMs", "graceMs", "tokenExpiresAt", "now",
    ]  # fmt: skip
    assert counts(counting.welcome) == (1, 1)
    assert [(event["type"], *counts(event)) for event in counting.history] == [
        ("participant_joined", 2, 1),
        ("participant_online", 2, 2),
        ("participant_left", 1, 1),
    ]
    assert await live.is_put_out() == 4009
    assert "participantCount" not in live.welcome


async def test_the_other_listeners_are_told_no_counts(a: Api, host: Host, room: str) -> None:
    await host.connects(room, roster="none")
    plain = await host.connects(room)
    await Guest(a).joins(room)

    joined = await plain.sees("participant_joined")

    assert list(joined) == ["type", "roomId", "seq", "at", "participant"]


@pytest.mark.parametrize("since", [0, 1, 3, 4, 6])
async def test_who_resumes_on_a_node_that_has_forgotten_is_told_the_counts_of_then(
    a: Api, b: Api, host: Host, room: str, since: int
) -> None:
    """The other node has opened the room anew: it reads what came before from the log."""
    first = await Guest(a).joins(room)
    live = await first.connects()
    second = await Guest(a).joins(room)
    await live.vanishes()
    await comes_true(partial(_has_length, host, room, 5))  # it is away before the second leaves
    await second.leaves()
    await host.connects(room)
    expected = {0: (0, 0), 1: (1, 0), 2: (2, 0), 3: (2, 1), 4: (3, 1), 5: (3, 0), 6: (2, 0)}

    counting = await host.connects(room, at=b, roster="none", since=since)
    await counting.reaches(7)

    assert counting.welcome["resumed"] is True
    assert "room" not in counting.welcome
    assert counts(counting.welcome) == expected[since]
    told = [(event["seq"], counts(event)) for event in counting.history]
    assert told == [(seq, (expected | {7: (2, 1)})[seq]) for seq in range(since + 1, 8)]


async def _has_length(host: Host, room: str, length: int) -> bool:
    return len(await host.log(room)) == length


async def test_a_sync_keeps_the_mode(a: Api, host: Host, room: str) -> None:
    counting = await host.connects(room, roster="none")
    await Guest(a).joins(room)
    await counting.sees("participant_joined")

    await counting.says(type="sync", since=2)
    assert counts(await counting.sees("participant_joined")) == (2, 1)
    await counting.says(type="sync")
    welcome = await counting.sees("welcome")

    assert counts(welcome) == (2, 1)
    assert "participants" not in welcome


# -- epochs --------------------------------------------------------------------------------------


async def test_whoever_is_told_a_seq_is_told_its_epoch(
    host: Host, room: str, database: Database
) -> None:
    live = await host.connects(room)
    pong = await live.hears_pong()

    epoch = await database.fetchval("SELECT epoch FROM deployment")
    assert epoch
    assert live.welcome["epoch"] == pong["epoch"] == epoch


@pytest.mark.parametrize("same_node", [True, False])
async def test_who_resumes_in_another_epoch_is_sent_a_snapshot(
    a: Api, b: Api, host: Host, room: str, same_node: bool
) -> None:
    live = await host.connects(room)
    await Guest(a).joins(room)
    await live.reaches(3)
    at, epoch = a if same_node else b, live.welcome["epoch"]

    resumed = await host.connects(room, at=at, since=2, epoch=epoch)
    unsaid = await host.connects(room, at=at, since=2)
    other = await host.connects(room, at=at, since=2, epoch="another")
    beginning = await host.connects(room, at=at, since=0, epoch="another")

    welcomes = [each.welcome for each in (resumed, unsaid, other, beginning)]
    assert [each["resumed"] for each in welcomes] == [True, True, False, False]
    assert [each["seq"] for each in welcomes] == [2, 2, 3, 3]
    await resumed.reaches(3)


async def test_a_sync_of_another_epoch_is_answered_by_a_snapshot(
    a: Api, host: Host, room: str
) -> None:
    live = await host.connects(room)
    await Guest(a).joins(room)
    await live.reaches(3)

    await live.says(type="sync", since=2, epoch=live.welcome["epoch"])
    await live.hears_pong()
    assert live.seqs == [3, 3]
    await live.says(type="sync", since=2, epoch="another")
    await live.hears_pong()

    assert (live.welcome["resumed"], live.welcome["seq"]) == (False, 3)
    assert live.seqs == [3, 3]


# -- observe=1 -----------------------------------------------------------------------------------


async def test_the_host_may_look_without_being_there(a: Api, host: Host, room: str) -> None:
    looking = await host.connects(room, observe="1")

    assert looking.welcome["self"] == {"userId": host.user_id, "role": "observer"}
    assert looking.people == {host.user_id: "none"}
    guest = await Guest(a).joins(room)
    await looking.sees("participant_joined", user_id=guest.user_id)
    assert [event["type"] for event in await host.log(room)] == [
        "room_created", "participant_joined",
    ]  # fmt: skip


async def test_who_looks_takes_none_of_the_five_connections(host: Host, room: str) -> None:
    lives = [await host.connects(room) for _ in range(5)]

    looking = await host.connects(room, observe="1")

    await looking.hears_pong()
    assert [live.code for live in lives] == [None] * 5


async def test_an_observers_leave_closes_it_and_its_away_is_an_error(
    host: Host, admin: Host, room: str
) -> None:
    for who in (host, admin):
        looking = await who.connects(room, observe="1")
        await looking.says(type="away")
        assert (await looking.sees("error"))["code"] == "INVALID_FRAME"
        await looking.says(type="leave")
        assert await looking.is_put_out() == 1000
    assert len(await host.log(room)) == 1


async def test_a_guest_or_another_member_of_the_staff_may_not_look(
    a: Api, host: Host, room: str, database: Database
) -> None:
    guest = await Guest(a).joins(room)
    other = await Host.hired(database, a)

    for token in (guest.token, other.token):
        assert await (await a.watch(room, token, observe="1")).is_put_out() == 4003


# -- the query -----------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [{"roster": "some"}, {"observe": "yes"}, {"since": "-1"}])
async def test_a_value_that_a_parameter_cannot_have_is_4001(
    a: Api, host: Host, room: str, query: dict[str, str]
) -> None:
    assert await (await a.watch(room, host.token, **query)).is_put_out() == 4001


async def test_a_token_that_is_offered_alone_is_told_to_offer_the_protocol_too(
    a: Api, host: Host, room: str
) -> None:
    """A browser hangs up where none of what it offered is selected, and would never be told."""
    token = Subprotocol(f"bearer.{host.token}")
    url = f"{a.node.ws}/api/interview/room/{room}/live"

    live = Live(await connect(url, subprotocols=[token], proxy=None, open_timeout=patient(10)))

    assert await live.is_put_out() == 4001
    assert live.socket.subprotocol == token
    assert live.frames[0]["reason"] == "offer room.v1 too"


async def test_silence_counts_against_the_address(
    deployment: Deployment, host: Host, room: str
) -> None:
    for node in limited_nodes(deployment, {"RATE_LIMITS": "live=1/hour"}):
        async with aclosing(Api(node)) as strict:
            silent = [await strict.watch(room, None) for _ in range(2)]
            codes = {await live.is_put_out() for live in silent}

    assert codes == {4301, 4102}


# -- events of a newer version ---------------------------------------------------------------------


@pytest_asyncio.fixture
async def changed_room(host: Host, database: Database) -> AsyncIterator[str]:
    """A room whose log a newer version has written to; nothing of it stays."""
    room = await host.creates()
    yield room
    await everybody_hangs_up()
    for table in ("connections", "room_events", "interview_participants", "interview_rooms"):
        await database.execute(f"DELETE FROM {table} WHERE room_id = $1", room)


async def test_an_event_of_a_newer_version_is_passed_on_and_the_room_read_anew(
    a: Api, b: Api, host: Host, changed_room: str, database: Database
) -> None:
    """Both nodes hold the room; the database is changed as a newer version would."""
    room = changed_room
    guest = await Guest(a).joins(room)
    live = await guest.connects()
    watching = await host.connects(room, at=b)
    other_room = await host.creates()
    bystander = await host.connects(other_room, at=b)
    await live.reaches(4)

    await database.execute(
        """
        WITH moved AS (
            UPDATE interview_rooms SET last_seq = last_seq + 1, last_at = clock_timestamp(),
                room_name = '新名字'
            WHERE room_id = $1 RETURNING room_id, last_seq, last_at
        )
        INSERT INTO room_events (room_id, seq, type, at, payload)
        SELECT room_id, last_seq, 'room_renamed', last_at, '{"roomName":"新名字"}' FROM moved
        """,
        room,
    )
    for each in (live, watching):
        renamed = await each.sees("room_renamed", roomName="新名字")
        assert renamed["seq"] == 5
    second = await Guest(b).joins(room)
    for each in (live, watching):
        assert (await each.sees("participant_joined", user_id=second.user_id))["seq"] == 6
    late = await second.connects(at=b)

    assert late.welcome["room"]["roomName"] == "新名字"
    assert list(late.people) == [host.user_id, guest.user_id, second.user_id]
    assert (bystander.code, live.code, watching.code) == (None, None, None)
    await bystander.hears_pong()


async def test_who_a_newer_version_put_out_is_closed_once_the_room_is_read_anew(
    a: Api, host: Host, changed_room: str, database: Database
) -> None:
    room = changed_room
    guest = await Guest(a).joins(room)
    live = await guest.connects()
    watching = await host.connects(room)
    await watching.reaches(4)

    await database.execute(
        """
        WITH closed AS (
            DELETE FROM connections WHERE room_id = $1 AND user_id = $2
        ), gone AS (
            UPDATE interview_participants SET left_at = clock_timestamp(), connection = 'none'
            WHERE room_id = $1 AND user_id = $2
        ), moved AS (
            UPDATE interview_rooms SET last_seq = last_seq + 1, last_at = clock_timestamp(),
                present = present - 1, guests = guests - 1, online = online - 1
            WHERE room_id = $1 RETURNING room_id, last_seq, last_at
        )
        INSERT INTO room_events (room_id, seq, type, at, payload)
        SELECT room_id, last_seq, 'participant_banned', last_at,
            json_build_object('participant', json_build_object('userId', $2::text))
        FROM moved
        """,
        room, guest.user_id,
    )  # fmt: skip

    await Guest(a).joins(room)  # whose event shows the gap at once

    await watching.sees("participant_banned", user_id=guest.user_id)
    assert await live.is_put_out() == 4009
    assert watching.code is None

"""The room's websocket, as its clients find it."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from coordinator.store.database import Database
from tests.harness.node import Deployment
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host, Live, aged, bearer, moment, refusal


@pytest_asyncio.fixture(scope="module")
async def quick(deployment: Deployment) -> AsyncIterator[Api]:
    """A node with a grace of one second and room for 8 KiB that nobody reads."""
    settings = {"PRESENCE_GRACE": "1", "LIVE_BUFFER": "8192"}
    origins = "https://servicewechat.com,https://crm.example.com/"
    api = Api(deployment.node(**settings, ALLOWED_ORIGINS=origins))
    yield api
    await api.aclose()


def types(live: Live) -> list[str]:
    return [event["type"] for event in live.history]


# -- connecting ----------------------------------------------------------------------------------


async def test_a_guest_is_welcomed_with_the_room_as_it_is(a: Api, host: Host, room: str) -> None:
    guest = await Guest(a).joins(room)

    live = await guest.connects()

    welcome = live.frames[0]
    assert list(welcome) == [
        "type", "roomId", "seq", "epoch", "resumed", "room", "participants", "self", "sessionId",
        "pingMs", "graceMs", "tokenExpiresAt", "now",
    ]  # fmt: skip
    assert (welcome["type"], welcome["roomId"], welcome["seq"]) == ("welcome", room, 3)
    assert welcome["resumed"] is False
    seen = await a.room(room)
    assert welcome["participants"] == seen["participants"]
    assert welcome["room"] == {
        name: seen[name] for name in ("roomName", "hostName", "status", "createdAt")
    }
    assert [p["connection"] for p in seen["participants"]] == ["none", "online"]
    assert welcome["self"] == {"userId": guest.user_id, "role": "guest"}
    assert (welcome["pingMs"], welcome["graceMs"]) == (25000, 30000)
    lifetime = moment(welcome["tokenExpiresAt"]) - moment(welcome["now"])
    assert timedelta(hours=23, minutes=59) < lifetime <= timedelta(hours=24, seconds=1)


async def test_frames_are_compact_json_with_non_ascii_as_it_is(a: Api, room: str) -> None:
    live = await (await Guest(a, "李 明🎥").joins(room)).connects()
    await live.hears_pong()

    assert "李 明🎥" in live.texts[0]
    for text in live.texts:
        assert text == json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("by", ["header", "subprotocol", "frame"])
async def test_a_token_is_presented_in_three_ways(a: Api, room: str, by: str) -> None:
    guest = await Guest(a).joins(room)

    live = await guest.connects(by=by)

    assert live.welcome["self"]["userId"] == guest.user_id
    assert live.socket.subprotocol == ("room.v1" if by == "subprotocol" else None)


async def test_a_header_wins_over_a_subprotocol(a: Api, room: str) -> None:
    guest = await Guest(a).joins(room)
    url = f"{a.node.ws}/api/interview/room/{room}/live"

    async def present(header: str, subprotocol: str) -> Live:
        protocols: list[Any] = ["room.v1", f"bearer.{subprotocol}"]
        headers = bearer(header)
        return Live(
            await connect(url, additional_headers=headers, subprotocols=protocols, proxy=None)
        )

    assert (await (await present(guest.token, "broken")).sees("welcome"))["seq"] == 3
    assert await (await present("broken", guest.token)).is_put_out() == 4301


async def test_before_its_first_frame_nothing_is_sent_and_nobody_sees_it(
    a: Api, host: Host, room: str
) -> None:
    guest = await Guest(a).joins(room)
    watching = await host.connects(room)

    live = await a.watch(room, None)
    await watching.hears_pong()

    assert live.frames == []
    assert watching.people[guest.user_id] == "none"
    await live.says(type="auth", token=guest.token)
    assert (await live.sees("welcome"))["self"]["userId"] == guest.user_id
    await watching.sees("participant_online", user_id=guest.user_id)


@pytest.mark.parametrize(
    "first",
    [
        '{"type":"ping"}', "not json", "[]", '{"type":"auth"}', '{"type":"auth","token":5}',
        '{"type":"auth","token":""}', '{"type":"auth","token":"broken"}', b"\x00\x01", "",
    ],
)  # fmt: skip
async def test_another_first_frame_is_refused(a: Api, room: str, first: str | bytes) -> None:
    live = await a.watch(room, None)

    await live.sends(first)

    assert await live.is_put_out() == 4301
    assert len(live.frames) == 1


async def test_a_token_in_the_url_is_none(a: Api, room: str) -> None:
    guest = await Guest(a).joins(room)
    live = await a.watch(room, None, since=f"0&token={guest.token}&access_token={guest.token}")

    await live.says(type="ping")

    assert await live.is_put_out() == 4301


async def test_silence_is_refused_after_five_seconds(a: Api, room: str) -> None:
    live = await a.watch(room, None)
    opened = asyncio.get_running_loop().time()

    assert await live.is_put_out(patience=12) == 4301

    assert 4.5 < asyncio.get_running_loop().time() - opened < patient(10)


@pytest.mark.parametrize("since", ["", "x", "-1", "1.5", "0x1", "1e3", "%00", "%E4%B8%80", "+1"])
async def test_a_since_that_is_no_number_is_4001(a: Api, room: str, since: str) -> None:
    guest = await Guest(a).joins(room)

    assert await (await a.watch(room, guest.token, since=since)).is_put_out() == 4001


async def test_refusals_are_told_by_bye_and_code(
    a: Api, host: Host, database: Database, room: str
) -> None:
    other = await Host.hired(database, a)
    guest = await Guest(a).joins(room)
    elsewhere = await Guest(a).joins(await host.creates())
    removed = await Guest(a).joins(room)
    await host.removes(room, removed.user_id)

    async def told(token: str, room_id: str = room) -> int:
        live = await a.watch(room_id, token)
        code = await live.is_put_out()
        assert list(live.frames[0]) == ["type", "code", "reason", "retry"]
        return code

    assert await told(elsewhere.token) == 4003
    assert await told(other.token) == 4003
    assert await told(host.token, "nobody-made-it") == 4004
    assert await told(host.token, "a%20b") == 4004
    assert await told(removed.token) == 4005
    assert await told(aged(guest.token, 1)) == 4300
    assert await told(aged(host.token, 1)) == 4300
    assert await told(guest.token + "x") == 4301
    assert len(await host.log(room)) == 4, "a refusal is no event"


async def test_an_ended_room_refuses_everybody(a: Api, host: Host, admin: Host, room: str) -> None:
    guest = await Guest(a).joins(room)
    await host.ends(room)

    for token in (guest.token, host.token, admin.token):
        for since in (None, 0):
            assert await (await a.watch(room, token, since=since)).is_put_out() == 4010


async def test_a_foreign_origin_is_refused_and_none_is_fine(
    a: Api, quick: Api, host: Host, room: str
) -> None:
    async def code(api: Api, origin: str | None) -> int | None:
        live = await api.watch(room, host.token, origin=origin)
        await live.until(lambda: live.frames)
        return None if live.frames[0]["type"] == "welcome" else await live.is_put_out()

    assert await code(a, None) is None
    assert await code(a, a.node.url) is None
    assert await code(a, "https://evil.example.com") == 4003
    assert await code(a, "null") == 4003
    assert await code(a, a.node.url + ".evil.example.com") == 4003
    assert await code(quick, "https://crm.example.com") is None
    assert await code(quick, "https://servicewechat.com") is None
    assert await code(quick, "https://crm.example.com.evil.com") == 4003


async def test_compression_is_never_agreed_on(a: Api, host: Host, room: str) -> None:
    url = f"{a.node.ws}/api/interview/room/{room}/live/"

    live = Live(await connect(url, compression="deflate", additional_headers=bearer(host.token)))

    await live.sees("welcome")
    assert live.socket.protocol.extensions == []


HANDSHAKE = {
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def test_the_handshake_of_rfc_6455_is_answered_as_printed_there(a: Api, room: str) -> None:
    assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in await shake_hands(a, room, HANDSHAKE)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Sec-WebSocket-Version", "8"), ("Sec-WebSocket-Version", None),
        ("Sec-WebSocket-Key", "short"), ("Sec-WebSocket-Key", None), ("Upgrade", "h2c"),
        ("Connection", "close"),
    ],
)  # fmt: skip
async def test_a_handshake_that_is_none_is_not_accepted(
    a: Api, room: str, header: str, value: str | None
) -> None:
    changed = {name: v for name, v in {**HANDSHAKE, header: value}.items() if v is not None}

    answer = await shake_hands(a, room, changed)

    assert answer.split()[1].startswith("4")
    assert (await a.get("/health/live")).status_code == 200


async def shake_hands(api: Api, room: str, headers: dict[str, str]) -> str:
    """What comes back before the first frame."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.node.port)
    lines = [f"GET /api/interview/room/{room}/live HTTP/1.1", f"Host: 127.0.0.1:{api.node.port}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), patient(5))
    writer.close()
    return answer.decode()


async def test_a_path_without_a_live_room_is_plain_404(a: Api) -> None:
    for path in ("/api/interview/room/live", "/nowhere", "/api/interview/room/x/y/live"):
        with pytest.raises(InvalidStatus) as refused:
            await connect(a.node.ws + path, proxy=None)
        assert refused.value.response.status_code == 404
        assert json.loads(refused.value.response.body or b"{}")["code"] == "NOT_FOUND"


async def test_without_an_upgrade_the_endpoint_says_what_it_is(a: Api, room: str) -> None:
    assert refusal(await a.get(f"/api/interview/room/{room}/live")) == (400, "INVALID_PARAMS")


async def test_an_admin_observes_without_being_seen(
    a: Api, host: Host, admin: Host, room: str
) -> None:
    live = await admin.connects(room)

    assert live.welcome["self"] == {"userId": admin.user_id, "role": "observer"}
    assert list(live.people) == [host.user_id]
    await live.says(type="away")
    await live.sees("error")
    guest = await Guest(a).joins(room)
    await live.sees("participant_joined", user_id=guest.user_id)
    await live.says(type="leave")
    assert await live.is_put_out() == 1000
    assert [event["type"] for event in await host.log(room)] == [
        "room_created", "participant_joined"
    ]  # fmt: skip


# -- resuming ------------------------------------------------------------------------------------


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


# -- events --------------------------------------------------------------------------------------


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


# -- what clients say ----------------------------------------------------------------------------


async def test_a_ping_is_answered_with_the_rooms_last_seq(a: Api, room: str) -> None:
    live = await (await Guest(a).joins(room)).connects()
    await Guest(a).joins(room)

    pong = await live.hears_pong()

    assert list(pong) == ["type", "seq", "epoch", "now"]
    assert pong["seq"] == 4
    assert live.seqs == [4], "all of it was sent before"


async def test_the_server_pings_by_itself(admin: Host, room: str) -> None:
    """The first ping comes at a random part of `pingMs`: of thirty, one comes soon."""
    lives = await asyncio.gather(*(admin.connects(room) for _ in range(30)))

    waits = [asyncio.create_task(live.sees("ping", patience=20)) for live in lives]
    done, others = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)

    ping = done.pop().result()
    assert list(ping) == ["type", "seq", "epoch", "now"]
    assert ping["seq"] == 1


async def test_a_protocol_ping_is_answered_by_the_protocol_alone(a: Api, room: str) -> None:
    """Many websocket libraries ping by themselves; it is no frame of the room's language."""
    guest = await Guest(a).joins(room)
    live = await guest.connects()
    waiting = await a.watch(room, None)

    for each in (live, waiting):
        await asyncio.wait_for(await each.socket.ping(), patient(5))

    await live.hears_pong()
    assert [frame["type"] for frame in live.frames] == ["welcome", "pong"]
    await waiting.says(type="auth", token=guest.token)
    await waiting.sees("welcome")


async def test_sync_gives_the_events_after_a_seq_or_a_snapshot(
    a: Api, host: Host, room: str
) -> None:
    live = await host.connects(room)
    for _ in range(3):
        await Guest(a).joins(room)
    await live.reaches(5)
    told = len(live.frames)

    await live.says(type="sync", since=2)
    await live.hears_pong()
    assert live.frames[told:-1] == (await host.log(room))[2:5]

    await live.says(type="sync", since=0)
    await live.hears_pong()
    assert live.history[-5:] == await host.log(room)

    told = len(live.frames)
    await live.says(type="sync", since=5)
    await live.hears_pong()
    assert len(live.frames) == told + 1, "nothing after the end"

    await live.says(type="sync", since=6)
    welcome = await live.sees("welcome")
    assert (welcome["resumed"], welcome["seq"]) == (False, 5)
    assert len(welcome["participants"]) == 4

    await Guest(a).joins(room)
    assert (await live.sees("participant_joined", seq=6))["seq"] == 6


@pytest.mark.parametrize("since", [None, -1, "1", 1.5, True, [], 2**70])
async def test_a_sync_without_a_seq_is_an_error(a: Api, host: Host, room: str, since: Any) -> None:
    live = await host.connects(room)

    await live.says(type="sync", since=since)

    await live.until(lambda: live.frames[-1]["type"] in ("error", "welcome") and live.frames[1:])
    assert live.frames[-1]["type"] == ("welcome" if since == 2**70 else "error")
    await live.hears_pong()


async def test_refresh_prolongs_and_a_bad_one_changes_nothing(
    a: Api, host: Host, room: str
) -> None:
    guest = await Guest(a).joins(room)
    fresh = guest.token
    guest.token = aged(fresh, -2)
    live = await guest.connects()

    for bad in ("broken", aged(fresh, 5), 5, None, ""):
        await live.says(type="refresh", token=bad)
        error = await live.sees("error")
        assert set(error) == {"type", "code", "message"}
    await live.says(type="refresh", token=fresh)
    refreshed = await live.sees("refreshed")

    assert list(refreshed) == ["type", "tokenExpiresAt"]
    assert moment(refreshed["tokenExpiresAt"]) - moment(live.welcome["tokenExpiresAt"]) > timedelta(
        hours=23
    )
    await asyncio.sleep(2.2)  # past the first one's time
    await live.hears_pong()
    assert live.code is None


async def test_anothers_token_in_a_refresh_ends_the_connection(
    a: Api, host: Host, room: str
) -> None:
    guest, other = await Guest(a).joins(room), await Guest(a).joins(room)

    for token in (other.token, host.token):
        live = await guest.connects()
        await live.says(type="refresh", token=token)
        assert await live.is_put_out() == 4003


async def test_a_token_that_runs_out_ends_the_connection_like_a_drop(
    a: Api, host: Host, room: str
) -> None:
    watching = await host.connects(room)
    guest = await Guest(a).joins(room)
    guest.token = aged(guest.token, -2)

    live = await guest.connects()

    assert await live.is_put_out() == 4300
    await watching.sees("participant_away", user_id=guest.user_id)


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


async def test_leaving_over_rest_closes_the_connections(a: Api, b: Api, room: str) -> None:
    guest = await Guest(a).joins(room)
    live = await guest.connects(b)

    await guest.leaves(a, token=guest.token)

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


# -- presence ------------------------------------------------------------------------------------


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

    await asyncio.sleep(2)  # longer than the grace and what may follow it
    await watching.hears_pong()
    assert "participant_left" not in types(watching)


async def test_who_never_connected_stays(a: Api, quick: Api, database: Database) -> None:
    host = await Host.hired(database, quick)
    room = await host.creates()
    guest = await Guest(quick).joins(room)

    await asyncio.sleep(2)  # longer than the grace

    people = (await quick.room(room))["participants"]
    assert [(p["userId"], p["connection"]) for p in people] == [
        (host.user_id, "none"), (guest.user_id, "none")
    ]  # fmt: skip


async def test_so_many_connections_per_node_and_so_many_failures_per_client(
    a: Api, deployment: Deployment, host: Host, room: str
) -> None:
    """Who has a valid token is not counted: after a node's death everybody comes back at once."""
    narrow = Api(deployment.node(LIVE_MAX_CONNECTIONS="2", RATE_LIMITS="live=3/hour"))
    lives = [await host.connects(room, at=narrow) for _ in range(2)]

    assert await (await narrow.watch(room, host.token)).is_put_out() == 4100
    for live in lives:
        await live.hangs_up()
    codes = [await (await narrow.watch(room, "broken")).is_put_out() for _ in range(5)]

    assert codes == [4301, 4301, 4301, 4102, 4102]
    await host.connects(room, at=narrow)
    await narrow.aclose()


async def test_places_are_taken_before_anything_is_waited_for(
    deployment: Deployment, host: Host, room: str
) -> None:
    narrow = Api(deployment.node(LIVE_MAX_CONNECTIONS="3"))
    waiting = [await narrow.watch(room, None) for _ in range(3)]

    assert await (await narrow.watch(room, host.token)).is_put_out() == 4100
    assert [live.frames for live in waiting] == [[], [], []]
    await waiting[0].vanishes()
    await host.connects(room, at=narrow)
    await narrow.aclose()


# -- too much ------------------------------------------------------------------------------------


async def test_who_speaks_too_fast_is_told_so_and_closed_after_ten_seconds(
    a: Api, room: str
) -> None:
    live = await (await Guest(a).joins(room)).connects()
    started = asyncio.get_running_loop().time()

    async def chatter() -> None:
        while live.code is None:
            await asyncio.gather(*(live.says(type="ping") for _ in range(5)))
            await asyncio.sleep(0.05)

    talking = asyncio.create_task(chatter())
    error = await live.sees("error")
    assert error["code"] == "RATE_LIMITED"
    assert [frame["type"] for frame in live.frames].count("pong") >= 30

    assert await live.is_put_out(patience=25) == 4102
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)
    assert asyncio.get_running_loop().time() - started > 9


async def test_who_does_not_read_is_hung_up_on_and_loses_nothing(
    a: Api, quick: Api, database: Database
) -> None:
    host = await Host.hired(database, quick)
    room = await host.creates()
    await asyncio.gather(*(Guest(quick, "长" * 100).joins(room) for _ in range(200)))
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    small.connect(("127.0.0.1", quick.node.port))
    url = f"{quick.node.ws}/api/interview/room/{room}/live?since=201"
    live = Live(await connect(url, sock=small, additional_headers=bearer(host.token), proxy=None))
    await live.sees("welcome")

    live.socket.transport.pause_reading()
    for _ in range(10):
        await live.says(type="sync", since=1)
    while "coordinator_slow_consumers_total 0.0" in await _metrics(quick):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    live.socket.transport.resume_reading()
    await live.until(lambda: live.code is not None)

    again = await host.connects(room, at=a, since=live.seq)
    await again.reaches(len(await host.log(room)))
    assert again.welcome["resumed"] is True


async def _metrics(api: Api) -> str:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{api.node.url}/metrics")).text

"""The way in: tokens, origins, refusals, the welcome."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from websockets.asyncio.client import connect

from coordinator.store.database import Database
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host, Live, bearer, moment
from tests.harness.tokens import aged
from tests.harness.wire import upgrade


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
            await connect(
                url, additional_headers=headers, subprotocols=protocols, proxy=None,
                open_timeout=patient(10),
            )
        )  # fmt: skip

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
    began = asyncio.get_running_loop().time()
    live = await a.watch(room, None)
    accepted = asyncio.get_running_loop().time()

    assert await live.is_put_out(patience=12) == 4301

    ended = asyncio.get_running_loop().time()
    assert ended - began >= 5
    assert ended - accepted < 10


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
    assert await told(host.token, "a%2Fb") == 4004
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


async def test_the_origins_of_wechats_client_are_not_foreign(a: Api, host: Host, room: str) -> None:
    async def code(origin: str) -> int | None:
        live = await a.watch(room, host.token, origin=origin)
        await live.until(lambda: live.frames)
        return None if live.frames[0]["type"] == "welcome" else await live.is_put_out()

    assert await code("weapp://wechat-game-runtime") is None
    assert await code(f"{a.node.url},undefined") is None
    assert await code("https://evil.example.com,undefined") == 4003
    assert await code(f"https://evil.example.com, {a.node.url}") == 4003
    assert await code("null,weapp://x") == 4003
    told = [line["origin"] for line in a.node.lines() if line["event"] == "foreign_origins"]
    assert told, "an operator looks for the reason of a 4003"


@pytest.mark.parametrize(
    ("host_header", "origin", "is_own"),
    [
        ("i.example.com", "https://i.example.com", True),
        ("I.example.com", "https://i.example.com", True),
        ("i.example.com:443", "https://i.example.com", True),
        ("i.example.com:80", "http://i.example.com", True),
        ("i.example.com:443", "http://i.example.com", False),
        ("i.example.com:8443", "https://i.example.com", False),
        ("i.example.com:x", "https://i.example.com", False),
        ("", "https://i.example.com", False),
    ],
)  # fmt: skip
async def test_a_host_that_says_its_usual_port_is_the_same_origin(
    a: Api, host: Host, room: str, host_header: str, origin: str, is_own: bool
) -> None:
    """Some proxies add the port that a browser leaves out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", a.node.port)
    told = (f"Origin: {origin}", f"Authorization: Bearer {host.token}")
    writer.write(upgrade(host_header, f"/api/interview/room/{room}/live", told))

    await reader.readuntil(b"\r\n\r\n")
    first = await reader.readuntil(b"}")
    assert (b'"welcome"' in first) is is_own
    writer.close()


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

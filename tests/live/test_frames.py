"""What clients say, and what they are answered: ping, sync, refresh."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.harness.patience import long_enough, patient
from tests.harness.people import Api, Guest, Host, moment
from tests.harness.tokens import aged


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
    guest.token = aged(fresh, -long_enough(4))
    live = await guest.connects()
    ends_at = moment(live.welcome["tokenExpiresAt"])

    for bad in ("broken", aged(fresh, 5), 5, None, ""):
        await live.says(type="refresh", token=bad)
        error = await live.sees("error")
        assert set(error) == {"type", "code", "message"}
    await live.says(type="refresh", token=fresh)
    refreshed = await live.sees("refreshed")

    assert list(refreshed) == ["type", "tokenExpiresAt"]
    assert moment(refreshed["tokenExpiresAt"]) - ends_at > timedelta(hours=23)
    await asyncio.sleep((ends_at - datetime.now(UTC)).total_seconds() + 0.5)
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
    life = long_enough(4)
    guest.token = aged(guest.token, -life)

    live = await guest.connects()

    assert await live.is_put_out(patience=8 + life) == 4300
    await watching.sees("participant_away", user_id=guest.user_id)

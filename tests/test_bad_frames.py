"""Whatever frame is sent, the connection answers in the protocol's own words."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from tests.harness.people import Api, Host, Live
from tests.test_bad_input import assert_no_failure_of_ours

BAD_FRAMES: dict[str, str | bytes] = {
    "empty": "",
    "not JSON": "hello",
    "half of it": '{"type": "pi',
    "a list": '["ping"]',
    "a string": '"ping"',
    "null": "null",
    "no type": "{}",
    "type is no string": '{"type": 5}',
    "type is null": '{"type": null}',
    "unknown type": '{"type": "dance"}',
    "an event's type": '{"type": "room_ended"}',
    "auth again": '{"type": "auth", "token": "x"}',
    "type in capitals": '{"type": "PING"}',
    "a lone surrogate": '{"type": "\\ud800"}',
    "a NUL": '{"type": "\\u0000"}',
    "deep nesting": '{"type": ' + "[" * 4000,
    "binary": b"\x00\x01\x02",
    "binary JSON": b'{"type":"ping"}',
    "binary of 16 KiB": b"x" * 16384,
    "4 KiB and one": json.dumps({"type": "ping", "x": "x" * (4097 - 24)}),
    "16 KiB": "x" * 16384,
    "sync of null": '{"type": "sync", "since": null}',
    "sync of an epoch that is none": '{"type": "sync", "since": 0, "epoch": 5}',
    "refresh of nothing": '{"type": "refresh"}',
}


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
async def test_a_bad_frame_is_an_error_and_the_connection_stays(
    a: Api, host: Host, admin: Host, room: str, frame: str | bytes
) -> None:
    """Also that of an observer; nobody else is told."""
    watching = await admin.connects(room)
    for who in (host, admin):
        live = await who.connects(room)

        await live.sends(frame)

        error = await live.sees("error")
        assert list(error) == ["type", "code", "message"]
        await live.hears_pong()
    await watching.hears_pong()
    assert [event["type"] for event in watching.history] == ["participant_online"]


async def test_a_frame_of_exactly_4_kib_is_read(host: Host, room: str) -> None:
    live = await host.connects(room)
    frame = json.dumps({"type": "ping", "x": ""})

    await live.sends(frame[:-2] + "x" * (4096 - len(frame)) + '"}')

    await live.sees("pong")
    assert "error" not in [frame["type"] for frame in live.frames]


@pytest.mark.parametrize(
    "frame", ["x" * 16385, b"x" * 16385, "长" * 6000, "x" * 1_000_000], ids=len
)
async def test_a_frame_of_more_than_16_kib_is_closed_by_the_protocol(
    a: Api, host: Host, room: str, frame: str | bytes
) -> None:
    live = await host.connects(room)

    await closed_by(live, frame)

    assert live.code == 1009


async def test_pieces_of_a_message_count_together(host: Host, room: str) -> None:
    live = await host.connects(room)

    await live.socket.send(iter(['{"type"', ':"pi', 'ng"}']))
    await live.sees("pong")
    await closed_by(live, iter(["x" * 6000] * 3))

    assert live.code == 1009


async def test_text_that_is_no_utf8_is_closed_by_the_protocol(host: Host, room: str) -> None:
    live = await host.connects(room)

    await live.socket.send(b"\xff\xfe", text=True)
    await live.until(lambda: live.code is not None)

    assert live.code == 1007


async def closed_by(live: Live, frame: Any) -> None:
    try:
        await live.socket.send(frame)
    except Exception:
        assert live.socket.close_code is not None or live.code is not None
    await live.until(lambda: live.code is not None)


async def test_more_frames_than_allowed_are_errors_and_the_connection_stays(
    host: Host, room: str
) -> None:
    live = await host.connects(room)

    live.says_at_once(*[{"type": "ping"}] * 60)
    await live.until(lambda: sum(f["type"] in ("pong", "error") for f in live.frames) >= 60)

    pongs = sum(frame["type"] == "pong" for frame in live.frames)
    errors = [frame for frame in live.frames if frame["type"] == "error"]
    assert 30 <= pongs < 60
    assert {error["code"] for error in errors} == {"RATE_LIMITED"}
    for _ in range(20):  # a ping for each answer: soon one is allowed again
        told = len(live.frames)
        await live.says(type="ping")
        await live.until(partial(_has_grown, live.frames, told))
        if live.frames[-1]["type"] == "pong":
            return
    raise AssertionError("it is never forgiven")


def _has_grown(frames: list[dict[str, Any]], before: int) -> bool:
    return len(frames) > before


async def test_no_frame_was_a_failure_of_ours(a: Api, b: Api) -> None:
    """Last in this file."""
    await assert_no_failure_of_ours(a, b)

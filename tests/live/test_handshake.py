"""The websocket handshake, and what is none."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from coordinator.store.database import Database
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host, Live, bearer, refusal
from tests.harness.wire import BINARY, TEXT, frame, frames, upgrade


async def test_compression_is_never_agreed_on(a: Api, host: Host, room: str) -> None:
    url = f"{a.node.ws}/api/interview/room/{room}/live/"

    live = Live(
        await connect(
            url, compression="deflate", additional_headers=bearer(host.token),
            open_timeout=patient(10),
        )
    )  # fmt: skip

    await live.sees("welcome")
    assert live.socket.protocol.extensions == []


HANDSHAKE = {
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def test_the_handshake_of_rfc_6455_is_answered_as_printed_there(a: Api, room: str) -> None:
    head, _ = await shake_hands(a, room, HANDSHAKE)

    assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Upgrade", "h2c, WebSocket"), ("Upgrade", "websocket\r\nUpgrade: h2c"),
        ("Connection", "Upgrade\r\nConnection: keep-alive"), ("Connection", "x,upgrade,y"),
    ],
)  # fmt: skip
async def test_a_websocket_may_be_one_of_several_that_are_asked_for(
    a: Api, room: str, header: str, value: str
) -> None:
    head, _ = await shake_hands(a, room, {**HANDSHAKE, header: value})

    assert head.startswith("HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Sec-WebSocket-Version", "8"), ("Sec-WebSocket-Version", None),
        ("Sec-WebSocket-Key", "short"), ("Sec-WebSocket-Key", None),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAAAA"), ("Upgrade", "h2c"),
        ("Connection", "close"),
    ],
)  # fmt: skip
async def test_a_handshake_that_is_none_is_not_accepted(
    a: Api, room: str, header: str, value: str | None
) -> None:
    changed = {name: v for name, v in {**HANDSHAKE, header: value}.items() if v is not None}

    head, content = await shake_hands(a, room, changed)

    body = json.loads(content)
    assert head.startswith("HTTP/1.1 400 ")
    assert body.keys() == {"success", "message", "code"}
    assert body["code"] == "INVALID_PARAMS"
    if header.startswith("Sec"):
        assert "sec-websocket-version: 13" in head.lower(), "RFC 6455, section 4.4"
    assert (await a.get("/health/live")).status_code == 200


async def shake_hands(api: Api, room: str, headers: dict[str, str]) -> tuple[str, bytes]:
    """The head of the answer; its body, where it is a refusal."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.node.port)
    lines = [f"GET /api/interview/room/{room}/live HTTP/1.1", f"Host: 127.0.0.1:{api.node.port}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(patient(5)):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        body = b"" if head.startswith("HTTP/1.1 101 ") else await whole_body(reader, head)
    writer.close()
    return head, body


async def whole_body(reader: asyncio.StreamReader, head: str) -> bytes:
    size = head.lower().partition("content-length: ")[2].partition("\r\n")[0]
    return await reader.readexactly(int(size))


async def test_a_path_without_a_live_room_is_plain_404(a: Api) -> None:
    for path in ("/api/interview/room/live", "/nowhere", "/api/interview/room/x/y/live"):
        with pytest.raises(InvalidStatus) as refused:
            await connect(a.node.ws + path, proxy=None, open_timeout=patient(10))
        assert refused.value.response.status_code == 404
        assert json.loads(refused.value.response.body or b"{}")["code"] == "NOT_FOUND"


async def test_without_an_upgrade_the_endpoint_says_what_it_is(a: Api, room: str) -> None:
    assert refusal(await a.get(f"/api/interview/room/{room}/live")) == (400, "INVALID_PARAMS")


@pytest.mark.parametrize(
    ("cut", "header_bytes"), [(0, 0), (-40, 0), (-1, 5000)], ids=["all", "half", "long head"]
)
async def test_what_comes_with_the_upgrade_is_heard(
    a: Api, room: str, cut: int, header_bytes: int
) -> None:
    """A client in a hurry does not wait for the 101; it may be cut in the middle of a frame."""
    guest = await Guest(a).joins(room)
    auth = json.dumps({"type": "auth", "token": guest.token}).encode()
    path, more = f"/api/interview/room/{room}/live", (f"x-long: {'x' * header_bytes}",)
    head = upgrade(f"127.0.0.1:{a.node.port}", path, more)
    said = head + frame(TEXT, auth) + frame(TEXT, b'{"type":"ping"}')
    reader, writer = await asyncio.open_connection("127.0.0.1", a.node.port)

    writer.write(said[: len(said) + cut])
    await reader.readuntil(b"\r\n\r\n")
    writer.write(said[len(said) + cut :])

    await asyncio.wait_for(reader.readuntil(b'{"type":"pong"'), patient(4))
    writer.close()


@pytest.mark.parametrize(
    ("bad", "number"), [(frame(BINARY, b"x"), 1), (frame(TEXT, b"{"), 31)],
    ids=["binary", "beyond the rate"],
)  # fmt: skip
@pytest.mark.parametrize("by", ["header", "frame"])
async def test_what_is_refused_of_a_client_in_a_hurry_is_told_after_its_greeting(
    a: Api, room: str, by: str, bad: bytes, number: int
) -> None:
    guest = await Guest(a).joins(room)
    auth = json.dumps({"type": "auth", "token": guest.token}).encode()
    headers = (f"Authorization: Bearer {guest.token}",) if by == "header" else ()
    head = upgrade(f"127.0.0.1:{a.node.port}", f"/api/interview/room/{room}/live", headers)
    reader, writer = await asyncio.open_connection("127.0.0.1", a.node.port)

    writer.write(head + (b"" if by == "header" else frame(TEXT, auth)) + bad * number)

    assert await told(reader, number + 1) == ["welcome", *["error"] * number]
    writer.close()


@pytest.mark.parametrize("by", ["header", "frame"])
async def test_a_client_that_waits_for_its_greeting_is_told_nothing_before_it(
    a: Api, database: Database, room: str, by: str
) -> None:
    guest = await Guest(a).joins(room)
    busy = await asyncpg.connect(database.url)
    async with busy.transaction():
        await busy.execute("SELECT FROM interview_rooms WHERE room_id = $1 FOR UPDATE", room)
        live = await a.watch(room, guest.token, by=by)
        await live.sends(b"binary")
        await (await live.socket.ping())  # whoever has answered has read what came before
        assert live.frames == []
    await busy.close()

    await live.sees("error")
    assert [told["type"] for told in live.frames if "at" not in told] == ["welcome", "error"]


async def told(reader: asyncio.StreamReader, number: int) -> list[str]:
    """The types of the first frames after the 101, without events and pings."""
    data, types = b"", list[str]()
    async with asyncio.timeout(patient(4)):
        await reader.readuntil(b"\r\n\r\n")
        while len(types) < number:
            data += await reader.read(65536)
            whole, taken = frames(data)
            data = data[taken:]
            said = [json.loads(text) for kind, text in whole if kind == TEXT]
            types += [each["type"] for each in said if each["type"] in ("welcome", "error")]
    return types

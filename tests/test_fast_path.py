"""A request is answered the same whichever way it goes: without a task, the fast path, Litestar's.

An `Origin` sends a request Litestar's way, an `Expect` of nothing to the fast path; nothing else
about it differs.
"""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from coordinator.web.bodies import MAX_BODY_BYTES
from tests.harness.http_server import hot_app
from tests.harness.people import Api, Guest, Host
from tests.harness.tokens import aged

JOIN = "/api/interview/guest/join"
ROOM = "/api/interview/room/"
LITESTAR = {"Origin": "http://localhost"}
FAST_PATH = {"Expect": "nothing"}

_OWN = re.compile(r'"(guestId|guestToken|joinedAt|requestId)":"[^"]*"|"seq":\d+')


async def every_way(api: Api, method: str, path: str, **request: Any) -> httpx.Response:
    """The answer of the shortest way, found equal to those of the others."""
    given = request.pop("headers", {})
    first = await api.http.request(method, path, headers=given, **request)
    for way in (FAST_PATH, LITESTAR):
        other = await api.http.request(method, path, headers=given | way, **request)
        assert other.status_code == first.status_code
        assert without_lengths(other) == without_lengths(first)
        assert _OWN.sub("", other.text) == _OWN.sub("", first.text)
    return first


def without_lengths(response: httpx.Response) -> list[tuple[str, str]]:
    """Its headers; a guest's own `seq` may make its answer a digit longer."""
    headers = response.headers.multi_items()
    assert ("content-length", str(len(response.content))) in headers
    return sorted(header for header in headers if header[0] != "content-length")


BODIES = {
    "nothing": b"",
    "no JSON": b"roomId=1",
    "a list": b"[]",
    "half": b'{"roomId": "x", ',
    "no UTF-8": b'{"roomId": "\xff"}',
    "no room": b'{"userName": "x"}',
    "no name": b'{"roomId": "x"}',
    "blank name": b'{"roomId": "x", "userName": "  "}',
    "a number for a name": b'{"roomId": "x", "userName": 5}',
    "a null": b'{"roomId": "x", "userName": null}',
    "a long name": json.dumps({"roomId": "x", "userName": "x" * 101}).encode(),
    "a control character": b'{"roomId": "x", "userName": "a\\u0000b"}',
    "a lone surrogate": b'{"roomId": "x", "userName": "a\\ud800"}',
    "a room that is not there": b'{"roomId": "nowhere", "userName": "x"}',
    "a room of a strange form": b'{"roomId": "../x", "userName": "x"}',
    "as long as may be": b'{"roomId": "x"' + b" " * (MAX_BODY_BYTES - 15) + b"}",
    "too long": b" " * (MAX_BODY_BYTES + 1),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_a_refused_join(a: Api, body: bytes) -> None:
    refused = await every_way(a, "POST", JOIN, content=body)
    assert refused.json()["success"] is False


async def test_a_body_that_comes_in_chunks_and_grows_too_long(a: Api) -> None:
    async def chunks() -> Any:
        for _ in range(70):
            yield b" " * 1024

    answers = [
        await a.http.post(JOIN, content=chunks(), headers=headers)
        for headers in ({}, FAST_PATH, LITESTAR)
    ]
    assert [answer.status_code for answer in answers] == [413, 413, 413]
    assert len({answer.text for answer in answers}) == 1


async def test_nothing_is_done_for_a_body_whose_end_never_came() -> None:
    """Though what has come is JSON: its client hung up, or its next chunk was broken."""
    messages = [
        {"type": "http.request", "body": b"{}", "more_body": True}, {"type": "http.disconnect"}
    ]  # fmt: skip
    sent: list[Any] = []
    scope = {
        "type": "http", "method": "POST", "path": "/hot", "headers": [], "query_string": b""
    }  # fmt: skip

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await hot_app()(scope, receive, send)

    assert sent[0]["status"] == 400


async def test_a_join(a: Api, room: str) -> None:
    body = {"roomId": room, "userName": "李明", "identity": "求职者", "unknown": [1]}
    joined = await every_way(a, "POST", JOIN, json=body)
    assert joined.status_code == 200


async def test_a_return(a: Api, room: str) -> None:
    guest = await Guest(a).joins(room)
    body = {"roomId": room, "userName": "李明", "guestToken": guest.token}
    returned = await every_way(a, "POST", JOIN, json=body)
    assert returned.json()["data"]["guestId"] == guest.user_id
    by_header = {"Authorization": f"Bearer {guest.token}"}
    body.pop("guestToken")
    returned = await every_way(a, "POST", JOIN, json=body, headers=by_header)
    assert returned.json()["data"]["guestId"] == guest.user_id


async def test_a_join_with_a_token_too_old(a: Api, room: str) -> None:
    guest = await Guest(a).joins(room)
    body = {"roomId": room, "userName": "李明", "guestToken": aged(guest.token, 8 * 86400)}
    assert (await every_way(a, "POST", JOIN, json=body)).status_code == 200


async def test_a_removed_guest(a: Api, host: Host, room: str) -> None:
    guest = await Guest(a).joins(room)
    await host.removes(room, guest.user_id)
    body = {"roomId": room, "userName": "李明", "guestToken": guest.token}
    assert (await every_way(a, "POST", JOIN, json=body)).status_code == 403


async def test_an_ended_room(a: Api, host: Host, room: str) -> None:
    await Guest(a).joins(room)
    await host.ends(room)
    assert (await every_way(a, "GET", ROOM + room)).json()["data"]["status"] == "ended"
    refused = await every_way(a, "POST", JOIN, json={"roomId": room, "userName": "x"})
    assert refused.json()["code"] == "ROOM_ENDED"


@pytest.mark.parametrize("more", ["", "?x=1", "/"])
async def test_a_view(a: Api, room: str, more: str) -> None:
    await Guest(a).joins(room)
    view = await every_way(a, "GET", ROOM + room + more)
    assert len(view.json()["data"]["participants"]) == 2


@pytest.mark.parametrize("name", ["room_of_nobody", "a%20b", "%E6%9D%8E", "a%2Fb", ".", "x" * 300])
async def test_a_view_of_no_room(a: Api, name: str) -> None:
    assert (await every_way(a, "GET", ROOM + name)).status_code == 404

"""Whatever is sent, it is answered in the API's own words: never a 500, never a dead node."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host, new_room_id, refusal

CREATE = "/api/interview/create-room"
JOIN = "/api/interview/guest/join"
LEAVE = "/api/interview/guest/leave"


async def post_raw(
    api: Api, path: str, body: bytes, token: str | None = None, **headers: str
) -> Any:
    sent = {"Authorization": f"Bearer {token}"} if token else {}
    return await api.http.post(path, content=body, headers={**sent, **headers})


def wire(request: str | bytes, node: Api) -> bytes:
    """A request as it stands on the wire."""
    text = request if isinstance(request, bytes) else request.encode()
    return text.replace(b"\n", b"\r\n").replace(b"HOST", b"127.0.0.1:%d" % node.node.port)


async def on_the_wire(api: Api, request: str | bytes) -> tuple[int, Any]:
    """Sends bytes as they are; the status and the body of what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.node.port)
    try:
        writer.write(wire(request, api))
        async with asyncio.timeout(patient(5)):
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            return int(head.split()[1]), json.loads(await reader.readexactly(size))
    finally:
        writer.close()


# -- bodies --------------------------------------------------------------------------------------

NOT_OBJECTS = {
    "empty": b"",
    "blank": b"  \n",
    "not JSON": b"roomId=1&roomName=2",
    "half of it": b'{"roomId": "x", "roomName": ',
    "two of them": b'{"roomId": "x"}{"roomId": "y"}',
    "single quotes": b"{'roomId': 'x'}",
    "trailing comma": b'{"roomId": "x",}',
    "NaN": b'{"roomId": NaN}',
    "a comment": b'{"roomId": "x"} // hi',
    "null": b"null",
    "true": b"true",
    "a number": b"5",
    "a string": b'"room"',
    "a list": b'[{"roomId": "x"}]',
    "bytes that are no UTF-8": b'{"roomId": "\xff\xfe"}',
    "UTF-16": '{"roomId": "x"}'.encode("utf-16"),
    "a BOM": b'\xef\xbb\xbf{"roomId": 5}',
    "a NUL around it": b'\x00{"roomId": "x"}',
    "deep nesting": b'{"x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "deep nesting of what counts": b'{"roomId": ' + b"[" * 30_000,
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
}


@pytest.mark.parametrize("body", NOT_OBJECTS.values(), ids=NOT_OBJECTS.keys())
@pytest.mark.parametrize("path", [CREATE, JOIN, LEAVE])
async def test_a_body_that_is_no_json_object(a: Api, host: Host, path: str, body: bytes) -> None:
    assert refusal(await post_raw(a, path, body, host.token)) == (400, "INVALID_PARAMS")


WRONG_TYPES: list[Any] = [5, 1.5, True, [], ["x"], {}, {"$ne": ""}]


@pytest.mark.parametrize("value", WRONG_TYPES, ids=repr)
async def test_a_member_of_another_type_is_refused_not_coerced(
    a: Api, host: Host, room: str, value: Any
) -> None:
    wanted: dict[str, dict[str, Any]] = {
        CREATE: {"roomId": new_room_id(), "roomName": "n", "hostName": "h"},
        JOIN: {"roomId": room, "userName": "n", "identity": "i", "guestToken": "t"},
        LEAVE: {"roomId": room, "guestId": "g", "guestToken": "t"},
    }
    for path, body in wanted.items():
        for member in body:
            answer = await a.post(path, {**body, member: value}, host.token)
            assert refusal(answer) == (400, "INVALID_PARAMS"), (path, member)
            assert member in answer.json()["message"]


FORBIDDEN = {
    "NUL": r"a\u0000b",
    "a bell": r"a\u0007b",
    "a line break": r"a\nb",
    "escape": r"a\u001b[31mb",
    "delete": r"a\u007fb",
    "a C1 control": r"a\u0085b",
    "the last C1 control": r"a\u009fb",
    "a unit separator before it": r"\u001fa",
    "a C1 control after it": r"a\u0085",
    "a lone high surrogate": r"a\ud800b",
    "a lone low surrogate": r"a\udc00b",
    "surrogates the wrong way round": r"\udc00\ud800",
}


@pytest.mark.parametrize("text", FORBIDDEN.values(), ids=FORBIDDEN.keys())
async def test_what_no_text_may_hold(a: Api, host: Host, room: str, text: str) -> None:
    bodies = {
        CREATE: f'{{"roomId": "{new_room_id()}", "roomName": "{text}", "hostName": "h"}}',
        JOIN: f'{{"roomId": "{room}", "userName": "{text}"}}',
        f"{JOIN}?": f'{{"roomId": "{room}", "userName": "n", "identity": "{text}"}}',
        f"{JOIN}??": f'{{"roomId": "{text}", "userName": "n"}}',
        LEAVE: f'{{"roomId": "{room}", "guestId": "{text}"}}',
    }
    held = json.loads(f'"{text}"')
    for path, body in bodies.items():
        answer = await post_raw(a, path, body.encode(), host.token)
        assert refusal(answer) == (400, "INVALID_PARAMS"), path
        wrong = next(member for member, value in json.loads(body).items() if value == held)
        assert wrong in answer.json()["message"], path


ALLOWED = [
    "🎥👩‍👩‍👧", "名" * 100, "a\u200bb", "\u202eabc", "O'Brien; DROP TABLE users;--", "{{name}}",
    "<script>", "%00", "\\u0000", "\ufdd0", "\U0010ffff", "e\u0301", "\ufeffx",
]  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
async def test_any_other_text_is_kept_as_sent(a: Api, room: str, name: str) -> None:
    guest = await Guest(a, name).joins(room)

    live = await guest.connects()

    assert (await a.room(room))["participants"][1]["userName"] == name
    assert live.welcome["participants"][1]["userName"] == name


async def test_a_body_is_read_as_json_whatever_its_content_type_says(a: Api, room: str) -> None:
    body = json.dumps({"roomId": room, "userName": "n", "unknown": {"member": [1]}}).encode()

    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "x"):
        answer = await post_raw(a, JOIN, body, **{"Content-Type": kind})
        assert answer.status_code == 200, kind
    status, _ = await on_the_wire(
        a,
        f"POST {JOIN} HTTP/1.1\nHost: HOST\nContent-Type: a/b\nContent-Type: application/json\n"
        f"Content-Length: {len(body)}\n\n{body.decode()}",
    )
    assert status == 200, "two of them"


async def test_a_chunked_body_is_read(a: Api, room: str) -> None:
    async def pieces() -> Any:
        yield b'{"roomId": "%b", ' % room.encode()
        yield b'"userName": "n"}'

    assert (await a.http.post(JOIN, content=pieces())).status_code == 200


async def test_a_trailer_of_a_chunked_body_is_no_header(a: Api, room: str) -> None:
    guest = await Guest(a).joins(room)
    body = json.dumps({"roomId": room, "userName": "n"})

    status, answer = await on_the_wire(
        a,
        f"POST {JOIN} HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked\n\n"
        f"{len(body):x}\n{body}\n0\nAuthorization: Bearer {guest.token}\n\n",
    )

    assert status == 200
    assert answer["data"]["guestId"] != guest.user_id


async def test_a_body_of_64_kib_is_read_and_a_larger_one_is_413(a: Api, room: str) -> None:
    frame = len(json.dumps({"roomId": room, "userName": "n", "x": ""}))

    def body(size: int) -> bytes:
        return json.dumps({"roomId": room, "userName": "n", "x": "x" * (size - frame)}).encode()

    async def chunked(content: bytes) -> Any:
        for start in range(0, len(content), 10_000):
            yield content[start : start + 10_000]

    assert (await post_raw(a, JOIN, body(64 * 1024))).status_code == 200
    assert refusal(await post_raw(a, JOIN, body(64 * 1024 + 1))) == (413, "PAYLOAD_TOO_LARGE")
    assert refusal(await post_raw(a, JOIN, body(2_000_000))) == (413, "PAYLOAD_TOO_LARGE")
    answer = await a.http.post(JOIN, content=chunked(body(70_000)))
    assert refusal(answer) == (413, "PAYLOAD_TOO_LARGE")
    assert (await a.get("/health/live")).status_code == 200


@pytest.mark.parametrize("path", [CREATE, JOIN, LEAVE])
async def test_a_body_that_is_only_announced_is_refused_at_once(
    a: Api, host: Host, path: str
) -> None:
    status, body = await on_the_wire(
        a,
        f"POST {path} HTTP/1.1\nHost: HOST\nContent-Length: 99999999999\n"
        f"Authorization: Bearer {host.token}\n\n",
    )

    assert (status, body["code"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_a_trailing_slash_is_served_never_redirected(a: Api, host: Host) -> None:
    room = new_room_id()
    body = {"roomId": room, "roomName": "n", "hostName": "h"}
    guest = {"roomId": room, "userName": "n"}

    for method, path, sent in (
        ("POST", CREATE, body), ("GET", "/api/interview/rooms", None), ("POST", JOIN, guest),
        ("GET", f"/api/interview/room/{room}", None),
        ("GET", f"/api/interview/room/{room}/events", None),
        ("POST", f"/api/interview/room/{room}/end", None), ("GET", "/health/ready", None),
    ):  # fmt: skip
        answer = await a.http.request(
            method, f"{path}/", json=sent, headers={"Authorization": f"Bearer {host.token}"}
        )
        assert answer.status_code == 200, path


# -- paths, methods, queries ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/api", "/api/", "/api/interview", "/api/nowhere", "/api/interview/room",
     "/api/interview/room/", "/favicon.ico", "/api/interview/room/a/b/c",
     "/api/interview/rooms/../../etc/passwd", "/%2e%2e/%2e%2e", "/\u00e4", "/api/interview/ROOMS"],
)  # fmt: skip
async def test_an_unknown_path(a: Api, path: str) -> None:
    assert refusal(await a.get(path)) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CREATE, "POST"),
        ("DELETE", CREATE, "POST"),
        ("GET", JOIN, "POST"),
        ("PUT", LEAVE, "POST"),
        ("POST", "/api/interview/rooms", "GET"),
        ("POST", "/api/interview/room/x", "GET"),
        ("PATCH", "/api/interview/room/x", "GET"),
        ("GET", "/api/interview/room/x/end", "POST"),
        ("POST", "/api/interview/room/x/events", "GET"),
        ("GET", "/api/interview/room/x/participants/y/remove", "POST"),
        ("POST", "/health/live", "GET"),
        ("PROPFIND", "/api/interview/rooms", "GET"),
    ],
)
async def test_a_wrong_method_is_405_and_says_which_is_right(
    a: Api, method: str, path: str, allowed: str
) -> None:
    answer = await a.http.request(method, path)

    assert refusal(answer) == (405, "METHOD_NOT_ALLOWED")
    assert allowed in [part.strip() for part in answer.headers["Allow"].split(",")]


STRANGE_IDS = [
    "%00", "a%00b", "%20", "a%20b", "%E6%88%BF", "a.b", "-a", "x" * 101, "x" * 4000, "%ff", "%zz",
    "%", "%7B%7BroomId%7D%7D", "a'b", "a%0d%0aSet-Cookie:x", "%ED%A0%80", "..", "~",
    "a%2Fb", "%2f",
]  # fmt: skip


@pytest.mark.parametrize("room_id", STRANGE_IDS)
async def test_a_path_id_of_a_strange_form_is_404_like_an_unknown_one(
    a: Api, host: Host, room_id: str
) -> None:
    """On the wire, as no client library would let it through."""
    if room_id == "..":
        return
    for line in (
        f"GET /api/interview/room/{room_id}",
        f"GET /api/interview/room/{room_id}/events",
        f"POST /api/interview/room/{room_id}/end",
        f"POST /api/interview/room/{room_id}/participants/x/remove",
    ):
        status, body = await on_the_wire(
            a,
            f"{line} HTTP/1.1\nHost: HOST\nAuthorization: Bearer {host.token}\n"
            "Content-Length: 0\n\n",
        )
        assert (status, body["code"]) == (404, "ROOM_NOT_FOUND"), line


@pytest.mark.parametrize("user_id", STRANGE_IDS)
async def test_a_strange_person_is_404(a: Api, host: Host, room: str, user_id: str) -> None:
    status, body = await on_the_wire(
        a,
        f"POST /api/interview/room/{room}/participants/{user_id}/remove HTTP/1.1\nHost: HOST\n"
        f"Authorization: Bearer {host.token}\nContent-Length: 0\n\n",
    )

    assert (status, body["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "query",
    ["page=0", "page=-1", "page=abc", "page=1.0", "page=1e3", "page=0x1", "page=%00",
     "page=١", "page=" + "9" * 5000, "pageSize=0", "pageSize=101", "pageSize=-5", "pageSize=x",
     "status=running", "status=ACTIVE", "status=%00", "status=active'--"],
)  # fmt: skip
async def test_an_odd_query_of_the_list(a: Api, host: Host, query: str) -> None:
    answer = await a.http.get(
        f"/api/interview/rooms?{query}", headers={"Authorization": f"Bearer {host.token}"}
    )

    assert refusal(answer) == (400, "INVALID_PARAMS")
    assert query.split("=")[0] in answer.json()["message"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=501", "limit=x", "after=-1", "after=x", "after=1.5", "after=%00"]
)
async def test_an_odd_query_of_the_log(a: Api, host: Host, room: str, query: str) -> None:
    answer = await a.http.get(
        f"/api/interview/room/{room}/events?{query}",
        headers={"Authorization": f"Bearer {host.token}"},
    )

    assert refusal(answer) == (400, "INVALID_PARAMS")


@pytest.mark.parametrize(
    "query",
    ["", "page=", "page=%20", "status=", "status=%20active", "page=1000000000000", "foo=bar",
     "page=1&page=1", "%ff=%ff", "&&&", "=", "page=1&pageSize=100", "page=" + "0" * 5000 + "1",
     "a[]=1"],
)  # fmt: skip
async def test_a_query_that_asks_for_nothing_odd(a: Api, host: Host, query: str) -> None:
    answer = await a.http.get(
        f"/api/interview/rooms?{query}", headers={"Authorization": f"Bearer {host.token}"}
    )

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "request_text",
    ["NONSENSE\n\n", "GET / HTTP/9.9\n\n", "GET /\x01 HTTP/1.1\nHost: x\n\n",
     "GET / HTTP/1.1\nHost: x\nbad header\n\n", "GET / HTTP/1.1\nContent-Length: x\n\n",
     "\x16\x03\x01\x02\x00\x01\x00\n\n"],
)  # fmt: skip
async def test_what_is_no_http_is_a_400_of_ours(a: Api, request_text: str) -> None:
    status, body = await on_the_wire(a, request_text)

    assert (status, body["code"]) == (400, "INVALID_PARAMS")


async def test_path_bytes_that_are_no_ascii_are_not_found(a: Api) -> None:
    status, body = await on_the_wire(
        a, b"GET /api/interview/room/\xe6\x88\xbf HTTP/1.1\nHost: HOST\n\n"
    )

    assert status in (400, 404)
    assert body["success"] is False


async def test_an_authorization_of_strange_bytes_is_no_token(a: Api) -> None:
    for value in (b"Bearer \xff\xfe", b"Bearer " + b"x" * 12_000, b"Bearer a b c", b"\x80"):
        status, body = await on_the_wire(
            a, b"GET /api/interview/rooms HTTP/1.1\nHost: HOST\nAuthorization: " + value + b"\n\n"
        )
        assert (status, body["code"]) == (401, "UNAUTHORIZED"), value[:20]


# -- all of it -------------------------------------------------------------------------------------


async def assert_no_failure_of_ours(*apis: Api) -> None:
    """The logs of the nodes tell of no error; the metrics of no 500.

    Tests of webhooks share the database; their secrets are under a key that these nodes have not.
    """
    for api in apis:
        errors = [line for line in api.node.lines() if line["level"] in ("error", "critical")]
        assert [line for line in errors if line["event"] != "webhook_secret_unreadable"] == []
        metrics = (await api.get("/metrics")).text
        assert 'status="500"' not in metrics


async def test_nothing_of_all_this_was_a_failure_of_ours(a: Api, b: Api) -> None:
    """Last in this file."""
    await assert_no_failure_of_ours(a, b)

"""HTTP/1.1 as strangers speak it: heads, pipelining, upgrades."""

from __future__ import annotations

import asyncio
import json
import re
from itertools import pairwise
from typing import Any

import pytest

from coordinator.web import http_protocol
from coordinator.web.http_parsing import PARSED_AT_ONCE
from coordinator.web.request_head import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_TARGET_BYTES,
    RequestHead,
)
from tests.harness.http_server import CLOSE, answered, get, serving, upgraded
from tests.harness.patience import patient
from tests.harness.people import Api
from tests.harness.promises import wall_clock

HEAD = b"GET /hot/1 HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a client needs longer to send what is thrown away, and then to read why."""
    monkeypatch.setattr(http_protocol, "LINGER_SECONDS", patient(http_protocol.LINGER_SECONDS))


async def refused(port: int, *parts: bytes) -> tuple[int, dict[str, Any]]:
    """Sends the parts one after the other; the one answer before the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(0.01)
    async with asyncio.timeout(patient(5)):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)


# -- heads ---------------------------------------------------------------------------------------


def with_head_of(size_bytes: int) -> bytes:
    return HEAD + b"x: " + b"y" * (size_bytes - len(HEAD) - 3) + b"\r\n\r\n"


LARGE = {
    "one header": with_head_of(MAX_HEAD_BYTES + 200),
    "one without an end": HEAD + b"x: " + b"y" * 500_000,
    "one name": HEAD + b"x" * 500_000,
    "many": HEAD + b"x: y\r\n" * (MAX_HEADERS + 1) + b"\r\n",
    "small ones without an end": HEAD + b"x: y\r\n" * 100_000,
}


@pytest.mark.parametrize("request_bytes", LARGE.values(), ids=LARGE.keys())
@pytest.mark.parametrize("pieces", [1, 50])
async def test_a_head_too_large_is_431_and_the_end(request_bytes: bytes, pieces: int) -> None:
    size = len(request_bytes) // pieces + 1
    parts = [request_bytes[at : at + size] for at in range(0, len(request_bytes), size)]
    async with serving() as (port, _, _):
        status, body = await refused(port, *parts)
    assert (status, body["code"]) == (431, "INVALID_PARAMS")
    assert body.keys() == {"success", "message", "code"}


async def test_a_head_within_the_limits_is_read() -> None:
    many = HEAD + b"x: y\r\n" * (MAX_HEADERS - 2) + CLOSE + b"\r\n"
    async with serving() as (port, _, _):
        for request in (with_head_of(MAX_HEAD_BYTES - 300), many):
            assert (await answered(port, request + get(2, CLOSE)))[0]["path"] == "/hot/1"


@pytest.mark.parametrize(
    "path", [b"/hot/", b"/api/open/jobs/", b"http://x/api/open/jobs/", b"//api//open/jobs/"]
)
async def test_a_target_too_long_is_414_in_the_shape_of_its_path(path: bytes) -> None:
    target = path + b"x" * MAX_TARGET_BYTES
    async with serving() as (port, _, _):
        for end in (b" HTTP/1.1\r\nhost: x\r\n\r\n", b"x" * 100_000):
            status, body = await refused(port, b"GET " + target + end)
            complaint = "error" if b"open" in path else "message"
            assert (status, body["code"]) == (414, "INVALID_PARAMS")
            assert body.keys() == {"success", complaint, "code"}


CHUNKED = b"POST /hot HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
LARGE_TRAILERS = {
    "one": b"0\r\nx: " + b"y" * (MAX_HEAD_BYTES + 200) + b"\r\n\r\n",
    "one without an end": b"0\r\nx: " + b"y" * 500_000,
    "small ones without an end": b"0\r\n" + b"x: y\r\n" * 100_000,
    "none, but an extension": b"1;x=" + b"y" * 500_000,
    "none, but a size": b"0" * 500_000,
}


@pytest.mark.parametrize("trailers", LARGE_TRAILERS.values(), ids=LARGE_TRAILERS.keys())
@pytest.mark.parametrize("chunks", [b"", b"2\r\n{}\r\n"], ids=["at once", "after a chunk"])
async def test_trailers_too_large_are_431_and_the_end(chunks: bytes, trailers: bytes) -> None:
    async with serving() as (port, _, _):
        status, body = await refused(port, CHUNKED + b"\r\n" + chunks + trailers)
    assert (status, body["code"]) == (431, "INVALID_PARAMS")


async def test_trailers_are_counted_for_each_body_and_its_data_are_none() -> None:
    chunk = b"%x\r\n%b\r\n" % (20_000, b"y" * 20_000)
    request = CHUNKED + b"\r\n" + chunk * 2 + b"0\r\nx: " + b"y" * 9_000 + b"\r\n\r\n"
    async with serving() as (port, _, _):
        *bodies, last = await answered(port, request * 3 + get(2, CLOSE))
    assert [body["size"] for body in bodies] == [40_000] * 3
    assert last["path"] == "/hot/2"


async def test_heads_are_counted_one_by_one() -> None:
    request = HEAD + b"x: " + b"y" * 10_000 + b"\r\n\r\n"
    async with serving() as (port, _, _):
        bodies = await answered(port, request * 3 + get(2, CLOSE))
    assert [body["path"] for body in bodies] == ["/hot/1"] * 3 + ["/hot/2"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /hot/1 HTTP/1.1\r\n\r\n",
        b"GET /hot/1 HTTP/1.1\r\nhost: x\r\nHost: x\r\n\r\n",
        b"GET /hot/1 HTTP/1.0\r\nhost: x\r\nHost: y\r\n\r\n",
        b"POST /live HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"GET /live HTTP/1.0\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /hot/1 HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ],
    ids=["no host", "two", "two of 1.0", "POST upgrade", "1.0 upgrade",
         "upgrade to nowhere", "no HTTP", "two lengths"],
)
async def test_what_is_no_request_of_http_1_1_is_400_and_the_end(request_bytes: bytes) -> None:
    async with serving() as (port, _, _):
        status, body = await refused(port, request_bytes)
    assert (status, body["code"]) == (400, "INVALID_PARAMS")


async def test_http_1_0_needs_no_host() -> None:
    async with serving() as (port, _, _):
        assert await answered(port, b"GET /hot/1 HTTP/1.0\r\n\r\n") != []


async def test_the_answers_before_a_bad_request_come_before_its_refusal() -> None:
    async with serving() as (port, _, _):
        slow, bad = await answered(port, get(1, query=b"?0.1") + b"nonsense\r\n\r\n")
    assert slow["path"] == "/hot/1"
    assert bad["code"] == "INVALID_PARAMS"


H2C = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\n"


async def test_another_protocol_is_not_offered_and_the_request_is_answered() -> None:
    async with serving() as (port, _, _):
        assert [body["path"] for body in await answered(port, get(1, H2C))] == ["/hot/1"]


@pytest.mark.parametrize("path", [b"/hot", b"/prompt"])
async def test_the_body_of_a_request_that_asks_for_another_protocol_is_read(path: bytes) -> None:
    """Java's client asks for HTTP/2 with each of its requests."""
    sized = b"POST %b HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b"
    chunked = b"POST %b HTTP/1.1\r\nhost: x\r\n%btransfer-encoding: chunked\r\n\r\n" % (path, H2C)
    async with serving() as (port, _, _):
        for size in (0, 1, 10, 20_000):
            request = sized % (path, H2C, size, b"1" * size)
            for sent in (request, post(10) + request, request + get(1)):
                assert (await answered(port, sent))[-1]["size"] == size
        chunks = b"5\r\n11111\r\n" * 2_000 + b"0\r\nx: y\r\n\r\n"
        assert (await answered(port, chunked + chunks))[0]["size"] == 10_000
        assert (await refused(port, chunked, b"5\r\n11111\r\nx"))[0] == 400


@pytest.mark.parametrize("target", ["//live", "http://x/live", "http://127.0.0.1:80/live?a=1"])
async def test_a_websocket_may_be_asked_for_by_other_forms_of_its_path(target: str) -> None:
    async with serving() as (port, _, _):
        _, writer = await upgraded(port, target)
        writer.close()


async def after_its_last_word(port: int, request: bytes) -> bytes:
    """What a client is still told that shuts its half of the connection down."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    writer.write_eof()
    async with asyncio.timeout(patient(5)):
        answer = await reader.read()
    writer.close()
    return answer


async def test_who_has_said_its_last_word_is_answered() -> None:
    async with serving() as (port, state, _):
        prompt = b"POST /prompt HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n0.1"
        for last in (get(3, query=b"?0.1"), post(10), prompt):
            for before in (b"", get(1), post(10) + get(1, query=b"?0.1")):
                answer = await after_its_last_word(port, before + last)
                assert answer.count(b"HTTP/1.1 200 ") == (before + last).count(b"HTTP/1.1")
        assert await after_its_last_word(port, post(10)[:-1]) == b""
        assert await after_its_last_word(port, b"") == b""
        await asyncio.sleep(0.1)
        assert not state.connections


async def _at_once(scope: Any, receive: Any, send: Any) -> None:
    """Answers as Litestar's handlers do, and without having waited for anything."""
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


async def test_an_answer_that_came_before_the_last_word_was_heard_is_sent() -> None:
    """The last word is heard in the very turn in which the answer waits to be joined."""
    async with serving(behind=_at_once) as (port, _, _):
        for _ in range(20):
            answer = await after_its_last_word(port, HEAD.replace(b"/hot/1", b"/x") + b"\r\n")
            assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_bad_request_and_the_last_word_do_not_end_those_that_are_served() -> None:
    async with serving() as (port, _, _):
        answer = await after_its_last_word(port, get(1, query=b"?0.1") + b"nonsense\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"400"]


# -- pipelining ----------------------------------------------------------------------------------


async def test_pipelined_requests_wait_unparsed() -> None:
    """A megabyte of requests behind a slow one: a few KiB are parsed, the rest stays outside."""
    async with serving() as (port, state, _):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get(1, query=b"?1") + get(2) * 30_000)
        await asyncio.sleep(0.5)
        protocol: Any
        (protocol,) = state.connections
        assert len(protocol.pipeline) <= PARSED_AT_ONCE // len(get(2)) + 1
        assert len(protocol.unparsed) <= 512 * 1024
        writer.close()


def post(size: int, *, chunks: int = 0) -> bytes:
    body = b"y" * size
    if not chunks:
        return b"POST /hot HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (size, body)
    step = size // chunks
    parts = [b"%x\r\n%b\r\n" % (step, b"y" * step) for _ in range(chunks)]
    return CHUNKED + b"\r\n" + b"".join(parts) + b"0\r\n\r\n"


async def test_all_of_many_pipelined_bodies_are_read() -> None:
    """Wherever what is parsed at a time ends: also in the middle of a body that waits."""
    sizes = [*range(290, 350), 60_000, 10, 20_000, 0, 5_000]
    requests = b"".join(post(size) for size in sizes) + post(30_000, chunks=100) + post(1)
    async with serving() as (port, _, _):
        *bodies, last = await answered(port, requests + get(2, CLOSE))
    assert [body["size"] for body in bodies] == [*sizes, 30_000, 1]
    assert last["path"] == "/hot/2"


async def test_a_broken_body_that_waits_for_its_turn_is_refused_in_turn() -> None:
    async with serving() as (port, _, _):
        slow, bad = await answered(port, get(1, query=b"?0.1") + CHUNKED + b"\r\nnonsense\r\n")
    assert slow["path"] == "/hot/1"
    assert bad["code"] == "INVALID_PARAMS"


LIVE = (
    b"GET /live HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


async def test_a_websocket_is_not_asked_for_by_a_request_with_a_body() -> None:
    """Its bytes would be taken for frames."""
    async with serving() as (port, _, _):
        for body in (b"content-length: 5\r\n\r\nhello", b"transfer-encoding: chunked\r\n\r\n"):
            assert (await refused(port, LIVE + body))[0] == 400


async def test_a_websocket_does_not_begin_before_earlier_requests_are_answered() -> None:
    async with serving() as (port, _, _):
        slow, refusal = await answered(port, get(1, query=b"?0.1") + LIVE + b"\r\n")
    assert slow["path"] == "/hot/1"
    assert refusal["code"] == "INVALID_PARAMS"


async def test_all_of_many_pipelined_requests_are_answered_in_order() -> None:
    numbers = list(range(1500))
    requests = b"".join(get(n) for n in numbers) + get(9999, CLOSE)
    async with serving() as (port, _, _):
        bodies = await answered(port, requests)
    assert [body["path"] for body in bodies] == [f"/hot/{n}" for n in [*numbers, 9999]]


# -- what is told of it -------------------------------------------------------------------------


async def test_refused_connections_and_requests_are_told(a: Api) -> None:
    await refused(a.node.port, b"nonsense\r\n\r\n")
    metrics = (await a.get("/metrics")).text
    assert 'coordinator_refused_requests_total{reason="malformed"}' in metrics
    assert "coordinator_tcp_connections " in metrics


@pytest.mark.parametrize("line", [b"FOO %b HTTP/1.1", b"GET %b\x01 HTTP/1.1", b"GET %b HTTP/9"])
async def test_a_line_that_is_no_http_is_refused_in_the_shape_of_its_path(
    a: Api, line: bytes
) -> None:
    for path, member in ((b"/api/open/jobs", "error"), (b"/api/interview/rooms", "message")):
        status, body = await refused(a.node.port, line % path + b"\r\nhost: x\r\n\r\n")
        assert (status, body["code"], member in body) == (400, "INVALID_PARAMS", True), body


def test_no_name_at_all_is_nobody_elses() -> None:
    """HTTP/1.0 sends none, and no browser's page has come by it."""
    names = frozenset({"localhost"})
    assert RequestHead().foreign(names) is None
    head = RequestHead()
    head.add_header(b"host", b"page.example")
    assert head.foreign(names) is not None


async def test_malformed_requests_do_not_flood_the_log(a: Api) -> None:
    """Whatever other tests sent it: all lines of the node's log are as far apart as promised."""
    for _ in range(40):
        await refused(a.node.port, b"nonsense\r\n\r\n")
    lines = [line for line in a.node.lines() if line["event"] == "malformed_requests"]
    times = [wall_clock(line["timestamp"]) for line in lines]
    assert times
    assert all(later - earlier > 9.9 for earlier, later in pairwise(times))

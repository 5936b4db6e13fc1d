"""Sockets under uvicorn's protocol with ours on top: real TCP, without a database."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
import uvloop

from coordinator.domain.errors import Unauthorized
from coordinator.domain.events import Event, FeedKey
from coordinator.domain.roster import Roster
from coordinator.live.connection import Connection, ConnectionContext
from coordinator.live.hub import Hub
from coordinator.live.websocket import LiveSocket
from tests.harness.patience import patient
from tests.http_server import CLOSE, answered, get, serving, upgraded

KEY = FeedKey("room", "r")


# -- the short way of answers --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (get(1) + get(2) + get(3, CLOSE), ["/hot/1", "/hot/2", "/hot/3"]),
        (get(1, query=b"?0.1") + get(2, query=b"?0.05") + get(3, CLOSE), ["/hot/1", "/hot/2",
                                                                          "/hot/3"]),
        (get(1, version=b"1.0"), ["/hot/1"]),
        (get(1, CLOSE) + get(2), ["/hot/1"]),
    ],
    ids=["pipelined", "pipelined and slow", "HTTP/1.0", "close"],
)  # fmt: skip
async def test_answers_come_whole_in_order_and_end_the_connection_where_asked(
    request_bytes: bytes, expected: list[str]
) -> None:
    async with serving() as (port, state, _):
        bodies = await answered(port, request_bytes)

        assert [body["path"] for body in bodies] == expected
        assert not state.tasks


async def test_a_body_that_is_refused_unread_does_not_become_the_next_request() -> None:
    large = b"POST /hot HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000

    async with serving() as (port, _, _):
        refused, answer = await answered(port, large + get(2, CLOSE))

    assert refused["code"] == "PAYLOAD_TOO_LARGE"
    assert answer["path"] == "/hot/2"


async def test_a_closed_connection_leaves_nothing_for_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        async with serving() as (port, state, protocols):
            for _ in range(5):
                assert await answered(port, get(1) + get(2, CLOSE))
            sockets = [await upgraded(port) for _ in range(5)]
            async with asyncio.timeout(patient(2)):
                while len(state.connections) > len(sockets):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

            assert len(protocols) == 0
            for _, writer in sockets:
                writer.close()
    finally:
        gc.enable()


# -- waiting to be let in ------------------------------------------------------------------------


class SlowLog:
    """The log of a large room; it is read when `may_load` is set."""

    kind = "room"

    def __init__(self) -> None:
        self.may_load = asyncio.Event()

    async def load(self, feed_id: str, /) -> tuple[int, Roster]:
        await self.may_load.wait()
        people = {
            f"g{number}": {"userId": f"g{number}", "userName": "n" * 100, "role": "guest",
                           "joinedAt": "", "connection": "online"}
            for number in range(300)
        }  # fmt: skip
        return 1, Roster({"status": "active"}, people)

    async def events_after(self, feed_id: str, seq: int, limit: int, /) -> list[Event]:
        return []

    async def head(self, feed_id: str, /) -> int:
        return 1

    async def heads(self, known: Any, /) -> list[tuple[str, int]]:
        return []


async def refuses(token: str) -> Any:
    raise Unauthorized


def test_a_client_that_hangs_up_while_it_waits_harms_nobody_who_waits_with_it() -> None:
    uvloop.run(_hangs_up_while_it_waits())  # whose closed transports raise, unlike asyncio's


async def _hangs_up_while_it_waits() -> None:
    log = SlowLog()
    hub = Hub([log], lambda: False)
    lost = asyncio.Event()
    terms = ConnectionContext(hub, 30, 262_144, refuses, lambda _: lost.set(), lambda _: None)
    letting_in = []

    async def let_in(connection: Connection) -> None:
        connection.start(await hub.resume.attach(KEY, connection, since=None, connect_seq=1))

    def accept(socket: LiveSocket) -> None:
        connection = Connection(
            socket, terms, session_id="s", identity={"userId": "u"}, expires_at=None
        )
        socket.receiver = connection
        letting_in.append(asyncio.create_task(let_in(connection)))

    async with serving(accept) as (port, _, _):
        _, gone = await upgraded(port)
        others = [await upgraded(port) for _ in range(3)]
        gone.transport.abort()
        await asyncio.wait_for(lost.wait(), patient(2))
        log.may_load.set()

        for reader, _ in others:
            assert b'"welcome"' in await asyncio.wait_for(reader.read(100), patient(2))
        await asyncio.gather(*letting_in)
        for _, writer in others:
            writer.close()
    await hub.close()

"""Sockets under uvicorn's protocol with ours on top: real TCP, without a database."""

from __future__ import annotations

import asyncio
import gc
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import uvloop

from coordinator.domain.errors import Unauthorized
from coordinator.domain.events import Event, FeedKey, Head
from coordinator.domain.people import Proof, ProvenGuest
from coordinator.domain.roster import Roster
from coordinator.live import beat, websocket
from coordinator.live import connection as connection_module
from coordinator.live.beat import Beat
from coordinator.live.connection import PING_SECONDS, Connection, ConnectionContext
from coordinator.live.hub import Hub
from coordinator.live.own_rows import OwnRows
from coordinator.live.websocket import LiveSocket, Refused
from coordinator.store.logs import Moved
from tests.harness.http_server import CLOSE, answered, get, serving, upgraded
from tests.harness.patience import long_enough, patient

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

    async def load(self, feed_id: str, /) -> tuple[Head, Roster]:
        await self.may_load.wait()
        people = {
            f"g{number}": {"userId": f"g{number}", "userName": "n" * 100, "role": "guest",
                           "joinedAt": "", "connection": "online"}
            for number in range(300)
        }  # fmt: skip
        return Head(1, "", ""), Roster({"status": "active"}, people)

    async def events_after(self, feed_id: str, seq: int, limit: int, /) -> list[Event]:
        return []

    async def head(self, feed_id: str, /) -> int:
        return 1

    async def connections_at(self, feed_id: str, seq: int, /) -> dict[str, str]:
        return {}

    async def epoch_at(self, feed_id: str, seq: int, /) -> str:
        return ""

    async def moved(self, known: Any, erasures: Any, /) -> list[Moved]:
        return []

    async def vanished(self, known: Any, /) -> set[str]:
        return set()


async def refuses(token: str) -> Any:
    raise Unauthorized


def test_a_client_that_hangs_up_while_it_waits_harms_nobody_who_waits_with_it() -> None:
    uvloop.run(_hangs_up_while_it_waits())  # whose closed transports raise, unlike asyncio's


async def _hangs_up_while_it_waits() -> None:
    log = SlowLog()
    hub = Hub([log], epoch=lambda: "", is_degraded=lambda: False)
    lost = asyncio.Event()
    terms = ConnectionContext(
        hub, 30, 262_144, refuses, lambda _: lost.set(), lambda _: None, Beat(PING_SECONDS),
        OwnRows(),
    )  # fmt: skip
    letting_in = []

    async def let_in(connection: Connection) -> None:
        connection.start(
            await hub.resume.attach(KEY, connection, since=None, epoch=None, connect_seq=1)
        )

    def accept(socket: LiveSocket) -> None:
        connection = Connection(socket, terms, session_id="s", identity={"userId": "u"}, proof=None)
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


async def test_a_token_that_ends_while_the_process_does_not_run_is_told_when_it_runs_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ping that would have looked is put off."""
    monkeypatch.setattr(connection_module, "_TOKEN_AHEAD_SECONDS", 0.1)
    log = SlowLog()
    log.may_load.set()
    hub = Hub([log], epoch=lambda: "", is_degraded=lambda: False)
    terms = ConnectionContext(
        hub, 30, 262_144, refuses, lambda _: None, lambda _: None, Beat(600), OwnRows()
    )
    life = long_enough(1)
    proof = Proof(ProvenGuest("r", "guest_1"), datetime.now(UTC) + timedelta(seconds=life))
    started = asyncio.Event()

    async def let_in(connection: Connection) -> None:
        connection.start(
            await hub.resume.attach(KEY, connection, since=None, epoch=None, connect_seq=1)
        )
        started.set()

    letting_in = []

    def accept(socket: LiveSocket) -> None:
        connection = Connection(
            socket, terms, session_id="s", identity={"userId": "u"}, proof=proof
        )
        socket.receiver = connection
        letting_in.append(asyncio.create_task(let_in(connection)))

    async with serving(accept) as (port, _, _):
        reader, writer = await upgraded(port)
        await started.wait()
        time.sleep(life + 2)  # noqa: ASYNC251  what else stops a process, and all of it
        async with asyncio.timeout(patient(8)):
            told = await reader.read()
        assert b'"type":"bye","code":4300' in told
        writer.close()
    await hub.close()


# -- frames that count -----------------------------------------------------------------------------

PING, PONG, CONT, TEXT, BINARY = 0x89, 0x8A, 0x00, 0x01, 0x02
FIN = 0x80


def masked(first: int, payload: bytes = b"") -> bytes:
    """A client's frame whose mask is zero; `first` is FIN and opcode."""
    assert len(payload) < 126
    return bytes((first, 0x80 | len(payload))) + bytes(4) + payload


class Hearing:
    """Keeps what a socket brings."""

    def __init__(self) -> None:
        self.told: list[str | Refused] = []

    def on_text(self, text: bytes) -> None:
        self.told.append(text.decode())

    def on_refused(self, why: Refused) -> None:
        self.told.append(why)

    def on_slow(self) -> None:
        pass

    def on_lost(self) -> None:
        pass


async def heard(*sent: bytes, until: int) -> list[str | Refused]:
    """What a receiver is told of these writes, once it was told `until` things."""
    hearing = Hearing()

    def accept(socket: LiveSocket) -> None:
        socket.receiver = hearing

    async with serving(accept) as (port, _, _):
        _, writer = await upgraded(port)
        for data in sent:
            writer.write(data)
            await asyncio.sleep(0)
        async with asyncio.timeout(patient(5)):
            while len(hearing.told) < until:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        writer.close()
    return hearing.told


@pytest.mark.parametrize(
    "frame",
    [masked(PING), masked(PONG), masked(FIN | BINARY, b"x"), masked(TEXT) + masked(FIN | CONT)],
    ids=["ping", "pong", "binary", "empty fragments"],
)
async def test_every_frame_counts(frame: bytes) -> None:
    """Thirty at once; then also what was never counted before is beyond the rate."""
    told = await heard(frame * 40 + masked(FIN | TEXT, b"last"), until=2)

    assert told[-1] in (Refused.TOO_FAST, Refused.CONTROL_TOO_FAST)
    assert "last" not in told


async def test_who_says_nothing_more_is_lost_at_once_though_it_has_not_read_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy passes the end of its client on so; the event loop alone waits until all is read."""
    monkeypatch.setattr(websocket, "PING_SECONDS", 3600.0)
    sockets: list[LiveSocket] = []
    lost = asyncio.Event()

    def accept(socket: LiveSocket) -> None:
        hearing = Hearing()
        hearing.on_lost = lost.set  # type: ignore[method-assign]
        socket.receiver = hearing
        sockets.append(socket)

    async with serving(accept) as (port, state, _):
        _, writer = await upgraded(port)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        sockets[0].write(bytes(20_000_000))
        await asyncio.sleep(0.1)
        assert sockets[0].unsent_bytes
        writer.write_eof()

        async with asyncio.timeout(patient(1)):
            await lost.wait()
        async with asyncio.timeout(patient(websocket.CLOSE_SECONDS + 1)):
            while state.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        writer.close()


async def test_a_pong_that_answers_our_ping_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "PING_SECONDS", patient(1))
    texts = masked(FIN | TEXT, b"x") * 30
    hearing = Hearing()

    def accept(socket: LiveSocket) -> None:
        socket.receiver = hearing

    async with serving(accept) as (port, _, _):
        reader, writer = await upgraded(port)
        assert await reader.readexactly(2) == b"\x89\x00"
        writer.write(masked(PONG) + texts)
        async with asyncio.timeout(patient(5)):
            while len(hearing.told) < 30:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        writer.close()

    assert hearing.told == ["x"] * 30


async def test_after_a_pause_of_the_process_peers_have_time_to_answer_a_ping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two pings are due then, one after the other; their pongs come a moment later."""
    monkeypatch.setattr(beat, "LATE_SECONDS", 0.05)
    monkeypatch.setattr(websocket, "PING_SECONDS", 0.8)

    def accept(socket: LiveSocket) -> None:
        socket.receiver = Hearing()

    async with serving(accept) as (port, _, _):
        reader, writer = await upgraded(port)
        time.sleep(2)  # noqa: ASYNC251  what else stops a process for so long, and all of it
        for _ in range(3):
            assert await reader.readexactly(2) == b"\x89\x00"
            await asyncio.sleep(0.1)
            writer.write(masked(PONG))
        writer.close()


async def test_a_message_of_many_fragments_is_refused_once_and_the_next_one_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket, "MAX_FRAGMENTS", 3)
    three = masked(TEXT, b"a") + masked(CONT, b"b") + masked(FIN | CONT, b"c")
    four = masked(TEXT, b"a") + masked(CONT) * 2 + masked(FIN | CONT, b"c")

    told = await heard(four + three, until=2)

    assert told == [Refused.FRAGMENTS, "abc"]


async def test_a_message_of_which_a_part_is_beyond_the_rate_is_not_heard() -> None:
    told = await heard(masked(TEXT, b"a") + masked(CONT) * 60 + masked(FIN | CONT, b"z"), until=1)

    assert told == [Refused.TOO_FAST]


async def test_a_flood_costs_its_sender_more_than_us() -> None:
    """Refusals are told of a part of it; the rest waits in the kernel, unread."""
    began = time.monotonic()
    told = await heard(masked(FIN | TEXT, b"x") * 20_000, until=60)

    assert 30 <= told.count("x") <= 30 + 10 * (time.monotonic() - began)
    assert len(told) < 200

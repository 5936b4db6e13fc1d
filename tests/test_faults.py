"""Whatever dies: no join or leave is lost, doubled or out of order, and ghosts do not stay.

Real processes are killed, frozen and cut off here, with a PostgreSQL and a Valkey of this module's
own. The lease is the real one (8 s); the grace is short.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from coordinator.domain.errors import Unavailable
from coordinator.domain.room import Policy
from coordinator.settings import DEFAULT_LIMITS
from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis
from coordinator.store.database import Database
from coordinator.store.migrations import migrate
from coordinator.store.room_writer.commands import Join
from coordinator.store.room_writer.queue import Writer
from tests.harness.cluster import signal_family, steady_ports
from tests.harness.node import Deployment, Node
from tests.harness.patience import patient
from tests.harness.people import (
    Api,
    Guest,
    Host,
    Live,
    everybody_hangs_up,
    moment,
    new_room_id,
    refusal,
)
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.wire import upgrade

GRACE = 2.0
LEASE_NOTICED = 10.0

pytestmark = pytest.mark.timeout(60)


# -- a deployment that may be hurt -----------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="coordinator-faults-"))
    with EmbeddedPostgres(folder, port=steady_ports(1)[0], options=("fsync=off",)) as server:
        asyncio.run(migrate(Database(server.url)))
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def redis() -> Iterator[EmbeddedRedis]:
    folder = Path(tempfile.mkdtemp(prefix="coordinator-faults-redis-"))
    with EmbeddedRedis(folder, port=steady_ports(1)[0]) as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


def deployment_of(postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> Deployment:
    """With rate limits, so that they are hurt with the rest."""
    plenty = ",".join(f"{name}=100000/minute" for name in DEFAULT_LIMITS)
    return Deployment(postgres.url, redis.url, PRESENCE_GRACE=f"{GRACE:g}", RATE_LIMITS=plenty)


@pytest.fixture
def ground(postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> Iterator[Deployment]:
    """Where a test starts nodes that it may kill."""
    with deployment_of(postgres, redis) as started:
        yield started


@pytest.fixture(scope="module")
def lasting(postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> Iterator[list[Node]]:
    """Two nodes that outlive what happens to their servers."""
    with deployment_of(postgres, redis) as started, ThreadPoolExecutor() as threads:
        starts = [threads.submit(started.node) for _ in range(2)]
        yield [start.result() for start in starts]


@pytest_asyncio.fixture
async def own(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """This module's database."""
    opened = Database(postgres.url)
    await opened.open()
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def apis() -> AsyncIterator[Callable[[Node], Api]]:
    """`apis(node)`: the node as clients call it."""
    made: list[Api] = []

    def api(node: Node) -> Api:
        made.append(Api(node))
        return made[-1]

    yield api
    await everybody_hangs_up()
    for one in made:
        await one.aclose()


@pytest.fixture
def pair(lasting: list[Node], apis: Callable[[Node], Api]) -> tuple[Api, Api]:
    """The two that all tests here share: nobody kills them."""
    return apis(lasting[0]), apis(lasting[1])


@pytest_asyncio.fixture
async def two(ground: Deployment, apis: Callable[[Node], Api]) -> tuple[Api, Api]:
    """Two nodes of this test's own."""
    nodes = await asyncio.gather(*(asyncio.to_thread(ground.node) for _ in range(2)))
    return apis(nodes[0]), apis(nodes[1])


@pytest_asyncio.fixture
async def boss(own: Database, request: pytest.FixtureRequest) -> Host:
    """Somebody who hosts rooms, at the first node of the test."""
    nodes = "pair" if "pair" in request.fixturenames else "two"
    return await Host.hired(own, request.getfixturevalue(nodes)[0])


async def status(api: Api) -> str:
    with contextlib.suppress(httpx.HTTPError):
        return str((await api.get("/health/ready")).json()["status"])
    return "silent"


async def becomes(api: Api, wanted: str, *, within: float) -> float:
    """Waits until the node says that it is `ready`, `degraded` …; how long that took."""
    start = time.monotonic()
    while (said := await status(api)) != wanted:
        assert time.monotonic() - start < patient(within), f"{said}, not {wanted} after {within} s"
        await asyncio.sleep(0.05)
    return time.monotonic() - start


def gapless(live: Live) -> bool:
    """True where what it was told after its first welcome is all there, once, in order."""
    first = next(frame["seq"] for frame in live.frames if frame["type"] == "welcome")
    return live.seqs == list(range(first + 1, first + 1 + len(live.seqs)))


async def joins_are_seen(at: Api, room: str, by: list[Live], *, within: float) -> None:
    """Somebody joins at a node; everybody hears of it in time, wherever they are."""
    start = time.monotonic()
    guest = await Guest(at).joins(room)
    for live in by:
        await live.sees("participant_joined", within, user_id=guest.user_id)
    assert time.monotonic() - start < patient(within)


def kinds_of(log: list[dict[str, Any]], user_id: str) -> list[str]:
    """What happened to somebody, without `participant_`."""
    return [
        event["type"].removeprefix("participant_")
        for event in log
        if event.get("participant", {}).get("userId") == user_id
    ]


# -- Redis ---------------------------------------------------------------------------------------


async def test_redis_killed_everything_goes_on_and_nothing_is_lost(
    pair: tuple[Api, Api], boss: Host, redis: EmbeddedRedis
) -> None:
    a, b = pair
    room = await boss.creates()
    watching = [await boss.connects(room, at=a), await boss.connects(room, at=b)]
    try:
        redis.kill()
        await becomes(a, "degraded", within=1.5)
        await becomes(b, "degraded", within=1.5)
        assert (await a.get("/health/ready")).status_code == 200
        for at in (a, b, a, b):
            await joins_are_seen(at, room, watching, within=2.3)
        guest = await Guest(b).joins(room)
        await (await guest.connects(at=b)).hears_pong()
    finally:
        redis.start()
    await becomes(a, "ready", within=5)
    await becomes(b, "ready", within=5)
    for at in (a, b):
        await joins_are_seen(at, room, watching, within=0.5)
    assert all(gapless(live) for live in watching)


async def test_redis_that_hangs_is_noticed_and_nothing_is_lost(
    pair: tuple[Api, Api], boss: Host, redis: EmbeddedRedis
) -> None:
    a, b = pair
    room = await boss.creates()
    watching = [await boss.connects(room, at=a), await boss.connects(room, at=b)]
    assert redis.process is not None
    redis.process.send_signal(signal.SIGSTOP)
    try:
        await joins_are_seen(a, room, watching, within=5.0)
        await becomes(a, "degraded", within=5.0)
        await becomes(b, "degraded", within=1.0)
        for at in (a, b):
            await joins_are_seen(at, room, watching, within=2.3)
    finally:
        redis.process.send_signal(signal.SIGCONT)
    await becomes(a, "ready", within=5)
    await becomes(b, "ready", within=5)
    await joins_are_seen(a, room, watching, within=1)
    assert all(gapless(live) for live in watching)


async def test_a_sixth_connection_closes_the_oldest_also_where_redis_is_away(
    pair: tuple[Api, Api], boss: Host, redis: EmbeddedRedis
) -> None:
    """Else the oldest would come back, push out the next one, and so on for ever."""
    a, b = pair
    guest = await Guest(a).joins(await boss.creates())
    lives = [await guest.connects(at=a) for _ in range(5)]
    redis.kill()
    try:
        await becomes(b, "degraded", within=1.5)
        sixth = await guest.connects(at=b)
        assert await lives[0].is_put_out(7) == 4006
        for live in (*lives[1:], sixth):
            await live.hears_pong()
    finally:
        redis.start()
    await becomes(a, "ready", within=5)
    await becomes(b, "ready", within=5)


async def test_redis_flushed_loses_nothing(
    pair: tuple[Api, Api], boss: Host, redis: EmbeddedRedis
) -> None:
    a, b = pair
    room = await boss.creates()
    watching = [await boss.connects(room, at=a), await boss.connects(room, at=b)]
    for command in (b"FLUSHALL\r\n", b"CLIENT KILL TYPE pubsub\r\n"):
        with socket.create_connection(("127.0.0.1", redis.port)) as connection:
            connection.sendall(command)
            connection.recv(100)
    for at in (a, b, a):
        await joins_are_seen(at, room, watching, within=5)
    await becomes(a, "ready", within=5)
    assert all(gapless(live) for live in watching)


# -- Postgres --------------------------------------------------------------------------------------


async def test_postgres_restarted_sockets_stay_and_what_happened_meanwhile_is_written(
    two: tuple[Api, Api], boss: Host, postgres: EmbeddedPostgres
) -> None:
    a, b = two
    room = await boss.creates()
    stays = await boss.connects(room, at=a)
    goes = await Guest(b, "goes").joins(room)
    going = await goes.connects(at=b)
    keeps = await Guest(b, "keeps").joins(room)
    keeping = await keeps.connects(at=b)
    returns = await Guest(b, "returns").joins(room)
    await (await returns.connects(at=b)).vanishes()
    await stays.sees("participant_away", user_id=returns.user_id)
    await asyncio.gather(*(a.room(room) for _ in range(40)))  # fills the pool with connections

    await asyncio.to_thread(postgres.kill)
    try:
        start = time.monotonic()
        for refused in await asyncio.gather(
            a.get(f"/api/interview/room/{room}"), Guest(a).asks_to_join(room)
        ):
            assert refusal(refused) == (503, "SERVICE_UNAVAILABLE")
        assert time.monotonic() - start < patient(5)
        assert await status(a) == "unavailable"
        await going.vanishes()
        late = await b.watch(room, keeps.token)
        assert await late.is_put_out() == 4103
        await stays.hears_pong()
        await keeping.hears_pong()
        await asyncio.sleep(GRACE)  # the deadline of `returns` passes meanwhile
    finally:
        await asyncio.to_thread(postgres.start)
    is_back = time.monotonic()
    await becomes(a, "ready", within=5)
    answers = await asyncio.gather(*(a.get(f"/api/interview/room/{room}") for _ in range(60)))
    assert {answer.status_code for answer in answers} == {200}  # no dead connection in the pool
    away = await stays.sees("participant_away", 8, user_id=goes.user_id)
    await asyncio.sleep(3)  # late within the respite: in this time nobody may be judged
    returning = await returns.connects(at=a)
    left = await stays.sees("participant_left", 20, user_id=goes.user_id)
    assert left["reason"] == "disconnected"
    assert moment(left["at"]) >= moment(away["leaveAt"])
    assert time.monotonic() - is_back > 9  # every node had the time to renew, everybody to return
    await returning.hears_pong()
    assert kinds_of(stays.history, returns.user_id)[-2:] == ["away", "back"]
    await keeping.hears_pong()
    assert kinds_of(stays.history, keeps.user_id)[-1] == "online"
    assert gapless(stays)


async def test_postgres_that_hangs_is_answered_503_in_time_and_nobody_is_put_out(
    pair: tuple[Api, Api], boss: Host, postgres: EmbeddedPostgres
) -> None:
    a, b = pair
    room = await boss.creates()
    watching = [await boss.connects(room, at=a), await boss.connects(room, at=b)]
    guest = await Guest(b).joins(room)
    live = await guest.connects(at=b)
    assert postgres.process is not None

    signal_family(postgres.process.pid, signal.SIGSTOP)
    try:

        async def is_refused(call: Callable[[], Any], *, after: float = 0) -> None:
            await asyncio.sleep(after)
            start = time.monotonic()
            assert refusal(await call()) == (503, "SERVICE_UNAVAILABLE")
            assert time.monotonic() - start < patient(5)

        await asyncio.gather(
            is_refused(lambda: a.get(f"/api/interview/room/{room}")),
            is_refused(lambda: a.post(f"/api/interview/room/{room}/end", token=boss.token)),
            is_refused(lambda: a.post("/api/interview/create-room", new_room(), boss.token)),
            is_refused(lambda: Guest(a).asks_to_join(room)),
            is_refused(lambda: Guest(a).asks_to_join(room), after=1),
            is_refused(lambda: Guest(b).asks_to_join(room), after=2.5),
        )
        # Nothing happens that could be waited for: the outage itself has to outlast a lease.
        await asyncio.sleep(4)
    finally:
        signal_family(postgres.process.pid, signal.SIGCONT)
    await becomes(a, "ready", within=5)
    await becomes(b, "ready", within=5)
    await joins_are_seen(a, room, watching, within=5)
    await live.hears_pong()
    log = await boss.log(room)
    assert kinds_of(log, guest.user_id) == ["joined", "online"]
    assert [person["userId"] for person in (await a.room(room))["participants"]].count(
        guest.user_id
    ) == 1
    assert sum(event["type"] == "participant_joined" for event in log) == 2


def new_room() -> dict[str, str]:
    return {"roomId": new_room_id(), "roomName": "n", "hostName": "h"}


async def test_a_node_that_is_told_to_stop_while_postgres_hangs_stops_in_time(
    two: tuple[Api, Api], boss: Host, postgres: EmbeddedPostgres
) -> None:
    a, b = two
    room = await boss.creates()
    live = await (await Guest(b).joins(room)).connects(at=b)
    assert postgres.process is not None
    signal_family(postgres.process.pid, signal.SIGSTOP)
    try:
        assert refusal(await Guest(b).asks_to_join(room)) == (503, "SERVICE_UNAVAILABLE")
        b.node.terminate()
        started = time.monotonic()
        assert await live.is_put_out() == 4200
        assert await asyncio.to_thread(b.node.process.wait, 15) == 0
        assert time.monotonic() - started < patient(1 + 5)  # DRAIN_SECONDS + 5
    finally:
        signal_family(postgres.process.pid, signal.SIGCONT)
    await becomes(a, "ready", within=5)


async def test_a_commit_that_takes_for_ever_is_answered_503_in_time(
    own: Database, pair: tuple[Api, Api], boss: Host
) -> None:
    """Reading works, writing does not: a disk that is full, or a replica that must confirm."""
    a, _ = pair
    room = await boss.creates()
    await _slow_commits(own, seconds=20)
    try:
        start = time.monotonic()
        for answer in await asyncio.gather(
            Guest(a).asks_to_join(room),
            boss.removes(room, "guest_nobody"),
            a.post("/api/interview/create-room", new_room(), boss.token),
        ):
            assert answer.status_code in (503, 404)
            assert answer.elapsed.total_seconds() < patient(5)
        assert time.monotonic() - start < patient(5)
    finally:
        await _slow_commits(own, seconds=0)
    await becomes(a, "ready", within=5)
    await _until_nobody_is_in(own, room)


async def _until_nobody_is_in(own: Database, room: str) -> None:
    for _ in range(100):
        if not await _people(own, room):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"still there: {await _people(own, room)}")


async def test_a_join_that_was_refused_and_happened_all_the_same_is_taken_back(
    own: Database, postgres: EmbeddedPostgres, pair: tuple[Api, Api], boss: Host
) -> None:
    """Its COMMIT arrives, the answer does not, and Postgres stays away for longer than we wait."""
    room = await boss.creates()
    assert postgres.port is not None
    cable = TcpProxy(postgres.port)
    await cable.start()
    database = Database(f"postgresql://postgres@127.0.0.1:{cable.port}/coordinator")
    writer = Writer(database, Policy(10, timedelta(seconds=GRACE)), lambda events, replaced: None)
    running = asyncio.create_task(writer.run())
    await _slow_commits(own, seconds=1.0)
    try:
        joining = writer.submit(
            Join(room_id=room, user_id="guest_lost", user_name="lost", identity=None)
        )
        await _commit_is_under_way(own, writer)
        cable.hang()
        with pytest.raises(Unavailable):
            await joining
    finally:
        await _slow_commits(own, seconds=0)
    assert await _people(own, room) == ["guest_lost"]
    await asyncio.sleep(4)  # Postgres is away for longer than any caller waits
    cable.mend()
    await _until_nobody_is_in(own, room)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await cable.close()
    assert kinds_of(await boss.log(room), "guest_lost") == ["joined", "left"]


async def _commit_is_under_way(own: Database, writer: Writer) -> None:
    """Returns when this writer's COMMIT waits for the trigger of `_slow_commits`."""
    sleeps = "SELECT true FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid = $1"
    async with asyncio.timeout(patient(5)):
        while writer._connection is None or not await own.fetchval(  # noqa: ASYNC110
            sleeps, writer._connection.get_server_pid()
        ):
            await asyncio.sleep(0.01)


async def _people(own: Database, room: str) -> list[str]:
    rows = await own.fetch(
        "SELECT user_id FROM interview_participants"
        " WHERE room_id = $1 AND left_at IS NULL AND role = 'guest'",
        room,
    )
    return [row["user_id"] for row in rows]


async def _slow_commits(own: Database, *, seconds: float) -> None:
    """Lets Postgres take its time inside COMMIT, after everything has been written."""
    await own.execute("CREATE TABLE IF NOT EXISTS slow_commits (seconds float)")
    await own.execute("DELETE FROM slow_commits")
    await own.execute("INSERT INTO slow_commits VALUES ($1)", seconds)
    await own.execute(
        "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep((SELECT seconds FROM slow_commits)); RETURN NULL; END $$"
    )
    there = "SELECT true FROM pg_trigger WHERE tgname = 'slow'"
    if not await own.fetchval(there):
        await own.execute(
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON room_events"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()"
        )


# -- nodes -----------------------------------------------------------------------------------------


async def test_a_killed_nodes_people_are_away_then_left_unless_they_return(
    two: tuple[Api, Api], boss: Host
) -> None:
    a, b = two
    room = await boss.creates()
    watching = await boss.connects(room, at=a)
    returns, stays_out = await Guest(b).joins(room), await Guest(b).joins(room)
    await returns.connects(at=b)
    await stays_out.connects(at=b)
    await watching.until(lambda: list(watching.people.values()).count("online") == 3)

    killed = time.monotonic()
    b.node.kill()
    await watching.sees("participant_away", LEASE_NOTICED, user_id=stays_out.user_id)
    assert time.monotonic() - killed < patient(LEASE_NOTICED)
    back = await returns.connects(at=a)
    left = await watching.sees("participant_left", GRACE + 2.5)
    assert time.monotonic() - killed < patient(LEASE_NOTICED + GRACE + 2)
    assert left["participant"]["userId"] == stays_out.user_id
    await asyncio.sleep(GRACE)
    await back.hears_pong()

    log = await boss.log(room)
    assert kinds_of(log, returns.user_id) == ["joined", "online", "away", "back"]
    assert kinds_of(log, stays_out.user_id) == ["joined", "online", "away", "left"]
    assert gapless(watching)


async def test_who_reconnects_before_a_node_is_known_to_be_dead_was_never_away(
    two: tuple[Api, Api], boss: Host
) -> None:
    a, b = two
    room = await boss.creates()
    watching = await boss.connects(room, at=a)
    guest = await Guest(b).joins(room)
    first = await guest.connects(at=b)
    await watching.sees("participant_online", user_id=guest.user_id)

    b.node.kill()
    await first.until(lambda: first.code is not None)
    second = await guest.connects(at=a, since=first.seq)
    assert second.welcome["resumed"] is True
    await asyncio.sleep(LEASE_NOTICED + 0.5)
    await second.hears_pong()
    assert kinds_of(await boss.log(room), guest.user_id) == ["joined", "online"]


async def test_a_frozen_node_does_not_fight_when_it_wakes(two: tuple[Api, Api], boss: Host) -> None:
    a, b = two
    room = await boss.creates()
    watching = await boss.connects(room, at=a)
    guest = await Guest(b).joins(room)
    old = await guest.connects(at=b)
    await watching.sees("participant_online", user_id=guest.user_id)
    before = (await b.get("/health/ready")).json()["node"]

    b.node.freeze()
    try:
        await watching.sees("participant_away", LEASE_NOTICED, user_id=guest.user_id)
        new = await guest.connects(at=a)
    finally:
        b.node.wake()
    assert await old.is_put_out() == 4201
    await becomes(b, "ready", within=5)
    assert (await b.get("/health/ready")).json()["node"] != before
    await asyncio.sleep(1)
    await new.hears_pong()
    again = await guest.connects(at=b)
    await again.hears_pong()
    assert kinds_of(await boss.log(room), guest.user_id) == ["joined", "online", "away", "back"]


async def test_a_draining_node_sends_everybody_elsewhere_and_nobody_leaves(
    two: tuple[Api, Api], boss: Host
) -> None:
    a, b = two
    room = await boss.creates()
    watching = await boss.connects(room, at=a)
    guests = [await Guest(b, f"g{n}").joins(room) for n in range(8)]
    lives = [await guest.connects(at=b) for guest in guests]
    await watching.until(lambda: list(watching.people.values()).count("online") == 9)

    b.node.terminate()
    for guest, live in zip(guests, lives, strict=True):
        assert await live.is_put_out() == 4200
        assert live.frames[-1]["afterMs"] >= 0
        await guest.connects(at=a, since=live.seq)
    assert await asyncio.to_thread(b.node.process.wait, 6) == 0
    await asyncio.sleep(GRACE + 1)
    assert set(watching.people.values()) == {"online"}
    assert "participant_left" not in {event["type"] for event in watching.history}
    assert gapless(watching)


# -- cables ----------------------------------------------------------------------------------------


class Wired:
    """A node that reaches Postgres and Redis through cables of its own."""

    def __init__(self, ground: Deployment, postgres: EmbeddedPostgres, redis: EmbeddedRedis):
        assert postgres.port is not None
        self.ground = ground
        self.postgres = TcpProxy(postgres.port)
        self.redis = TcpProxy(redis.port)

    async def start(self) -> Node:
        await self.postgres.start()
        await self.redis.start()
        return await asyncio.to_thread(
            self.ground.node,
            DATABASE_URL=f"postgresql://postgres@127.0.0.1:{self.postgres.port}/coordinator",
            REDIS_URL=f"redis://127.0.0.1:{self.redis.port}/0",
        )


@pytest_asyncio.fixture
async def wired(
    ground: Deployment, postgres: EmbeddedPostgres, redis: EmbeddedRedis
) -> AsyncIterator[Wired]:
    one = Wired(ground, postgres, redis)
    yield one
    await one.postgres.close()
    await one.redis.close()


@pytest.mark.parametrize("how", ["cut", "hang"])
async def test_a_node_that_alone_loses_postgres_moves_its_clients(
    ground: Deployment, apis: Callable[[Node], Api], own: Database, wired: Wired, how: str
) -> None:
    a, b = apis(await asyncio.to_thread(ground.node)), apis(await wired.start())
    boss = await Host.hired(own, a)
    room = await boss.creates()
    watching = await boss.connects(room, at=a)
    guest = await Guest(b).joins(room)
    live = await guest.connects(at=b)

    cut = time.monotonic()
    getattr(wired.postgres, how)()
    assert await live.is_put_out(20) == 4200
    assert time.monotonic() - cut < patient(20)
    refused = await b.watch(room, guest.token)
    assert await refused.is_put_out() == 4200
    await guest.connects(at=a)
    wired.postgres.mend()
    await becomes(b, "ready", within=8)
    await asyncio.sleep(0.5)
    await (await guest.connects(at=b)).hears_pong()
    assert "left" not in kinds_of(await boss.log(room), guest.user_id)
    assert gapless(watching)


@pytest.mark.parametrize("how", ["cut", "hang"])
async def test_a_node_that_alone_loses_redis_misses_nothing(
    ground: Deployment, apis: Callable[[Node], Api], own: Database, wired: Wired, how: str
) -> None:
    a, b = apis(await asyncio.to_thread(ground.node)), apis(await wired.start())
    boss = await Host.hired(own, a)
    room = await boss.creates()
    watching = [await boss.connects(room, at=a), await boss.connects(room, at=b)]

    getattr(wired.redis, how)()
    for at in (a, b):
        await joins_are_seen(at, room, watching, within=5)
    await becomes(b, "degraded", within=5)
    assert await status(a) == "ready"
    wired.redis.mend()
    await becomes(b, "ready", within=5)
    for at in (a, b):
        await joins_are_seen(at, room, watching, within=1)
    assert all(gapless(live) for live in watching)


# -- clients that do harm ------------------------------------------------------------------------


async def test_a_slow_reader_is_hung_up_on_and_slows_nobody(
    ground: Deployment, apis: Callable[[Node], Api], own: Database
) -> None:
    """It stops reading while the room lives on: nobody else waits, and the node does not grow."""
    a = apis(await asyncio.to_thread(ground.node, LIVE_BUFFER="16384"))
    boss = await Host.hired(own, a)
    room = await boss.creates()
    watching = [await boss.connects(room, at=a) for _ in range(2)]
    guest = await Guest(a).joins(room)
    reader, writer = await _raw_socket(a.node, room, guest.token)
    await reader.readuntil(b"welcome")
    late_subscriber = await boss.connects(room, at=a)
    before = _memory_kib(a.node)

    writer.transport.pause_reading()  # type: ignore[attr-defined]
    slowest = 0.0
    for _ in range(12):
        start = time.monotonic()
        many = await asyncio.gather(*(Guest(a, "长" * 100).joins(room) for _ in range(60)))
        await asyncio.gather(*(many[0].leaves(), many[1].leaves()))
        for live in (*watching, late_subscriber):
            await live.reaches(max(one.seq for one in many))
        slowest = max(slowest, time.monotonic() - start)
        if "coordinator_slow_consumers_total 1.0" in await _metrics(a):
            break
    assert "coordinator_slow_consumers_total 1.0" in await _metrics(a)
    await watching[0].sees("participant_away", 3, user_id=guest.user_id)
    assert slowest < 4
    assert _memory_kib(a.node) - before < 16 * 1024
    assert all(gapless(live) for live in (*watching, late_subscriber))
    writer.transport.abort()


async def test_handshakes_that_never_end_are_cut_after_ten_seconds(
    ground: Deployment, apis: Callable[[Node], Api], own: Database
) -> None:
    a = apis(await asyncio.to_thread(ground.node))
    boss = await Host.hired(own, a)
    room = await boss.creates()
    whole = upgrade(f"127.0.0.1:{a.node.port}", f"/api/interview/room/{room}/live")

    async def drips() -> float:
        start = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", a.node.port)
        with contextlib.suppress(OSError):
            for byte in whole[:100]:
                writer.write(bytes((byte,)))
                if await _ended(reader, within=0.4):
                    break
        writer.transport.abort()
        return time.monotonic() - start

    dripping = asyncio.gather(*(drips() for _ in range(50)))
    await asyncio.sleep(2)
    await joins_are_seen(a, room, [await boss.connects(room, at=a)], within=1)
    for seconds in await dripping:
        assert 9 < seconds < patient(12)


async def test_a_thousand_sockets_wait_unauthenticated_and_no_more(
    ground: Deployment, apis: Callable[[Node], Api], own: Database
) -> None:
    a = apis(await asyncio.to_thread(ground.node))
    boss = await Host.hired(own, a)
    room = await boss.creates()
    silent = await asyncio.gather(*(_raw_socket(a.node, room, None) for _ in range(1000)))
    try:
        for _ in range(3):
            refused = await a.watch(room, None)
            assert await refused.is_put_out() == 4100
        watching = await boss.connects(room, at=a)  # who presents a token at once is not counted
        await joins_are_seen(a, room, [watching], within=2)
        started = time.monotonic()
        told = await asyncio.gather(*(reader.read(500) for reader, _ in silent))
        assert time.monotonic() - started < patient(7)
        assert sum(b"4301" in text for text in told) == 1000
    finally:
        for _, writer in silent:
            writer.transport.abort()
    by_frame = await a.watch(room, boss.token, by="frame")
    await by_frame.sees("welcome")


async def test_a_client_that_hangs_up_within_its_request_is_no_error_of_ours(
    ground: Deployment, apis: Callable[[Node], Api], own: Database
) -> None:
    a = apis(await asyncio.to_thread(ground.node))
    boss = await Host.hired(own, a)
    for path in ("create-room", "guest/join"):
        _, writer = await asyncio.open_connection("127.0.0.1", a.node.port)
        head = f"POST /api/interview/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n"
        writer.write(f'{head}Authorization: Bearer {boss.token}\r\n\r\n{{"roomId": '.encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    await boss.creates(at=a)
    assert await asyncio.to_thread(a.node.stop) == 0
    assert '"error"' not in a.node.logs()


async def _raw_socket(
    node: Node, room: str, token: str | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A websocket as bytes, upgraded; with a small receive buffer."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", node.port))
    reader, writer = await asyncio.open_connection(sock=small)
    headers = () if token is None else (f"Authorization: Bearer {token}",)
    path = f"/api/interview/room/{room}/live"
    writer.write(upgrade(f"127.0.0.1:{node.port}", path, headers))
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def _ended(reader: asyncio.StreamReader, *, within: float) -> bool:
    """True where the other side has hung up."""
    try:
        async with asyncio.timeout(within):
            return await reader.read(100) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


async def _metrics(api: Api) -> str:
    return (await api.get("/metrics")).text


def _memory_kib(node: Node) -> int:
    """What the process holds in memory (Linux; 0 elsewhere)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{node.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
    return 0


# -- rooms whose time has passed -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "reason"), [("HOST_ABSENT_END", "host_absent"), ("ROOM_MAX_AGE", "expired")]
)
async def test_a_room_ends_when_its_time_has_passed(
    ground: Deployment, apis: Callable[[Node], Api], own: Database, setting: str, reason: str
) -> None:
    a = apis(await asyncio.to_thread(ground.node, **{setting: "2"}))
    boss = await Host.hired(own, a)
    room = await boss.creates()
    started = time.monotonic()
    host = await boss.connects(room, at=a)
    guest = await Guest(a).joins(room)
    live = await guest.connects(at=a)
    if setting == "HOST_ABSENT_END":
        await asyncio.sleep(2.7)
        await live.hears_pong()  # the host is here: nothing happens
        await host.vanishes()
        started = time.monotonic()

    ended = await live.sees("room_ended", 6)

    assert 1.9 < time.monotonic() - started < patient(4.5)
    assert (ended["by"], ended["reason"]) == ("system", reason)
    assert await live.is_put_out() == 4010


async def test_a_room_ends_when_nobody_was_in_it_for_long(
    ground: Deployment, apis: Callable[[Node], Api], own: Database
) -> None:
    a = apis(await asyncio.to_thread(ground.node, ROOM_EMPTY_END="2"))
    boss = await Host.hired(own, a)
    empty, inhabited = await boss.creates(), await boss.creates()
    await Guest(a).joins(inhabited)  # over REST alone: it is in the room
    start = time.monotonic()
    while (await a.room(empty))["status"] == "active":
        assert time.monotonic() - start < patient(5)
        await asyncio.sleep(0.1)
    assert time.monotonic() - start > 1.5
    last = (await boss.log(empty))[-1]
    assert (last["type"], last["reason"], last["by"]) == ("room_ended", "empty", "system")
    assert (await a.room(inhabited))["status"] == "active"


# -- a Postgres that answers but takes nothing -----------------------------------------------------


async def test_a_node_that_cannot_write_to_postgres_is_unready_and_says_why_once(
    ground: Deployment, apis: Callable[[Node], Api], own: Database
) -> None:
    """A full disk: reads go on, the lease does not."""
    a = apis(await asyncio.to_thread(ground.node))
    make = "CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS $$"
    await own.execute(f"{make} BEGIN RAISE disk_full; END $$")
    await own.execute(
        "CREATE TRIGGER refuses BEFORE UPDATE ON nodes FOR EACH ROW EXECUTE FUNCTION refuses()"
    )
    try:
        await becomes(a, "unavailable", within=4)
        assert (await a.get("/health/ready")).status_code == 503
        await asyncio.sleep(1)
    finally:
        await own.execute("DROP FUNCTION refuses CASCADE")
    await becomes(a, "ready", within=3)
    assert a.node.logs().count("DiskFull") == 1

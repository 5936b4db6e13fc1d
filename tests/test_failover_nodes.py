"""A primary is lost under whole nodes with live clients: all of them end with just the new log."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import asyncpg
import httpx
import pytest
import pytest_asyncio

from coordinator.standins.servers import EmbeddedPostgres
from coordinator.store.database import Database
from coordinator.store.room_writer.commands import Join
from coordinator.store.room_writer.queue import Writer
from tests.harness.cluster import signal_family, steady_ports
from tests.harness.node import Deployment
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host, Live
from tests.harness.promises import logged
from tests.harness.standby import StandbyPostgres
from tests.harness.tcp_proxy import TcpProxy
from tests.test_failover import ROOMY

pytestmark = pytest.mark.timeout(400)

SERVICE_SECONDS = 30.0
"""How long a call is tried again; what is promised is read from the nodes' own clocks."""
NOTICED_SECONDS = 5.0
"""From a promotion to the moment at which a node knows that it is in another history."""
CLOSED = {4103, 4200, 4201, 1006}


class LogFollower:
    """A client of the contract: where its connection ends it resumes, and what it believes is its
    last snapshot and all that it was told since.
    """

    def __init__(self, host: Host, room: str, api: Api) -> None:
        self.host, self.room, self.api = host, room, api
        self.seq = self.base = 0
        self.epoch = ""
        self.events: list[dict[str, Any]] = []
        self.closed: list[int | None] = []
        self.live: Live | None = None
        self._taken = 0

    async def connects(self) -> Self:
        deadline = time.monotonic() + patient(SERVICE_SECONDS)
        while (live := await self._opened()).frames[0]["type"] != "welcome":
            assert live.frames[0]["code"] in CLOSED
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        self.live, self._taken = live, 0
        self.learns()
        return self

    async def _opened(self) -> Live:
        how: dict[str, Any] = {"observe": 1}
        if self.epoch:
            how |= {"since": self.seq, "epoch": self.epoch}
        live = await self.api.watch(self.room, self.host.token, **how)
        await live.until(lambda: bool(live.frames))
        return live

    def learns(self) -> None:
        """Takes in what its connection has been told."""
        assert self.live is not None
        new, self._taken = self.live.frames[self._taken :], len(self.live.frames)
        for frame in new:
            if frame["type"] == "welcome" and not frame["resumed"]:
                self.seq = self.base = frame["seq"]
                self.events = []
            elif "at" in frame:
                assert frame["seq"] == self.seq + 1
                self.seq = frame["seq"]
                self.events.append(frame)
            self.epoch = frame.get("epoch", self.epoch)

    async def vanishes(self) -> None:
        assert self.live is not None
        await self.live.vanishes()
        self.learns()

    async def reaches(self, seq: int, epoch: str) -> None:
        """Follows its room, over as many connections as it takes, up to there."""
        deadline = time.monotonic() + patient(SERVICE_SECONDS)
        while True:
            assert self.live is not None
            if self.live.code is None:
                with contextlib.suppress(Exception):
                    await self.live.says(type="ping")
            await asyncio.sleep(0.1)
            self.learns()
            if self.seq >= seq and self.epoch == epoch and self.live.code is None:
                return
            assert time.monotonic() < deadline, f"it stands at {self.seq}, closed {self.closed}"
            if self.live.code is not None:
                self.closed.append(self.live.code)
                assert self.live.code in CLOSED
                await self.connects()

    def agrees_with(self, log: list[dict[str, Any]]) -> None:
        assert self.seq == len(log)
        assert self.events == log[self.base :]


class ReplicatedSite:
    """A primary behind a proxy, its standby, and two nodes that know both."""

    def __init__(self, folder: Path) -> None:
        ports = steady_ports(3)
        options = ("fsync=off", "wal_keep_size=64MB")
        self.primary = EmbeddedPostgres(folder / "primary", port=ports[0], options=options)
        self.road, self.cable = TcpProxy(ports[0]), TcpProxy(ports[0])
        self.standby = StandbyPostgres(
            self.primary, folder / "standby", port=ports[1], cable=self.cable, options=options
        )
        self.apis: list[Api] = []

    async def starts(self, redis_url: str) -> None:
        await asyncio.to_thread(self.primary.start)
        await self.cable.start()
        await self.road.start()
        await asyncio.to_thread(self.standby.start)
        hosts = f"127.0.0.1:{self.road.port},127.0.0.1:{self.standby.port}"
        url = f"postgresql://postgres@{hosts}/coordinator"
        self.deployment = Deployment(url, redis_url, PRESENCE_GRACE="30")
        migrated = await asyncio.to_thread(self.deployment.run, "migrate")
        assert migrated.returncode == 0, migrated.stderr
        for _ in range(2):
            self.apis.append(Api(await asyncio.to_thread(self.deployment.node)))
        database = Database(url)
        await database.open()
        self.host = await Host.hired(database, self.apis[0])
        await database.close()

    async def ends(self) -> None:
        for api in self.apis:
            await api.aclose()
        if self.primary.process is not None:
            signal_family(self.primary.process.pid, signal.SIGCONT)
        await asyncio.to_thread(self.deployment.__exit__, None, None, None)
        for server in (self.standby, self.primary):
            await asyncio.to_thread(server.stop)
        await self.road.close()
        await self.cable.close()

    async def regrows(self, room: str, count: int) -> None:
        """The new primary's log grows before any node has seen it."""
        database = Database(self.standby.url)
        await database.open()
        writer = Writer(database, ROOMY, lambda events, replaced: None)
        writing = asyncio.create_task(writer.run())
        for number in range(count):
            who = f"guest_early{number}"
            await writer.submit(Join(room_id=room, user_id=who, user_name=who, identity=None))
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await database.close()

    async def follower(self, room: str, node: int) -> LogFollower:
        return await LogFollower(self.host, room, self.apis[node]).connects()

    async def serves(self, room: str) -> Guest:
        """A guest who tries until it is in the room."""
        deadline = time.monotonic() + patient(SERVICE_SECONDS)
        while True:
            answer = await self.apis[1].post(
                "/api/interview/guest/join", {"roomId": room, "userName": "王芳"}
            )
            if answer.status_code == 200:
                guest = Guest(self.apis[1])
                joined = answer.json()["data"]
                guest.room_id, guest.user_id, guest.seq = room, joined["guestId"], joined["seq"]
                return guest
            assert answer.status_code == 503, answer.text
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)

    async def epoch(self) -> str:
        operator = await asyncpg.connect(self.standby.url)
        try:
            return str(await operator.fetchval("SELECT epoch FROM deployment"))
        finally:
            await operator.close()


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[ReplicatedSite]:
    folder = Path(tempfile.mkdtemp(prefix="coordinator-failover-"))
    made = ReplicatedSite(folder)
    await made.starts(redis_url)
    yield made
    await made.ends()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(("behind", "is_regrown"), [(2, False), (50, True)], ids=str)
async def test_everybody_ends_with_the_log_of_the_standby(
    site: ReplicatedSite, behind: int, is_regrown: bool
) -> None:
    """Those who stay connected to either node, and who resumes after it with the old epoch."""
    room = await site.host.creates()
    for _ in range(3):
        await Guest(site.apis[0]).joins(room)
    followers = [await site.follower(room, node) for node in (0, 1, 0, 1)]
    await site.standby.catches_up()
    site.cable.cut()
    for _ in range(behind):
        await Guest(site.apis[0]).joins(room)
    for follower in followers:
        assert follower.live is not None
        await follower.live.reaches(4 + behind)
    away = followers.pop()
    await away.vanishes()

    died = time.time()
    site.primary.kill()
    promoted = await site.standby.is_promoted()
    if is_regrown:
        await site.regrows(room, behind + 2)
    await site.serves(room)
    await away.connects()
    last = await site.serves(room)
    epoch = await site.epoch()

    for follower in (*followers, away):
        await follower.reaches(last.seq, epoch)
    log = await site.host.log(room)
    assert len(log) == last.seq
    for follower in (*followers, away):
        follower.agrees_with(log)
    for api in site.apis:
        noticed = await logged(api.node, "epoch_changed", after=died)
        assert noticed - promoted < NOTICED_SECONDS


@pytest.mark.parametrize("fault", ["frozen", "cut off"])
async def test_nothing_told_or_answered_is_missing_where_the_standby_is_synchronous(
    site: ReplicatedSite, fault: str
) -> None:
    await site.standby.is_synchronous()
    room = await site.host.creates()
    followers = [await site.follower(room, node) for node in (0, 1)]
    answered: list[str] = []
    is_over = asyncio.Event()

    async def keeps_joining(api: Api) -> None:
        while not is_over.is_set():
            with contextlib.suppress(httpx.HTTPError):
                answer = await api.post(
                    "/api/interview/guest/join", {"roomId": room, "userName": "李明"}
                )
                if answer.status_code == 200:
                    answered.append(answer.json()["data"]["guestId"])
            await asyncio.sleep(0.02)

    joining = [asyncio.create_task(keeps_joining(api)) for api in site.apis]
    while len(answered) < 20:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    if fault == "frozen":
        assert site.primary.process is not None
        signal_family(site.primary.process.pid, signal.SIGSTOP)
    else:
        site.road.hang()
        site.cable.hang()
    await site.standby.is_promoted()
    await site.serves(room)
    is_over.set()
    await asyncio.gather(*joining)
    last, epoch = await site.serves(room), await site.epoch()

    for follower in followers:
        await follower.reaches(last.seq, epoch)
    log = await site.host.log(room)
    for follower in followers:
        follower.agrees_with(log)
        assert follower.closed == [], "its socket stays"
        assert follower.base == 1, "no told event is missing"
    joined = {e["participant"]["userId"] for e in log if e["type"] == "participant_joined"}
    assert set(answered) <= joined


async def test_an_old_primary_that_comes_back_changes_nothing(site: ReplicatedSite) -> None:
    """It stands first in DATABASE_URL and takes writes: its time line says that it is old."""
    room = await site.host.creates()
    follower = await site.follower(room, 0)
    await site.standby.catches_up()
    site.primary.kill()
    await site.standby.is_promoted()
    first = await site.serves(room)
    epoch = await site.epoch()
    await follower.reaches(first.seq, epoch)  # both nodes have seen the new time line

    await asyncio.to_thread(site.primary.start)
    operator = await asyncpg.connect(site.standby.url)
    await operator.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'coordinator'"
    )
    await operator.close()
    await site.serves(room)
    last = await site.serves(room)

    await follower.reaches(last.seq, epoch)
    follower.agrees_with(await site.host.log(room))
    old = await asyncpg.connect(site.primary.url)
    try:
        sql = "SELECT last_seq FROM interview_rooms WHERE room_id = $1"
        assert await old.fetchval(sql, room) == 1
    finally:
        await old.close()

"""A primary dies, its standby is promoted, up to date or behind: what is gone is noticed."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from coordinator.domain.errors import Unavailable
from coordinator.domain.events import Event
from coordinator.domain.people import Staff
from coordinator.domain.room import Policy
from coordinator.live.lease import LEASE
from coordinator.standins.servers import EmbeddedPostgres
from coordinator.store.database import Database
from coordinator.store.migrations import migrate
from coordinator.store.room_writer.commands import Join
from coordinator.store.room_writer.queue import Writer
from coordinator.store.rooms import Rooms
from tests.harness.cluster import signal_family, steady_ports
from tests.harness.patience import patient
from tests.harness.people import new_room_id
from tests.harness.standby import StandbyPostgres
from tests.harness.tcp_proxy import TcpProxy

pytestmark = pytest.mark.timeout(120)

BACK_SECONDS = 5.0
ROOMY = Policy(1000, LEASE)


class Replicated:
    """A primary, its standby, and one node's store that knows both hosts."""

    def __init__(self, folder: Path) -> None:
        ports = steady_ports(2)
        options = ("fsync=off", "wal_keep_size=64MB")
        self.primary = EmbeddedPostgres(folder / "primary", port=ports[0], options=options)
        self.cable = TcpProxy(ports[0])
        self.standby = StandbyPostgres(
            self.primary, folder / "standby", port=ports[1], cable=self.cable, options=options
        )
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        self.database = Database(f"postgresql://postgres@{hosts}/coordinator")
        self.writer = Writer(self.database, ROOMY, lambda events, replaced: None)
        self.rooms = Rooms(self.database)
        self.heard: list[str] = []
        self.heard_at = 0.0
        self._writing: asyncio.Task[None] | None = None

    async def starts(self) -> None:
        await asyncio.to_thread(self.primary.start)
        await self.cable.start()
        await asyncio.to_thread(self.standby.start)
        await migrate(self.database)
        await self.database.open()
        self.database.epochs.on_change(self._hears)
        self._writing = asyncio.create_task(self.writer.run())

    def _hears(self, epoch: str) -> None:
        self.heard.append(epoch)
        self.heard_at = time.time()

    async def ends(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await self.database.close()
        for server in (self.standby, self.primary):
            await asyncio.to_thread(server.stop)
        await self.cable.close()

    async def makes_a_room(self) -> str:
        room_id = new_room_id()
        host = Staff(1, "openid", "hr")
        await self.rooms.create(room_id=room_id, room_name="n", host_name="h", host=host)
        return room_id

    async def joins(self, room_id: str, *names: str) -> None:
        for name in names:
            await self.writer.submit(
                Join(room_id=room_id, user_id=f"guest_{name}", user_name=name, identity=None)
            )

    async def fails_over(self, *, frozen: bool = False) -> float:
        """The primary dies, the standby is promoted; seconds from there to the next epoch, by the
        clocks of the standby and of the store.
        """
        if frozen and self.primary.process is not None:
            signal_family(self.primary.process.pid, signal.SIGSTOP)
        else:
            self.primary.kill()
        promoted = await self.standby.is_promoted()
        async with asyncio.timeout(patient(4 * BACK_SECONDS)):
            while not self.heard:
                try:
                    await self.database.epochs.check()
                except Unavailable:
                    await asyncio.sleep(0.1)
        return self.heard_at - promoted


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Replicated]:
    folder = Path(tempfile.mkdtemp(prefix="coordinator-failover-"))
    made = Replicated(folder)
    await made.starts()
    yield made
    await made.ends()
    shutil.rmtree(folder, ignore_errors=True)


async def test_a_primary_that_says_nothing_any_more_is_left(site: Replicated) -> None:
    """Its connections stand and its port accepts: nothing but time tells that it is gone."""
    room = await site.makes_a_room()
    await asyncio.gather(*[site.rooms.head(room) for _ in range(10)])  # connections to hang
    await site.joins(room, "a", "b")
    await site.standby.catches_up()
    try:
        seconds = await site.fails_over(frozen=True)
        await site.joins(room, "c")
    finally:
        if site.primary.process is not None:
            signal_family(site.primary.process.pid, signal.SIGCONT)

    assert [event.seq for event in await log_of(site, room)] == [1, 2, 3, 4]
    assert seconds < 2 * BACK_SECONDS, "a caller's patience, then a host's"


@pytest.mark.parametrize("behind", [0, 1, 2, 50])
async def test_what_was_told_is_found_to_be_gone_or_there(site: Replicated, behind: int) -> None:
    """Also after the new log has grown past the old end."""
    room = await site.makes_a_room()
    untouched = await site.makes_a_room()
    await site.joins(room, "a", "b", "c")
    before = site.database.epochs.current
    await site.standby.catches_up()
    site.cable.cut()
    await site.joins(room, *[f"lost{number}" for number in range(behind)])
    told = {room_id: await site.rooms.load(room_id) for room_id in (room, untouched)}
    heads = [(room_id, loaded[0]) for room_id, loaded in told.items() if loaded is not None]

    seconds = await site.fails_over()

    expected = {room} if behind else set()
    assert await site.rooms.vanished(heads) == expected
    moved = {each.feed_id: each for each in await site.rooms.moved(heads)}
    assert set(moved) == expected
    assert all(not each.stands for each in moved.values())
    # The log grows again, past what was told.
    await site.joins(room, *[f"new{number}" for number in range(behind + 2)])
    events = await log_of(site, room)
    assert [event.seq for event in events][-1] > dict(heads)[room].seq
    assert await site.rooms.vanished(heads) == expected
    (grown,) = await site.rooms.moved(heads)
    assert (grown.feed_id, grown.stands) == (room, not behind)
    epoch = site.database.epochs.current
    assert [event.epoch for event in events] == [before] * 4 + [epoch] * (behind + 2)
    assert site.heard == [epoch]
    assert seconds < BACK_SECONDS


async def log_of(site: Replicated, room: str) -> list[Event]:
    """The whole log; it has no hole."""
    events = await site.rooms.events_after(room, 0, 10_000)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return events


async def test_no_answered_join_is_missing_with_a_synchronous_standby(site: Replicated) -> None:
    room = await site.makes_a_room()
    await site.standby.is_synchronous()
    answered: list[str] = []
    refused = 0

    async def keeps_joining(worker: int) -> None:
        nonlocal refused
        number = 0
        while len(site.heard) == 0 or len(answered) < 60:
            number += 1
            try:
                await site.joins(room, f"{worker}_{number}")
                answered.append(f"guest_{worker}_{number}")
            except Unavailable:
                refused += 1
            await asyncio.sleep(0.01)

    workers = [asyncio.create_task(keeps_joining(worker)) for worker in range(4)]
    while len(answered) < 40:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await site.fails_over()
    async with asyncio.timeout(patient(60)):
        await asyncio.gather(*workers)

    events = await log_of(site, room)
    joined = {e.data["participant"]["userId"] for e in events if e.type == "participant_joined"}
    assert set(answered) <= joined


async def test_the_old_primary_that_comes_back_is_refused(site: Replicated) -> None:
    """Two primaries are two histories: the one with the longer time line is ours."""
    room = await site.makes_a_room()
    await site.standby.catches_up()
    await site.fails_over()
    epoch = site.database.epochs.current
    old = Database(site.primary.url)

    await asyncio.to_thread(site.primary.start)
    connection = await old.connect_plainly()
    with pytest.raises(Unavailable, match="older primary"):
        await site.database.epochs.prove(connection)
    await connection.close()

    assert site.database.epochs.current == epoch
    await site.joins(room, "after")
    assert (await site.rooms.head(room)) == 2

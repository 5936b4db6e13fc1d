"""The reaper in this process, on real tables: whom it judges, and what it does not let stop it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest_asyncio

from coordinator.data_cipher import DataCipher
from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import Unavailable
from coordinator.domain.ids import new_guest_id, new_session_id
from coordinator.domain.people import Staff
from coordinator.domain.room import Lifespan, Policy
from coordinator.live.housekeeping import Housekeeping
from coordinator.live.judge import Judge
from coordinator.live.lease import Lease
from coordinator.live.loop import Loop
from coordinator.live.own_rows import OwnRows
from coordinator.live.reaper import Reaper, Reconciler
from coordinator.live.registry import ConnectionRegistry
from coordinator.live.shifts import Shifts
from coordinator.store.database import Database
from coordinator.store.duties import Duties
from coordinator.store.nodes import Nodes, StoredConnection
from coordinator.store.qr_images import Images
from coordinator.store.retention import Keep, Retention
from coordinator.store.room_writer.commands import Connect, Disconnect, End, Join, MarkAway
from coordinator.store.room_writer.queue import Writer
from coordinator.store.rooms import Rooms
from coordinator.store.sealing import Sealing
from tests.harness.patience import patient
from tests.harness.people import new_room_id

FOR_EVER = Lifespan(host_absent=None, empty=None, age=None)
GRACE = timedelta(seconds=0.1)
KEEP = Keep.days(events=30, participants=30, interviews=0, untold=30)


class JudgingNode:
    """One node's presence, as `NodeProcess` builds it, without its loops running."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.nodes = Nodes(database)
        self.lease = Lease(self.nodes, ConnectionRegistry(), name="test")
        self.writer = Writer(database, Policy(500, GRACE), lambda events, replaced: None)
        judge = Judge()
        self.shifts = Shifts(Duties(database), self.lease, judge)
        self.reaper = Reaper(
            self.lease, self.nodes, self.writer, self.shifts, judge, grace=GRACE,
            lifespan=FOR_EVER,
        )  # fmt: skip

    async def enter(self) -> None:
        """Takes a lease that counts as held for an hour."""
        await self.lease.enter()
        await self.database.execute(
            "UPDATE nodes SET held_since = clock_timestamp() - interval '1 h' WHERE boot = $1",
            self.lease.node_epoch,
        )

    async def guest(self) -> tuple[str, str, str]:
        """Somebody connected to a new room by this node: room, user and session."""
        room, user, session = new_room_id(), new_guest_id(), new_session_id()
        host = Staff(1, "openid", "hr", "张经理")
        await Rooms(self.database).create(
            room_id=room, room_name="面试", host_name="张经理", host=host
        )
        await self.writer.submit(
            Join(room_id=room, user_id=user, user_name="李明", identity=None)
        )
        await self.writer.submit(
            Connect(
                room_id=room, user_id=user, session_id=session, node_epoch=self.lease.node_epoch
            )
        )
        return room, user, session

    async def is_in_the_room(self, room: str, user: str) -> bool:
        return bool(
            await self.database.fetchval(
                "SELECT left_at IS NULL FROM interview_participants"
                " WHERE room_id = $1 AND user_id = $2",
                room,
                user,
            )
        )


class HeldSessions:
    """The sessions of a node as its registry has them; `closed`: with which codes."""

    def __init__(self) -> None:
        self.rows = OwnRows()
        self.people: dict[str, tuple[str, str]] = {}
        self.closed: dict[str, CloseCode] = {}

    def opened(self, room: str, user: str, session: str) -> None:
        self.rows.claim(session)
        self.rows.confirm(session)
        self.people[session] = room, user

    def claimed(self) -> set[str]:
        return set(self.rows.claimed)

    def confirmed(self) -> set[str]:
        return set(self.rows.confirmed)

    def marked(self) -> set[str]:
        return set(self.rows.marked)

    def participant(self, session_id: str) -> tuple[str, str] | None:
        return self.people[session_id] if session_id in self.rows.confirmed else None

    def close_session(self, session_id: str, code: CloseCode) -> None:
        self.closed[session_id] = code


@pytest_asyncio.fixture
async def site(database: Database) -> AsyncIterator[JudgingNode]:
    made = JudgingNode(database)
    await made.enter()
    writing = asyncio.create_task(made.writer.run())
    yield made
    await made.lease.leave()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_a_deadline_that_has_passed_is_carried_out(site: JudgingNode) -> None:
    room, user, session = await site.guest()
    await site.writer.submit(Disconnect(room_id=room, user_id=user, session_id=session))
    await asyncio.sleep(GRACE.total_seconds() + 0.05)

    await site.reaper.enforce_deadlines()

    assert not await site.is_in_the_room(room, user)


async def test_trouble_with_housekeeping_stops_no_judging(site: JudgingNode) -> None:
    """Somebody locks the log of an old room: the purge fails, and people leave all the same."""
    old, _, _ = await site.guest()
    await site.writer.submit(End(room_id=old, by="user_001"))
    await site.database.execute(
        "UPDATE interview_rooms SET ended_at = now() - interval '90 d' WHERE room_id = $1", old
    )
    room, user, session = await site.guest()
    await site.writer.submit(Disconnect(room_id=room, user_id=user, session_id=session))
    sealing = Sealing(site.database, DataCipher(()))
    tidy = Housekeeping(Retention(site.database, KEEP), sealing, Images(site.database))
    purging = Loop(tidy.purge, name="purge", seconds=60)
    other = await asyncpg.connect(site.database.url)
    await other.execute("BEGIN")
    await other.execute("SELECT FROM room_events WHERE room_id = $1 FOR UPDATE", old)
    try:
        await purging.pass_once()
        await asyncio.sleep(GRACE.total_seconds() + 0.05)

        await site.reaper.enforce_deadlines()
    finally:
        await other.close()

    assert not await site.is_in_the_room(room, user)


async def test_a_judge_that_was_troubled_waits(site: JudgingNode) -> None:
    """It may have missed that somebody returned."""
    room, user, session = await site.guest()
    await site.writer.submit(Disconnect(room_id=room, user_id=user, session_id=session))

    async def fails() -> None:
        raise Unavailable

    site.reaper._loops[0]._work = fails
    await site.reaper._loops[0].pass_once()
    await asyncio.sleep(GRACE.total_seconds() + 0.05)
    await site.reaper.enforce_deadlines()

    assert await site.is_in_the_room(room, user)


async def test_a_loop_says_its_own_trouble_until_a_pass_goes_well() -> None:
    faults = [Unavailable(), Unavailable(), None]

    async def work() -> None:
        if fault := faults.pop(0):
            raise fault

    failing, other = Loop(work, name="failing", seconds=1), Loop(work, name="other", seconds=1)
    await failing.pass_once()
    await failing.pass_once()

    assert failing.trouble is not None
    assert other.trouble is None
    await failing.pass_once()
    assert failing.trouble is None


async def test_a_loop_ends_when_it_is_told_to_though_its_work_swallows_that() -> None:
    has_begun = asyncio.Event()

    async def work() -> None:
        has_begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    running = asyncio.create_task(Loop(work, name="deaf", seconds=0.0).run())
    await has_begun.wait()
    running.cancel()
    await asyncio.wait([running], timeout=patient(2))

    assert running.cancelled()


async def test_a_node_without_limits_keeps_nobodys_rooms_alive(site: JudgingNode) -> None:
    """It has no duty to end rooms; nodes of different limits have a judge each."""
    hour = timedelta(hours=1)
    kinds = []
    for lifespan in (FOR_EVER, Lifespan(hour, None, None), Lifespan(None, hour, None)):
        reaper = Reaper(
            site.lease, site.nodes, site.writer, site.shifts, Judge(), grace=GRACE,
            lifespan=lifespan,
        )  # fmt: skip
        kinds.append([loop.name for loop in reaper._loops if loop.name.startswith("end_rooms")])

    assert kinds[0] == []
    assert len(kinds[1]) == len(kinds[2]) == 1
    assert kinds[1] != kinds[2]
    assert all(len(kind) <= 30 for kind in (*kinds[1], *kinds[2]))


async def test_a_socket_without_a_row_is_closed_and_a_row_without_a_socket_goes(
    site: JudgingNode,
) -> None:
    sessions = HeldSessions()
    lost, ended, opening = [await site.guest() for _ in range(3)]
    sessions.opened(*lost)
    sessions.rows.claim(opening[2])  # its answer is on its way
    room, user, session = lost
    await site.writer.submit(Disconnect(room_id=room, user_id=user, session_id=session))

    await Reconciler(site.lease, site.nodes, site.writer, sessions).reconcile()

    assert sessions.closed == {session: CloseCode.CANNOT_CONTINUE}
    assert await site.nodes.sessions(site.lease.node_epoch) == {opening[2]}
    assert ended[2] not in sessions.closed


async def test_who_was_away_while_the_rows_were_read_is_not_closed(site: JudgingNode) -> None:
    """Its row goes, and comes again."""
    sessions = HeldSessions()
    sessions.opened(*(await site.guest()))
    ((session, (room, user)),) = sessions.people.items()
    epoch = site.lease.node_epoch

    class ReadsSlowly(Nodes):
        async def sessions(self, node_epoch: str) -> set[str]:
            gone = Disconnect(room_id=room, user_id=user, session_id=session)
            await site.writer.submit(gone)
            found = await super().sessions(node_epoch)
            await site.writer.submit(
                Connect(room_id=room, user_id=user, session_id=session, node_epoch=epoch)
            )
            return found

    nodes = ReadsSlowly(site.database)
    await Reconciler(site.lease, nodes, site.writer, sessions).reconcile()

    assert sessions.closed == {}
    assert await site.nodes.sessions(epoch) == {session}


async def test_a_mark_that_was_not_written_is_written_later(site: JudgingNode) -> None:
    """But not of a client that has come back since."""
    sessions = HeldSessions()
    away, back = [await site.guest() for _ in range(2)]
    for guest in (away, back):
        sessions.opened(*guest)
        sessions.rows.mark(guest[2])
    epoch = site.lease.node_epoch

    class HearsOfAReturn(Nodes):
        async def unmarked(
            self, node_epoch: str, sessions_: list[str]
        ) -> list[StoredConnection]:
            found = await super().unmarked(node_epoch, sessions_)
            sessions.rows.marked.discard(back[2])
            return found

    nodes = HearsOfAReturn(site.database)
    await Reconciler(site.lease, nodes, site.writer, sessions).reconcile()

    rows = await site.nodes.unmarked(epoch, [away[2], back[2]])
    assert [row.session_id for row in rows] == [back[2]]
    assert await site.nodes.sessions(epoch) == {away[2], back[2]}
    assert sessions.closed == {}


async def test_the_marked_connections_of_a_dead_node_go_without_an_event(
    site: JudgingNode,
) -> None:
    room, user, session = await site.guest()
    await site.writer.submit(MarkAway(room_id=room, user_id=user, session_id=session))
    seq = "SELECT last_seq FROM interview_rooms WHERE room_id = $1"
    before = await site.database.fetchval(seq, room)
    dead = "UPDATE away_connections SET boot = 'gone' WHERE id = $1"
    await site.database.execute(dead, session)

    await site.reaper.reap()

    stored = "SELECT FROM away_connections WHERE id = $1"
    assert await site.database.fetch(stored, session) == []
    assert await site.database.fetchval(seq, room) == before

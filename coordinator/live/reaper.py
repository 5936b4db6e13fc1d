"""The reaper: dead nodes, deadlines that have passed, and rows without sockets.

One node at a time has the duty (`shifts.py`): it deletes leases that ran out, drops the connections
that dead nodes left behind, and carries out deadlines that have passed. It judges only what
happened while it was itself watching, so that an outage of Postgres puts nobody out: after one, a
node does not judge until every node has had the time to renew, and every client to return. No timer
lives in a process that can die: if the judge is killed between two lines, another node goes on.

The reaper reads candidates. A command of the writer decides about each, under the room's lock.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

import structlog

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import CoordinatorError, Unavailable
from coordinator.domain.room import Lifespan
from coordinator.domain.room_rules import MAX_CONNECTIONS
from coordinator.live.judge import Judge
from coordinator.live.lease import LEASE, Lease
from coordinator.live.loop import Loop, waited
from coordinator.live.shifts import Shifts
from coordinator.metrics import PRESENCE_EXPIRED
from coordinator.store.nodes import Nodes, StoredConnection
from coordinator.store.room_writer.commands import (
    Command,
    Disconnect,
    EndIfOverdue,
    Expire,
    MarkAway,
)
from coordinator.store.room_writer.queue import Writer

log = structlog.get_logger()

QUIET_SECONDS = 10.0
"""How long a node judges nobody after Postgres was away: a lease, and the time to come back."""
JUDGE_SECONDS = 0.5
RECONCILE_SECONDS = 5.0
BATCH = 500
REAP = "reap"
DEAF = timedelta(seconds=5)
"""How long a node must not have heard the judge for everybody to take Redis for split."""


class Reaper:
    """A node's share of judging. It speaks through the writer alone."""

    def __init__(
        self,
        lease: Lease,
        nodes: Nodes,
        writer: Writer,
        shifts: Shifts,
        judge: Judge,
        *,
        grace: timedelta,
        lifespan: Lifespan,
    ) -> None:
        self._lease = lease
        self._nodes = nodes
        self._writer = writer
        self._shifts = shifts
        self._judge = judge
        self._grace = grace
        self._lifespan = lifespan
        # One loop for each work: a room whose lock is held (a node froze inside a transaction, for
        # 2 s) delays the work that concerns it, and no other.
        # A node judges a deadline when it has watched for its own grace: nodes whose settings
        # differ (a rolling restart changes them) do not wait for each other.
        works = {REAP: self.reap, f"deadlines {grace.total_seconds():g}": self.enforce_deadlines}
        if lifespan.host_absent or lifespan.empty or lifespan.age:
            works[_duty_of(lifespan)] = self.end_rooms
        self._loops = [
            Loop(partial(self._on_duty, kind, work), name=kind, seconds=JUDGE_SECONDS)
            for kind, work in works.items()
        ]

    async def run(self) -> None:
        """Judges until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for loop in self._loops:
                tasks.create_task(loop.run())

    async def _on_duty(self, kind: str, work: Callable[[], Awaitable[None]]) -> None:
        """A pass, where this node has the duty. A pass that is stuck loses it to another node."""
        is_held = await self._shifts.is_held(kind)
        if kind == REAP:
            self._judge.is_me = is_held
        if is_held:
            await work()

    def _is_calm(self, seconds: float) -> bool:
        """True where neither the lease nor judging has failed for so long: nothing was missed."""
        loops_are_calm = all(loop.was_calm(seconds) for loop in self._loops)
        return loops_are_calm and self._lease.was_held_calmly(seconds)

    async def reap(self) -> None:
        """Deletes the leases of dead nodes, and drops the connections that they left."""
        self._judge.is_somebody_deaf = await self._nodes.is_somebody_deaf(DEAF)
        if self._is_calm(QUIET_SECONDS):
            dead = await self._nodes.reap_dead(self._lease.node_epoch, LEASE)
            if dead:
                log.warning("node_died", nodeEpochs=dead)
        orphans = await self._nodes.orphans(BATCH)
        while self._lease.is_good and orphans:
            await drop(self._writer, orphans)
            orphans = await self._nodes.orphans(BATCH) if len(orphans) == BATCH else []

    async def enforce_deadlines(self) -> None:
        """Carries out the deadlines of those who did not return."""
        while self._is_calm(max(QUIET_SECONDS, self._grace.total_seconds())):
            overdue = await self._nodes.overdue(self._lease.node_epoch, self._grace, BATCH)
            left = await _carry_out(
                self._writer, (Expire(room_id=room, user_id=user) for room, user in overdue)
            )
            PRESENCE_EXPIRED.inc(left.count(True))
            if len(overdue) < BATCH:
                return

    async def end_rooms(self) -> None:
        """Ends rooms whose time has passed."""
        lifespan = self._lifespan
        if self._is_calm(QUIET_SECONDS):
            rooms = await self._nodes.overdue_rooms(lifespan, BATCH)
            await _carry_out(
                self._writer, (EndIfOverdue(room_id=room, lifespan=lifespan) for room in rooms)
            )


def _duty_of(lifespan: Lifespan) -> str:
    """The duty of ending rooms by these limits: nodes with other limits have another judge."""
    limits = repr((lifespan.host_absent, lifespan.empty, lifespan.age)).encode()
    return f"end_rooms {zlib.crc32(limits):08x}"


class OwnSessions(Protocol):
    """The node's live connections, as `Reconciler` needs them."""

    def claimed(self) -> set[str]:
        """Session ids that have a row now, or are about to have one."""

    def confirmed(self) -> set[str]:
        """Sessions whose row has been written, as of now."""

    def marked(self) -> set[str]:
        """Sessions that are marked away, as of now."""

    def participant(self, session_id: str) -> tuple[str, str] | None:
        """Of a session whose row has been written, its room and user; None of any other."""

    def close_session(self, session_id: str, code: CloseCode) -> None:
        """Closes one connection, where it is here."""


class Reconciler:
    """Compares this node's rows with its sockets, and mends what has no counterpart.

    It drops the rows of sockets that ended while Postgres was away, closes sockets whose rows
    another node has deleted, and marks the rows of clients that went to the background unheard.
    """

    def __init__(self, lease: Lease, nodes: Nodes, writer: Writer, sessions: OwnSessions) -> None:
        self._lease = lease
        self._nodes = nodes
        self._writer = writer
        self._sessions = sessions
        self._loop = Loop(self.reconcile, name="reconcile", seconds=0)

    async def run(self) -> None:
        """Every 5 s, and at once when a lease that had run out is held again; until cancelled."""
        while True:
            await waited(self._lease.was_regained, at_most=RECONCILE_SECONDS)
            await self._loop.pass_once()

    async def reconcile(self) -> None:
        """One comparison.

        Raises:
            Unavailable: Postgres is away.
        """
        confirmed = self._sessions.confirmed()
        node_epoch = self._lease.node_epoch
        stored = await self._nodes.sessions(node_epoch)
        if node_epoch != self._lease.node_epoch:
            return
        if lost := confirmed - stored:
            await self._close(node_epoch, lost)
        if unknown := stored - confirmed - self._sessions.claimed():
            await self._drop(node_epoch, unknown)
        if marked := self._sessions.marked() & confirmed:
            await self._mark(node_epoch, marked)

    async def _close(self, node_epoch: str, lost: set[str]) -> None:
        """Closes the sockets of those sessions, but who has ended since, or was away for a moment
        and has a row again.
        """
        again = {row.session_id for row in await self._nodes.stored(node_epoch, list(lost))}
        people = {
            s: who for s in lost - again if (who := self._sessions.participant(s)) is not None
        }
        if not people:
            return
        crowded = await self._nodes.crowded(list(people.values()), MAX_CONNECTIONS)
        for session_id, who in people.items():
            # Where its participant has MAX_CONNECTIONS others, newer connections pushed it out: a
            # client that returned at once would push out the next. (Mostly the node of the newer
            # connection has closed this one already.)
            code = CloseCode.REPLACED if who in crowded else CloseCode.CANNOT_CONTINUE
            self._sessions.close_session(session_id, code)

    async def _drop(self, node_epoch: str, unknown: Iterable[str]) -> None:
        """Drops the rows of those sessions; a connection that has closed since they were read, or
        is coming back, writes its own.
        """
        rows = await self._nodes.stored(node_epoch, list(unknown))
        claimed = self._sessions.claimed()
        await drop(self._writer, [row for row in rows if row.session_id not in claimed])

    async def _mark(self, node_epoch: str, marked: set[str]) -> None:
        """Marks the rows of those sessions that are not, but of who has come back since."""
        rows = await self._nodes.unmarked(node_epoch, list(marked))
        still = self._sessions.marked()
        await _carry_out(
            self._writer,
            (
                MarkAway(room_id=row.room_id, user_id=row.user_id, session_id=row.session_id)
                for row in rows
                if row.session_id in still
            ),
        )


async def drop(writer: Writer, connections: Iterable[StoredConnection]) -> None:
    """Writes that connections have gone; a row that is gone already changes nothing.

    Raises:
        Unavailable: Postgres is away.
    """
    await _carry_out(
        writer,
        (
            Disconnect(room_id=c.room_id, user_id=c.user_id, session_id=c.session_id)
            for c in connections
        ),
    )


async def _carry_out(writer: Writer, commands: Iterable[Command[Any]]) -> list[Any]:
    """Waits for all; a refusal (somebody else was faster) is an answer, too.

    Raises:
        Unavailable: Postgres is away.
    """
    results = await asyncio.gather(
        *[writer.submit(command) for command in commands], return_exceptions=True
    )
    for result in results:
        if isinstance(result, Unavailable) or (
            isinstance(result, BaseException) and not isinstance(result, CoordinatorError)
        ):
            raise result
    return results

"""Presence: this node's lease, and everybody's deadlines.

A node owns its connections as long as it renews its lease (8 s, every 2.5 s). Any node buries
another whose lease ran out, makes the connections that it left behind drops like any other, and
carries out deadlines that have passed; but only what happened while it was itself watching, so that
an outage of Postgres puts nobody out: after one, a node does not judge until everybody has had the
time to renew, or to return. No timer lives in a process that can die: if this one is
killed between two lines, another one goes on.

A node that finds its row gone (it was frozen, or cut off) does not fight: it closes all its
connections with 4201 and goes on under a new boot id.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import CoordinatorError, Unavailable
from coordinator.domain.ids import new_boot_id
from coordinator.domain.room import MAX_CONNECTIONS, Lifespan
from coordinator.metrics import PRESENCE_EXPIRED
from coordinator.store.nodes import Nodes, StoredConnection
from coordinator.store.room_writer.commands import Disconnect, EndIfOverdue, Expire
from coordinator.store.room_writer.queue import Writer
from coordinator.store.rooms import Rooms

log = structlog.get_logger()

LEASE = timedelta(seconds=8)
QUIET_SECONDS = 10.0
"""How long a node judges nobody after Postgres was away: a lease, and the time to come back."""
RENEW_SECONDS = 2.5
JUDGE_SECONDS = 0.5
RETRY_SECONDS = 0.3
RECONCILE_SECONDS = 5.0
PURGE_SECONDS = 60.0
PURGED_AT_ONCE = 100
LEAVE_SECONDS = 1.0
REACHED_SECONDS = 2.0
"""How fresh an answer of Postgres, or another node's word of one, must be to be believed."""
ALONE_SECONDS = 4.0
"""For how long others must reach Postgres while this node does not: when it returns for everybody,
nobody is the first for longer."""
BATCH = 500


class Sessions(Protocol):
    """The node's register of live connections, as presence needs it."""

    def claimed(self) -> set[str]:
        """Session ids that have a row or are about to."""

    def confirmed(self) -> dict[str, tuple[str, str]]:
        """Sessions that certainly have a row, unless somebody took it: id -> (room, user)."""

    def count(self) -> int:
        """How many connections there are, observers too."""

    def close_session(self, session_id: str, code: CloseCode) -> None:
        """Closes one connection, where it is here."""

    def close_all(self, code: CloseCode) -> None:
        """Closes all connections."""


class Presence:
    """Keeps one node's lease and does its share of judging.

    Attributes:
        boot: the id of this run; it changes when the node had been declared dead.
    """

    def __init__(
        self, nodes: Nodes, rooms: Rooms, writer: Writer, sessions: Sessions, *, name: str,
        grace: timedelta, lifespan: Lifespan, events_keep_days: float,
        others_reach_postgres_at: Callable[[], float],
    ) -> None:  # fmt: skip
        self._nodes = nodes
        self._rooms = rooms
        self._writer = writer
        self._sessions = sessions
        self._name = name
        self._grace = grace
        self._lifespan = lifespan
        self._events_keep_days = events_keep_days
        self._purged_until: datetime | None = None
        self._others_reach_postgres_at = others_reach_postgres_at
        self.boot = new_boot_id()
        self._good_until = float("-inf")
        self._troubled_at = float("-inf")
        self._reached_at = float("-inf")
        self._alone_since: float | None = None

    @property
    def lease_is_good(self) -> bool:
        """True while this node can count its connections as its own."""
        return time.monotonic() < self._good_until

    @property
    def reaches_postgres(self) -> bool:
        """True while Postgres answers. A lease goes on for a while after that: it says less."""
        return self.lease_is_good and time.monotonic() - self._reached_at < REACHED_SECONDS

    @property
    def is_cut_off(self) -> bool:
        """True where this node alone has lost Postgres: others say that they reach it."""
        alone = self._alone_since
        return (
            not self.lease_is_good
            and alone is not None
            and time.monotonic() - alone > ALONE_SECONDS
        )

    def _note_whether_alone(self) -> None:
        heard = time.monotonic() - self._others_reach_postgres_at() < REACHED_SECONDS
        if self.reaches_postgres or not heard:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = time.monotonic()

    def _is_calm(self, seconds: float) -> bool:
        """True where Postgres has not failed this node for so long: it has seen what happened."""
        return self.lease_is_good and time.monotonic() - self._troubled_at > seconds

    async def enter(self) -> None:
        """Takes the first lease.

        Raises:
            Unavailable: Postgres is away.
        """
        asked_at = time.monotonic()
        await self._nodes.enter(self.boot, self._name, LEASE)
        self._good_until = asked_at + LEASE.total_seconds()
        self._reached_at = time.monotonic()

    async def leave(self) -> None:
        """Gives the lease back: what this node still owned is anybody's to drop at once.

        Where Postgres does not answer in time, the lease runs out by itself.
        """
        leaving = asyncio.create_task(self._nodes.leave(self.boot))
        # Waited for from outside: a query that hangs does not end where it is cancelled, either.
        await asyncio.wait([leaving], timeout=LEAVE_SECONDS)
        if not leaving.cancel():
            with contextlib.suppress(Unavailable):
                leaving.result()

    async def run(self) -> None:
        """Renews, judges and reconciles until cancelled."""
        loops: tuple[tuple[float, Callable[[], Coroutine[Any, Any, None]]], ...] = (
            (RENEW_SECONDS, self.renew),
            (JUDGE_SECONDS, self.move_if_cut_off),
            (JUDGE_SECONDS, self.bury),
            (JUDGE_SECONDS, self.expire),
            (JUDGE_SECONDS, self.end_rooms),
            (RECONCILE_SECONDS, self.reconcile),
            (PURGE_SECONDS, self._purge),
        )
        async with asyncio.TaskGroup() as tasks:
            for seconds, work in loops:
                tasks.create_task(self._every(seconds, work))

    async def _every(self, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A loop that survives its work's errors and says each once; soon again after a failure."""
        failed = False
        while True:
            await asyncio.sleep(min(seconds, RETRY_SECONDS) if failed else seconds)
            try:
                await work()
                failed = False
            except Unavailable:
                self._troubled_at = time.monotonic()
                if not failed:
                    log.warning("postgres_away", during=work.__name__)
                failed = True
            except Exception as error:
                log.error("presence_failed", during=work.__name__, exc_info=error)

    async def move_if_cut_off(self) -> None:
        """Sends the clients elsewhere where this node alone has lost Postgres."""
        self._note_whether_alone()
        if self.is_cut_off and self._sessions.count():
            log.warning("cut_off_from_postgres", connections=self._sessions.count())
            self._sessions.close_all(CloseCode.DRAINING)

    async def renew(self) -> None:
        """Renews the lease, or begins anew where this node was declared dead."""
        asked_at = time.monotonic()
        if await self._nodes.renew(self.boot, LEASE):
            was_lost = not self.lease_is_good
            self._good_until = asked_at + LEASE.total_seconds()
            if was_lost:
                await self.reconcile()
            return
        log.warning("declared_dead", boot=self.boot)
        self.boot = new_boot_id()
        self._sessions.close_all(CloseCode.CANNOT_CONTINUE)
        await self.enter()

    # The three ways to judge are loops of their own: a room that somebody holds (a node that was
    # frozen inside a transaction, for 2 s) delays what concerns it, and nothing else.

    async def bury(self) -> None:
        """Buries dead nodes, and drops what they left."""
        if self._is_calm(QUIET_SECONDS):
            dead = await self._nodes.bury_dead(self.boot, LEASE)
            if dead:
                log.warning("node_died", boots=dead)
        orphans = await self._nodes.orphans(BATCH)
        self._reached_at = time.monotonic()
        while self.lease_is_good and orphans:
            await self._drop(orphans)
            orphans = await self._nodes.orphans(BATCH) if len(orphans) == BATCH else []

    async def expire(self) -> None:
        """Carries out the deadlines of those who did not return."""
        while self._is_calm(max(QUIET_SECONDS, self._grace.total_seconds())):
            overdue = await self._nodes.overdue(self.boot, self._grace, BATCH)
            answers = [self._writer.submit(Expire(room_id=r, user_id=u)) for r, u in overdue]
            PRESENCE_EXPIRED.inc(sum(1 for left in await _all(answers) if left is True))
            if len(overdue) < BATCH:
                return

    async def end_rooms(self) -> None:
        """Ends rooms whose time has passed."""
        lifespan = self._lifespan
        has_limits = lifespan.host_absent or lifespan.empty or lifespan.age
        if has_limits and self._is_calm(QUIET_SECONDS):
            rooms = await self._nodes.overdue_rooms(lifespan, BATCH)
            await _all(
                [self._writer.submit(EndIfOverdue(room_id=r, lifespan=lifespan)) for r in rooms]
            )

    async def _drop(self, connections: list[StoredConnection]) -> None:
        await _all(
            [
                self._writer.submit(
                    Disconnect(room_id=c.room_id, user_id=c.user_id, session_id=c.session_id)
                )
                for c in connections
            ]
        )

    async def reconcile(self) -> None:
        """Compares this node's rows with its sockets: each without the other is put right.

        It is what writes disconnects that happened while Postgres was away, and what closes a
        socket whose row somebody took.
        """
        confirmed = self._sessions.confirmed()
        boot = self.boot
        rows = await self._nodes.connections(boot)
        if boot != self.boot:
            return
        stored = {row.session_id for row in rows}
        now_confirmed = self._sessions.confirmed()
        lost = {s: who for s, who in confirmed.items() if s not in stored and s in now_confirmed}
        crowded = await self._nodes.crowded(list(lost.values()), MAX_CONNECTIONS) if lost else set()
        for session_id, who in lost.items():
            # Where its participant has as many as it may, newer ones pushed it out: back at once,
            # it would push out the next one. (Mostly it has been told so by their node.)
            code = CloseCode.REPLACED if who in crowded else CloseCode.CANNOT_CONTINUE
            self._sessions.close_session(session_id, code)
        claimed = self._sessions.claimed()
        await self._drop([row for row in rows if row.session_id not in claimed])

    async def _purge(self) -> None:
        """Deletes the logs of rooms that ended long ago, a few at a time, and looks at each once.
        """
        done, horizon = await self._rooms.purge_events(
            older_than_days=self._events_keep_days, rooms=PURGED_AT_ONCE, after=self._purged_until
        )
        if done < PURGED_AT_ONCE:
            self._purged_until = horizon - timedelta(minutes=1)


async def _all(answers: list[asyncio.Future[Any]]) -> list[Any]:
    """Waits for all; a refusal (somebody else was faster) is an answer, too.

    Raises:
        Unavailable: Postgres is away.
    """
    results = await asyncio.gather(*answers, return_exceptions=True)
    for result in results:
        if isinstance(result, Unavailable) or (
            isinstance(result, BaseException) and not isinstance(result, CoordinatorError)
        ):
            raise result
    return results

"""Leases, duties and candidates in memory: what the real lease, reaper and reconciler ask of
Postgres, answered by the rules of `store/nodes.py` and `store/duties.py` and by one clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from coordinator.domain.errors import Unavailable
from coordinator.domain.room import Lifespan
from coordinator.store.duties import Duties
from coordinator.store.nodes import Nodes, StoredConnection
from coordinator.store.room_writer.commands import Command
from coordinator.store.room_writer.queue import Writer
from tests.simulation.database import SLOWEST_READ, SimulatedDatabase


@dataclass(slots=True)
class HeldLease:
    """A row of `nodes`, in the loop's time."""

    until: float
    since: float


@dataclass(slots=True)
class Duty:
    """A row of `duties`."""

    holder: str
    until: float
    generation: int = 1


@dataclass(slots=True)
class LeaseTable:
    """Both tables."""

    nodes: dict[str, HeldLease] = field(default_factory=dict)
    duties: dict[str, Duty] = field(default_factory=dict)

    def is_watching(self, node_epoch: str, seconds: timedelta) -> bool:
        """A node whose lease is good and has been for so long without a break."""
        now, mine = _now(), self.nodes.get(node_epoch)
        watched_from = now - seconds.total_seconds()
        return mine is not None and mine.until > now and mine.since < watched_from


def _now() -> float:
    return asyncio.get_running_loop().time()


class Road:
    """A node's way to the database: it may be away for this node alone."""

    def __init__(self, database: SimulatedDatabase, leases: LeaseTable) -> None:
        self.database = database
        self.leases = leases
        self.is_cut = False

    async def travel(self) -> None:
        """One question.

        Raises:
            Unavailable: the database is away, or this node is cut off from it.
        """
        await asyncio.sleep(self.database.chance.uniform(0, SLOWEST_READ))
        if self.database.is_away or self.is_cut:
            raise Unavailable


class SimulatedNodes(Nodes):
    """`notices`: told the epoch that a renewal has seen."""

    def __init__(self, road: Road, notices: Callable[[str], None]) -> None:
        self._road = road
        self._notices = notices

    @property
    def _held(self) -> dict[str, HeldLease]:
        return self._road.leases.nodes

    async def enter(
        self, node_epoch: str, name: str, lease: timedelta, *, channels: int = 1
    ) -> None:
        await self._road.travel()
        self._held[node_epoch] = HeldLease(_now() + lease.total_seconds(), _now())

    async def renew(
        self, node_epoch: str, lease: timedelta, deaf_for: timedelta | None = None
    ) -> bool:
        await self._road.travel()
        mine, now = self._held.get(node_epoch), _now()
        if mine is None:
            return False
        if mine.until < now:
            mine.since = now
        mine.until = now + lease.total_seconds()
        self._notices(self._road.database.epoch)
        return True

    async def leave(self, node_epoch: str) -> None:
        await self._road.travel()
        self._held.pop(node_epoch, None)

    async def is_somebody_deaf(self, seconds: timedelta) -> bool:
        await self._road.travel()
        return False

    async def reap_dead(self, node_epoch: str, lease: timedelta) -> list[str]:
        await self._road.travel()
        if not self._road.leases.is_watching(node_epoch, lease):
            return []
        dead = [epoch for epoch, held in self._held.items() if held.until < _now()]
        for epoch in dead:
            del self._held[epoch]
        return dead

    async def orphans(self, limit: int) -> list[StoredConnection]:
        await self._road.travel()
        return [row for owner, row in self._rows() if owner not in self._held][:limit]

    async def sessions(self, node_epoch: str) -> set[str]:
        await self._road.travel()
        return {row.session_id for owner, row in self._rows() if owner == node_epoch}

    async def stored(self, node_epoch: str, sessions: list[str]) -> list[StoredConnection]:
        await self._road.travel()
        return [
            row for owner, row in self._rows() if owner == node_epoch and row.session_id in sessions
        ]

    def _rows(self) -> list[tuple[str, StoredConnection]]:
        return [
            (owner, StoredConnection(session, room_id, user))
            for room_id, stored in self._road.database.rooms.items()
            for session, (user, owner) in stored.rows.items()
        ]

    async def crowded(self, people: list[tuple[str, str]], most: int) -> set[tuple[str, str]]:
        await self._road.travel()
        return set()

    async def overdue(self, node_epoch: str, grace: timedelta, limit: int) -> list[tuple[str, str]]:
        await self._road.travel()
        if not self._road.leases.is_watching(node_epoch, grace):
            return []
        return self._road.database.overdue()[:limit]

    async def overdue_rooms(self, lifespan: Lifespan, limit: int) -> list[str]:
        await self._road.travel()
        return []


class SimulatedDuties(Duties):
    """`store/duties.py`, in memory."""

    def __init__(self, road: Road) -> None:
        self._road = road

    async def hold(self, kind: str, node_epoch: str, lease: timedelta) -> int | None:
        await self._road.travel()
        until, now = _now() + lease.total_seconds(), _now()
        duty = self._road.leases.duties.setdefault(kind, Duty(node_epoch, until))
        if duty.holder != node_epoch:
            if duty.until >= now:
                return None
            duty.holder, duty.generation = node_epoch, duty.generation + 1
        duty.until = until
        return duty.generation

    async def is_free(self, kind: str, node_epoch: str) -> bool:
        await self._road.travel()
        duty = self._road.leases.duties.get(kind)
        return duty is None or duty.holder == node_epoch or duty.until < _now()

    async def let_go(self, node_epoch: str) -> None:
        await self._road.travel()
        for duty in self._road.leases.duties.values():
            if duty.holder == node_epoch:
                duty.until = _now()


class SimulatedWriter(Writer):
    """Commands of the reaper and the reconciler go the way of all commands of their node."""

    def __init__(
        self, carry_out: Callable[[Command[Any]], Coroutine[Any, Any, Any]]
    ) -> None:
        self._send = carry_out

    def submit(self, command: Command[Any]) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_task(self._send(command))

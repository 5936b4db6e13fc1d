"""Rooms and their logs in memory: written by the real commands, read as the hub's source reads."""

from __future__ import annotations

import asyncio
import pickle
import random
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from coordinator.domain import room_rules as rules
from coordinator.domain.errors import RoomNotFound, Unavailable
from coordinator.domain.events import ROOM, Event, Head
from coordinator.domain.room import Policy, Room
from coordinator.domain.roster import Roster
from coordinator.store.logs import Moved
from coordinator.store.room_writer.commands import Command

START = datetime(2026, 1, 1, tzinfo=UTC)
GRACE = timedelta(seconds=4)
SLOWEST_READ, SLOWEST_COMMIT = 0.03, 0.02


@dataclass
class SimulatedRoom:
    """A room's row with its people, its connections, its log, and all of it as it was before."""

    room: Room
    log: list[Event]
    rows: dict[str, tuple[str, str]] = field(default_factory=dict)
    """session id -> (user id, node)."""
    past: list[bytes] = field(default_factory=list)
    """Room, length of the log and rows as they were before each change."""
    present: bytes = b""
    """The same, as they are now."""

    def keep(self) -> None:
        """Notes what is now, for a standby that will not have what comes."""
        self.present = pickle.dumps((self.room, len(self.log), self.rows), protocol=5)

    def go_back(self) -> None:
        """Is again what it was before its last change."""
        self.present = self.past.pop()
        self.room, length, self.rows = pickle.loads(self.present)
        del self.log[length:]


class SimulatedDatabase:
    """One primary. `epoch` names its history; `is_away` refuses everything."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.rooms: dict[str, SimulatedRoom] = {}
        self.epoch = "e1"
        self.is_away = False
        self.policy = Policy(capacity=50, grace=GRACE)

    def now(self) -> datetime:
        return START + timedelta(seconds=asyncio.get_running_loop().time())

    async def _round_trip(self, slowest: float) -> None:
        await asyncio.sleep(self.chance.uniform(0, slowest))
        if self.is_away:
            raise Unavailable

    async def create(self, room_id: str) -> list[Event]:
        await self._round_trip(SLOWEST_COMMIT)
        room = rules.create(
            room_id=room_id, room_name="r", host_id="host", host_name="h", now=self.now(),
            epoch=self.epoch,
        )  # fmt: skip
        events = list(room.events)
        room.forget_changes()
        self.rooms[room_id] = SimulatedRoom(room, events)
        self.rooms[room_id].keep()
        return events

    async def carry_out(self, command: Command[Any]) -> tuple[Any, list[Event]]:
        """The answer and the events, committed; the rule decides under the room's lock."""
        await self._round_trip(SLOWEST_COMMIT)
        stored = self.rooms.get(command.room_id)
        if stored is None:
            raise RoomNotFound
        room = stored.room
        room.now, room.epoch = max(self.now(), room.last_at), self.epoch
        answer = command.decide(room, self.policy)
        is_changed = room.is_changed
        if is_changed:
            stored.past.append(stored.present)
            for session, user, node in room.opened:
                stored.rows[session] = (user, node)
            for session in room.closed:
                stored.rows.pop(session, None)
        events = list(room.events)
        stored.log += events
        room.forget_changes()
        if is_changed:
            stored.keep()
        return answer, events

    def fail_over(self, behind: int) -> None:
        """A standby that was up to `behind` changes of each room behind is the primary now."""
        self.epoch = f"e{int(self.epoch[1:]) + 1}"
        for stored in self.rooms.values():
            for _ in range(self.chance.randint(0, behind)):
                if stored.past:
                    stored.go_back()

    def overdue(self) -> list[tuple[str, str]]:
        """Participants whose deadline has passed, as the reaper's index gives them."""
        now = self.now()
        return [
            (room_id, person.user_id)
            for room_id, stored in self.rooms.items()
            for person in stored.room.participants.values()
            if person.leave_at is not None and person.leave_at <= now
        ]


class RoomLogs:
    """What the hub of a node reads (`live.feed.FeedSource`).

    Args:
        notices: told the epoch that each answer is of, before it is used: what is read is fenced.
        is_cut_off: whether this node cannot reach the database.
    """

    kind = ROOM

    def __init__(
        self, database: SimulatedDatabase, notices: Callable[[str], None],
        is_cut_off: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._database = database
        self._notices = notices
        self._is_cut_off = is_cut_off

    async def _log(self, feed_id: str) -> list[Event] | None:
        """The log of one moment: the answer travels after it was read."""
        database = self._database
        await asyncio.sleep(database.chance.uniform(0, SLOWEST_READ / 2))
        if database.is_away or self._is_cut_off():
            raise Unavailable
        stored = database.rooms.get(feed_id)
        log, epoch = None if stored is None else list(stored.log), database.epoch
        await asyncio.sleep(database.chance.uniform(0, SLOWEST_READ / 2))
        self._notices(epoch)
        return log

    async def load(self, feed_id: str, /) -> tuple[Head, Roster] | None:
        log = await self._log(feed_id)
        return None if not log else (log[-1].head, replayed(log))

    async def events_after(self, feed_id: str, seq: int, limit: int, /) -> list[Event]:
        return (await self._log(feed_id) or [])[seq : seq + limit]

    async def connections_at(self, feed_id: str, seq: int, /) -> Mapping[str, str]:
        people = replayed((await self._log(feed_id) or [])[:seq]).participants
        return {user: str(person["connection"]) for user, person in people.items()}

    async def head(self, feed_id: str, /) -> int | None:
        log = await self._log(feed_id)
        return None if log is None else len(log)

    async def epoch_at(self, feed_id: str, seq: int, /) -> str | None:
        log = await self._log(feed_id) or []
        return log[seq - 1].epoch if 0 < seq <= len(log) else None

    async def moved(
        self, known: Sequence[tuple[str, Head]], erasures: Sequence[int], /
    ) -> Sequence[Moved]:
        found = []
        for feed_id, told in known:
            log = await self._log(feed_id) or []
            stands = has(log, told)
            if not stands or len(log) != told.seq:
                found.append(Moved(feed_id, len(log), stands))
        return found

    async def vanished(self, known: Sequence[tuple[str, Head]], /) -> Set[str]:
        return {feed_id for feed_id, told in known if not has(await self._log(feed_id) or [], told)}


def has(log: Sequence[Event], told: Head) -> bool:
    """True where a log has that very event."""
    return 0 < told.seq <= len(log) and log[told.seq - 1].head == told


def replayed(log: Sequence[Event]) -> Roster:
    """The roster that a log makes."""
    roster = Roster(room={})
    for event in log:
        roster.apply(event)
    return roster

"""What the writer remembers of the rooms that nobody else writes to.

A room is remembered from this node's second change in a row on (making it is one): as it was last
written, with its row's version and the people that were loaded for it since. Where another node has
changed the room meanwhile, two changes in a row are due again, so that rooms which several nodes
write to cost no vain attempts. The cache is a guess: Postgres compares the version before it writes
anything (`sql.py`).

A version is the row's `xmin` and the random number of its last write. Neither alone would do: two
histories of a database may have the same `xmin`, and a node of a version before this one leaves the
number as it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import msgspec

from coordinator.domain.room import UNKNOWN_VERSION, Room
from coordinator.store.room_writer.commands import Command

MOST = 50_000
"""Rooms and people that are remembered; beyond it, the rooms that were not written for longest go.
"""
MOST_PEOPLE = 2_000
"""People remembered of one room; beyond it, those that were learnt first go."""
CONTENDED_SECONDS = 1.0
"""How long a room is locked before it is read, after a race for it was lost."""
LAG_SECONDS = 0.05
MOST_ROUND_TRIP_SECONDS = 0.3

_NEVER = datetime.min.replace(tzinfo=UTC)


class ClockReading(msgspec.Struct, frozen=True):
    """What Postgres's clock said in an answer, and this process's when it asked and heard."""

    clock: datetime
    sent: float
    received: float

    @classmethod
    async def first_of(cls, connection: Any, *, within: float) -> ClockReading:
        """Asks Postgres over a new connection, which is given up where no answer comes in time."""
        sent = time.monotonic()
        try:
            async with asyncio.timeout(within):
                clock = await connection.fetchval("SELECT clock_timestamp()")
        except BaseException:
            connection.terminate()
            raise
        return cls(clock, sent, time.monotonic())

    @property
    def round_trip(self) -> float:
        """Seconds, Postgres's work included."""
        return self.received - self.sent

    @property
    def zero(self) -> datetime:
        """Postgres's clock when this process's was 0; late by the answer's way, never ahead."""
        return self.clock - timedelta(seconds=self.received)


class RoomCache:
    """The rooms that can be changed without reading them first."""

    def __init__(self) -> None:
        self._rooms: dict[str, Room] = {}
        self._versions: dict[str, tuple[int, int]] = {}
        self._contended: dict[str, float] = {}
        """Until when rooms are locked before they are read."""
        self._size = 0
        self._round_trip = 0.0
        self._zero = _NEVER
        """Postgres's clock when this process's monotonic clock was 0."""

    @property
    def has_clock(self) -> bool:
        """True where Postgres's clock is known: nothing is decided without."""
        return self._zero > _NEVER

    def covers(self, commands: Iterable[Command[Any]]) -> bool:
        """True where all of these can be decided from memory, for one run of this node.

        Never true for commands that name nobody: the end of a room may concern everybody in it.
        """
        node_epochs = set()
        for command in commands:
            room = self._rooms.get(command.room_id)
            if room is None or command.user_id is None:
                return False
            if not command.is_fresh and command.user_id not in room.participants:
                return False
            if command.node_epoch is not None:
                node_epochs.add(command.node_epoch)
        return len(node_epochs) <= 1

    def may_read(self, commands: Iterable[Command[Any]]) -> bool:
        """True where it pays to read what the cache does not cover of these without a lock.

        Not where a race for one of the rooms has just been lost, and not for what seldom writes:
        what writes nothing is decided under lock.
        """
        node_epochs = set()
        for command in commands:
            if command.user_id is None or command.is_question:
                return False
            if command.node_epoch is not None:
                node_epochs.add(command.node_epoch)
            if (until := self._contended.get(command.room_id)) is not None:
                if time.monotonic() < until:
                    return False
                del self._contended[command.room_id]
        return len(node_epochs) <= 1 and self.has_clock

    def _note_contended(self, room_ids: Iterable[str]) -> None:
        until = time.monotonic() + CONTENDED_SECONDS
        for room_id in room_ids:
            self._contended[room_id] = until
        while len(self._contended) > MOST:
            del self._contended[next(iter(self._contended))]

    def now(self) -> datetime:
        """Postgres's clock, or a little behind it; each statement checks that (`lag`)."""
        return self._zero + timedelta(seconds=time.monotonic())

    @property
    def lag(self) -> timedelta:
        """How far behind `now` may be when a statement reaches Postgres: two round trips (it may
        have to be prepared first), and some.

        A time further off than this is not told to anybody.
        """
        return timedelta(seconds=2 * min(self._round_trip, MOST_ROUND_TRIP_SECONDS) + LAG_SECONDS)

    def set_clock(self, reading: ClockReading) -> None:
        """Takes a reading at its word: its answer was not held up by a COMMIT."""
        self._round_trip = reading.round_trip
        self._zero = reading.zero

    def note_clock(self, reading: ClockReading) -> None:
        """Takes a reading whose answer may have been held up. Being held up makes Postgres's clock
        seem late, so of two readings the later one is right.
        """
        self._round_trip = min(self._round_trip, reading.round_trip)
        self._zero = max(self._zero, reading.zero)

    def has(self, room_id: str) -> bool:
        """True where the room is remembered."""
        return room_id in self._rooms

    def take(self, room_id: str) -> Room:
        """Hands out a room to be changed, and forgets it until the change is written (`keep`)."""
        room = self._rooms.pop(room_id)
        self._size -= 1 + len(room.participants)
        return room

    def keep(self, rooms: Iterable[Room]) -> None:
        """Remembers rooms as they have just been written."""
        for room in rooms:
            room.forget_changes()
            people = room.participants
            if len(people) > MOST_PEOPLE:
                for user_id in list(islice(people, len(people) // 2)):
                    del people[user_id]
            self._rooms[room.room_id] = room
            self._size += 1 + len(people)
            self._note_version(room)
        while self._size > MOST:
            self.take(next(iter(self._rooms)))

    def _note_version(self, room: Room) -> None:
        self._versions.pop(room.room_id, None)  # the last noted is the last to be forgotten
        self._versions[room.room_id] = room.version
        if len(self._versions) > MOST:
            del self._versions[next(iter(self._versions))]

    def adopt(self, room: Room) -> None:
        """Takes up a room that this node has just made; nothing is decided without a clock."""
        if self.has_clock and room.version != UNKNOWN_VERSION:
            self.keep([room])

    def take_up(
        self,
        written: Iterable[Room],
        unchanged: Iterable[Room],
        found: Mapping[str, tuple[int, int]],
    ) -> None:
        """Takes up the rooms of an optimistic write.

        Args:
            unchanged: remembered ones that it had nothing to write of.
            found: the versions of those that were read for it; who is not among `written` was
                changed, or is held, by somebody else.
        """
        self.keep(unchanged)
        if not found:
            self.keep(written)
            return
        rooms = {room.room_id: room for room in written}
        self.keep([room for room_id, room in rooms.items() if room_id not in found])
        self.learn([room for room_id, room in rooms.items() if room_id in found], found)
        self._note_contended(found.keys() - rooms.keys())

    def learn(self, rooms: Iterable[Room], found: Mapping[str, tuple[int, int]]) -> None:
        """Takes up rooms that were not remembered, and written; `found`: the versions that they had
        before.
        """
        mine = []
        for room in rooms:
            version = found[room.room_id]
            known = self.take(room.room_id) if room.room_id in self._rooms else None
            if room.is_ended:
                self._versions.pop(room.room_id, None)
                continue
            if known is not None and known.version == version:
                room.participants = {**known.participants, **room.participants}
            if self._versions.get(room.room_id) == version:
                mine.append(room)
            else:
                self._note_version(room)
        self.keep(mine)

"""One transaction of the writer: what it decides about, and what became of it.

    locked       lock_and_load → decide → write_locked
    optimistic   read, recall  → decide → write_optimistically → drop_unwritten

`decide` is the pure rules' (`domain/room_rules.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from coordinator.domain.errors import CoordinatorError, LeaseLost, RoomNotFound, Unavailable
from coordinator.domain.events import Event
from coordinator.domain.room import Policy, Room
from coordinator.store import outages
from coordinator.store.room_writer import newcomers, sql
from coordinator.store.room_writer.commands import Command
from coordinator.store.room_writer.lost_commit import AnswerLost, is_to_undo
from coordinator.store.room_writer.pending_command import PendingCommand
from coordinator.store.room_writer.room_cache import ClockReading, RoomCache

_NEVER = datetime.min.replace(tzinfo=UTC)


class EpochChanged(Exception):
    """The database is in another epoch than the one that this node knows."""


def is_away(error: Exception) -> bool:
    """True where the same commands may succeed in a moment."""
    return isinstance(error, Unavailable | AnswerLost | EpochChanged) or outages.is_outage(error)


class Transaction:
    """The commands of one transaction, and what has become of them.

    Attributes:
        rooms: those to decide about, by id.
        busy: commands whose rooms somebody else holds.
        answers: each decided command with its answer or its refusal.
        written: the rooms that were written.
        reading: Postgres's clock when they were; None where nothing was written.
        events: theirs, in order.
        replaced: session ids that newer connections pushed out.
        found: the versions that rooms had where they were read, and not remembered.
    """

    def __init__(
        self, connection: Any, policy: Policy, commands: list[PendingCommand], *, epoch: str,
        is_pooled: bool,
    ) -> None:  # fmt: skip
        self.connection = connection
        self.policy = policy
        self.commands = commands
        self.epoch = epoch
        self.is_pooled = is_pooled
        self.rooms: dict[str, Room] = {}
        self.busy: list[PendingCommand] = []
        self.answers: list[tuple[PendingCommand, Any, BaseException | None]] = []
        self.written: list[Room] = []
        self.reading: ClockReading | None = None
        self.events: list[Event] = []
        self.replaced: list[str] = []
        self.found: dict[str, tuple[int, int]] = {}
        self._read: set[str] = set()
        """Rooms that were not remembered and have been asked for, whether they exist or not."""
        self._unknown: set[str] = set()
        self._alive: set[str] = set()
        self._decided_at = _NEVER
        self._lag = timedelta(0)

    # -- which rooms, and what is known of them -------------------------------------------------

    async def read(self, cache: RoomCache) -> None:
        """Reads the rooms that the cache does not cover, with the people named; `recall` follows.

        Rooms that do not exist are left out: their commands are decided under lock.
        """
        asked = [pending.command for pending in self.commands]
        self._read = {command.room_id for command in asked if not cache.covers([command])}
        named = {
            (command.room_id, None if command.is_fresh else command.user_id)
            for command in asked
            if command.room_id in self._read
        }
        room_ids, user_ids = zip(*named, strict=True)
        sent = time.monotonic()
        rows = await self.connection.fetch(sql.READ, room_ids, user_ids)
        for row in rows:
            room = self.rooms.get(row["room_id"])
            if room is None:
                room = self.rooms[row["room_id"]] = sql.room_of(row, epoch=self.epoch)
                self.found[room.room_id] = room.version
            if row["user_id"] is not None:
                room.participants[row["user_id"]] = sql.participant_of(row)
        if rows:
            cache.set_clock(ClockReading(rows[0]["now"], sent, time.monotonic()))

    def recall(self, cache: RoomCache) -> None:
        """Takes the rooms that were not read from the cache, which covered their commands.

        One that it has forgotten meanwhile is left out, like one that somebody else holds.
        """
        self._decided_at, self._lag = cache.now(), cache.lag
        for room in self.rooms.values():
            room.now = max(self._decided_at, room.last_at)
        for pending in self.commands:
            command = pending.command
            if (
                command.room_id not in self.rooms
                and command.room_id not in self._read
                and cache.has(command.room_id)
            ):
                room = self.rooms[command.room_id] = cache.take(command.room_id)
                room.now = max(self._decided_at, room.last_at)
                room.epoch = self.epoch
            if command.node_epoch is not None:
                self._alive.add(command.node_epoch)  # the statement checks it

    async def lock_and_load(self) -> None:
        """Locks the rooms that nobody else holds, then reads the people whom the commands name.

        The read comes after the lock, so that it sees what other writers committed before.

        Raises:
            EpochChanged
        """
        wanted = {pending.command.room_id for pending in self.commands}
        lock = sql.LOCK_POOLED if self.is_pooled else sql.LOCK
        for row in await self.connection.fetch(lock, list(wanted)):
            if row["epoch"] != self.epoch:
                raise EpochChanged
            self.rooms[row["room_id"]] = sql.room_of(row, epoch=self.epoch)
        if absent := wanted - self.rooms.keys():
            existing = await self.connection.fetch(sql.EXISTING, list(absent))
            self._unknown = absent - {row["room_id"] for row in existing}
        if node_epochs := self._node_epochs():
            rows = await self.connection.fetch(sql.ALIVE, list(node_epochs))
            self._alive = {row["boot"] for row in rows}
        await self._load_people()

    def _node_epochs(self) -> set[str]:
        return {
            pending.command.node_epoch
            for pending in self.commands
            if pending.command.node_epoch is not None
        }

    async def _load_people(self) -> None:
        named = {
            (pending.command.room_id, pending.command.user_id)
            for pending in self.commands
            if pending.command.user_id is not None
            and pending.command.room_id in self.rooms
            and (pending.is_uncertain or not pending.command.is_fresh)
        }
        if not named:
            return
        room_ids, user_ids = zip(*named, strict=True)
        for row in await self.connection.fetch(sql.LOAD_PEOPLE, room_ids, user_ids):
            self.rooms[row["room_id"]].participants[row["user_id"]] = sql.participant_of(row)

    # -- deciding, without I/O ------------------------------------------------------------------

    def decide(self) -> None:
        """Lets the rules decide each command in order; a refusal fails its caller alone."""
        for pending in self.commands:
            command = pending.command
            room = self.rooms.get(command.room_id)
            if room is None and command.room_id not in self._unknown:
                self.busy.append(pending)
                continue
            try:
                if room is None:
                    raise RoomNotFound
                if command.node_epoch is not None and command.node_epoch not in self._alive:
                    raise LeaseLost
                self.answers.append((pending, command.decide(room, self.policy), None))
            except CoordinatorError as refusal:
                self.answers.append((pending, None, refusal))

    def prepare_answers(self) -> None:
        """Has made what the callers are told if this is committed, while PostgreSQL works."""
        for pending, answer, refusal in self.answers:
            if refusal is None:
                pending.answer.note_decided(answer)

    # -- writing ------------------------------------------------------------------------------

    async def write_optimistically(self) -> None:
        """One statement, which commits itself: lock and compare each room, then write or skip it.

        A room that was skipped is not among `written`, and nothing of it has happened.
        """
        node_epoch = next(iter(self._alive), None)
        epoch = self.epoch if self.is_pooled else None
        condition = sql.Condition(node_epoch, self._decided_at, self._lag, epoch)
        changed = self._changed()
        if not changed:
            return
        write = newcomers.write if newcomers.are_all(self.commands, changed) else sql.write
        await self._write(*write(changed, condition))

    async def write_locked(self) -> None:
        """Writes what was decided of the locked rooms; the caller commits."""
        changed = self._changed()
        if not changed:
            return
        await self._write(*sql.write(changed, None))
        if len(self.written) < len(changed):
            raise RuntimeError("a room was not written under its lock")
        ended = [(room.room_id, room.ended_at) for room in changed if room.is_ended]
        if ended:
            await self.connection.executemany(sql.EMPTY_ENDED_ROOM, ended)

    def _changed(self) -> list[Room]:
        return [room for room in self.rooms.values() if room.is_changed]

    async def _write(self, statement: str, values: list[Any]) -> None:
        sent = time.monotonic()
        rows = await self.connection.fetch(statement, *values)
        if rows:
            self.reading = ClockReading(rows[0]["now"], sent, time.monotonic())
        for row in rows:
            room = self.rooms[row["room_id"]]
            room.version = row["xmin"], row["version"]
            self.written.append(room)
            self.events += room.events
            self.replaced += room.replaced

    def drop_unwritten(self) -> tuple[list[PendingCommand], list[Room]]:
        """Takes back what was decided of rooms that were not written.

        Returns:
            their commands, and the remembered rooms that no command has changed: Postgres has not
            compared their version, and they are still as remembered. A room that was not as it was
            remembered is read next time; the commands of others need the lock.
        """
        if len(self.written) == len(self.rooms) and not self.busy:
            return [], []
        written = {room.room_id for room in self.written}
        lost = [room for room_id, room in self.rooms.items() if room_id not in written]
        remembered = [room for room in lost if room.room_id not in self.found]
        outdated = {room.room_id for room in remembered if room.is_changed}
        left = [pending for pending in self.commands if pending.command.room_id not in written]
        for pending in left:
            pending.needs_lock = pending.command.room_id not in outdated
        self.answers = [each for each in self.answers if each[0].command.room_id in written]
        return left, [room for room in remembered if not room.is_changed]

    # -- telling --------------------------------------------------------------------------------

    def answer_first(self) -> bool:
        """Answers those who need not wait until the events are told; True where that is all."""
        for pending, answer, refusal in self.answers:
            if refusal is None:
                pending.answer.settle_first(answer)
        return all(pending.answer.done() for pending, _, _ in self.answers)

    def answer(self, undo: Callable[[Command[Any]], None]) -> None:
        """Answers the others; `undo` hears of each join whose caller was told that it failed."""
        for pending, answer, refusal in self.answers:
            if refusal is not None:
                pending.fail(refusal)
            elif not pending.is_given_up:
                pending.answer.set_result(answer)
            elif is_to_undo(pending):
                undo(pending.command)

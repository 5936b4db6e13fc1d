"""The writer: every change of a room, many at a time, in one transaction after the other.

Commands that arrive while a transaction is in flight wait together and go into the next one (group
commit); each caller gets its own answer or its own error. Where most of those who were just
answered are about to come back, the next one waits for them for a moment (`gathering.py`). A
transaction is written in one of two ways (`transaction.py`):

    optimistic   of rooms that the node remembers (`room_cache.py`): decided from memory, written by
                 one statement that compares the rows' versions and sets them. One round trip; two
                 where a room is not remembered, and read before.
    locked       lock the rooms (skipping those that another node holds: their commands go to the
                 next batch), load the people named, decide, write, COMMIT. Four round trips.

A room that is not as it was remembered is read, and one that has been changed since it was read is
locked: nothing is decided by what is out of date. Whatever is refused is refused under the lock.

Lock order everywhere: room rows by id, then the node's own row. Nobody touches participants, events
or connections of a room without its lock, and without writing its row too. (The optimistic write
locks the node's row first: it waits for no room.)

Killed before COMMIT, nothing happened; after it, nodes that were not told look into the log soon. A
COMMIT whose answer is lost: `lost_commit.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import structlog

from coordinator.domain.errors import Unavailable
from coordinator.domain.room import Policy, Room
from coordinator.store import outages
from coordinator.store.database import Database
from coordinator.store.room_writer.commands import Command
from coordinator.store.room_writer.lost_commit import (
    AnswerLost,
    is_to_undo,
    note_uncertain,
    undo_of,
)
from coordinator.store.room_writer.pending_command import CommandAnswer, PendingCommand, unheard
from coordinator.store.room_writer.room_cache import ClockReading, RoomCache
from coordinator.store.room_writer.telling import OnCommit, OnLone, Telling
from coordinator.store.room_writer.transaction import Transaction, is_away

log = structlog.get_logger()

A = TypeVar("A")

BATCH = 256
QUEUE = 20_000
POSTED = 100_000
"""Commands that nobody waits for are queued beyond `QUEUE`; beyond this they are dropped, and what
they would have done is found by reconciling."""
PATIENCE_SECONDS = 4.0
"""How long a caller waits before it is told that the service is unavailable."""
TRANSACTION_SECONDS = 4.0
"""How long one round trip may take before its connection is given up."""

_BUSY_SECONDS = 0.002
_AWAY_SECONDS = 0.1


class Writer:
    """One lane of transactions per node. Start it with `run` in a task of its own.

    Args:
        on_commit: called after each COMMIT, before the callers hear; must not block or raise.
        on_lone: see `Telling`.
    """

    def __init__(
        self, database: Database, policy: Policy, on_commit: OnCommit,
        on_lone: OnLone = lambda events: None,
    ) -> None:  # fmt: skip
        self._database = database
        self._policy = policy
        self._queue: deque[PendingCommand] = deque()
        self._idle: asyncio.Future[None] | None = None
        """Done when a command arrives; None while there is work."""
        self._connection: Any = None
        self._epoch = ""
        """The history that the connection was proven to write to."""
        self._has_begun = False
        """The last COMMIT has begun the next transaction in the same message."""
        self._cache = RoomCache()
        self._batch: list[PendingCommand] = []
        self._sent_at = float("inf")
        """The loop's time at which the step under way was sent."""
        self._is_waiting = False
        self._telling = Telling(on_commit, self._undo, on_lone)

    def state(self) -> dict[str, object]:
        """What it does now, for whoever inspects the node."""
        return {
            "queued": len(self._queue),
            "in transaction": len(self._batch),
            "waits for Postgres": self._is_waiting,
        }

    def submit(self, command: Command[A]) -> asyncio.Future[A]:
        """Queues a command; its answer, or the error that its decision raised.

        Guarantees: commands of one room are carried out in the order of submitting. A command whose
        answer is there is committed, and has been announced to `on_commit` (save for who is called
        first, `CommandAnswer`). One that failed with `Unavailable` has not happened or may yet
        happen, but for a `Join`: that is undone where it did.

        The future fails with `RoomNotFound`, with `Unavailable` where Postgres does not answer
        within `PATIENCE_SECONDS` or the queue is full, and with what the rule raises.
        """
        return self._queue_up(command, PATIENCE_SECONDS, QUEUE)

    def post(self, command: Command[Any]) -> None:
        """Queues a command whose answer nobody waits for: it waits until Postgres is there."""
        self._queue_up(command, float("inf"), POSTED).add_done_callback(unheard)

    def remember(self, room: Room) -> None:
        """Remembers a room that this node has just made: its first change is one round trip."""
        self._cache.adopt(room)

    def _queue_up(self, command: Command[A], patience: float, most: int) -> CommandAnswer[A]:
        loop = asyncio.get_running_loop()
        answer: CommandAnswer[A] = CommandAnswer(loop=loop)
        if len(self._queue) >= most:
            answer.set_exception(Unavailable(retry_after=1))
            return answer
        self._queue.append(PendingCommand(command, answer, loop.time() + patience))
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            idle.set_result(None)  # the commands of this turn of the loop share a transaction
        return answer

    async def run(self) -> None:
        """Carries out what is queued, until cancelled. Survives every error."""
        patience = asyncio.create_task(self._keep_patience())
        try:
            with contextlib.suppress(Exception):  # whoever comes first tries again, and tells why
                await self._connect()
            while True:
                while self._queue or self._telling.gathering.seconds:
                    if self._telling.gathering.seconds:
                        await self._telling.gather(self._queue)
                    if self._queue:
                        await self._next_batch()
                self._idle = asyncio.get_running_loop().create_future()
                await self._idle
        finally:
            self._idle = None
            patience.cancel()
            await self._disconnect()

    async def _keep_patience(self) -> None:
        """Fails overdue callers in time, whatever the transaction under way is waiting for.

        A transaction that hangs loses its connection. It is never cancelled: a cancel would show
        others a commit that waits for its standby.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PATIENCE_SECONDS / 16)
            now = loop.time()
            for pending in self._pending():
                if pending.deadline < now:
                    pending.fail(Unavailable(retry_after=1))
            if self._batch and now - self._sent_at > TRANSACTION_SECONDS:
                await self._disconnect()

    def _pending(self) -> Iterable[PendingCommand]:
        return (*self._batch, *self._queue)

    async def drained(self, *, within: float) -> None:
        """Returns when what is queued now has been carried out, or after `within` seconds."""
        if waiting := [pending.answer for pending in self._pending()]:
            await asyncio.wait(waiting, timeout=within)

    # -- batches ------------------------------------------------------------------------------

    async def _next_batch(self) -> None:
        """Carries out what waits; afterwards each command has its answer or waits, in order."""
        commands = self._take()
        if not commands:
            if self._has_begun:
                await self._disconnect()  # no transaction stays open without work
            return
        self._batch = commands
        try:
            left, is_busy = await self._carry_out(commands)
        except Exception as error:
            if is_away(error):
                await self._try_later(commands, error)
            else:
                await self._disconnect()
                await self._one_by_one(commands, error)
        else:
            if self._is_waiting:
                self._is_waiting = False
                self._database.note_written()
            self._queue.extendleft(reversed(left))
            if is_busy:
                await asyncio.sleep(_BUSY_SECONDS * random.uniform(0.5, 1.5))
        finally:
            self._batch = []

    def _take(self) -> list[PendingCommand]:
        """The next commands, without those whose callers have been told that they failed."""
        commands: list[PendingCommand] = []
        while self._queue and len(commands) < BATCH:
            pending = self._queue.popleft()
            if not pending.is_given_up:
                commands.append(pending)
            elif pending.is_uncertain and is_to_undo(pending):
                self._undo(pending.command)
        return commands

    def _undo(self, join: Command[Any]) -> None:
        self.post(undo_of(join))

    async def _try_later(self, commands: list[PendingCommand], error: Exception) -> None:
        """Postgres cannot serve: commands that are not overdue stay queued, in order.

        After a deadlock or a serialization failure the same commands succeed at once.
        """
        await self._disconnect()
        self._queue.extendleft(reversed(commands))
        self._batch = []
        cause = error.__cause__ or error
        if outages.is_worth_repeating(cause):
            return
        if outages.is_outage(cause):
            self._database.note_outage(cause)
        if not self._is_waiting:
            reason = type(cause).__name__
            log.warning("writer_waits", waiting=len(self._queue), reason=reason)
        self._is_waiting = True
        await asyncio.sleep(_AWAY_SECONDS)

    async def _one_by_one(self, commands: list[PendingCommand], error: Exception) -> None:
        """Postgres refused a batch: each command once alone, so that one cannot fail the others."""
        log.error("batch_refused", commands=len(commands), exc_info=error)
        if len(commands) == 1:
            commands[0].fail(error)
            return
        busy: list[PendingCommand] = []
        for position, pending in enumerate(commands):
            if any(pending.command.room_id == other.command.room_id for other in busy):
                busy.append(pending)  # in order
                continue
            try:
                if not self._is_connected():
                    await self._connect()
                busy += await self._write_locked([pending])
            except Exception as own:
                if is_away(own):
                    await self._try_later([*busy, *commands[position:]], own)
                    return
                await self._disconnect()
                log.error("command_refused", command=type(pending.command).__name__, exc_info=own)
                pending.fail(own)
        self._queue.extendleft(reversed(busy))

    async def _carry_out(
        self, commands: list[PendingCommand]
    ) -> tuple[list[PendingCommand], bool]:
        """One transaction; the commands that are left, and whether all their rooms are held.

        Raises:
            AnswerLost: the transaction may have been committed.
        """
        if not self._is_connected():
            await self._connect()
        if not self._has_begun and self._needs_no_lock(commands):
            return await self._write_optimistically(commands), False
        busy = await self._write_locked(commands)
        return busy, len(busy) == len(commands)

    def _needs_no_lock(self, commands: Sequence[PendingCommand]) -> bool:
        asked: list[Command[Any]] = []
        for pending in commands:
            if pending.is_uncertain or pending.needs_lock:
                return False
            asked.append(pending.command)
        return self._cache.covers(asked) or self._cache.may_read(asked)

    # -- the two ways to write ----------------------------------------------------------------

    async def _write_optimistically(self, commands: list[PendingCommand]) -> list[PendingCommand]:
        """Decides from memory and from what it reads; writes by compare and set; what is left.

        Guarantees: a room is written only where its row is the very version that was remembered or
        read, in the history that the connection was proven for, while this node's lease stands. A
        command that wrote nothing is not answered: refusals, too, are decided under lock.
        """
        batch = self._transaction(commands)
        if not self._cache.covers(pending.command for pending in commands):
            await self._in_time(batch.read(self._cache), batch)
        batch.recall(self._cache)
        batch.decide()
        asyncio.get_running_loop().call_soon(batch.prepare_answers)  # when the statement is sent
        sent_at = time.perf_counter()
        await self._in_time(batch.write_optimistically(), batch, commits=True)
        self._telling.gathering.note_statement(time.perf_counter() - sent_at)
        left, unchanged = batch.drop_unwritten()
        self._cache.take_up(batch.written, unchanged, batch.found)
        if batch.reading is not None:
            self._cache.note_clock(batch.reading)
        self._tell(batch)
        return left

    async def _write_locked(self, commands: list[PendingCommand]) -> list[PendingCommand]:
        """Decides under the rooms' locks and writes; the commands of rooms that others hold.

        Guarantees: decisions rest on what was read after the lock was taken, and the locked rooms
        are written and committed together, or none is.
        """
        batch = self._transaction(commands)
        if not self._has_begun:
            await self._in_time(batch.connection.execute(self._database.begin), batch)
        self._has_begun = False
        await self._in_time(batch.lock_and_load(), batch)
        found = {room.room_id: room.version for room in batch.rooms.values()}
        batch.decide()
        await self._in_time(batch.write_locked(), batch)
        await self._commit(batch)
        self._cache.learn(batch.written, found)
        if batch.reading is not None:
            self._cache.set_clock(batch.reading)
        self._tell(batch)
        return batch.busy

    async def _commit(self, batch: Transaction) -> None:
        """Commits; where commands for a locked write wait already, the next transaction begins in
        the same round trip.
        """
        goes_on = bool(self._queue) and not self._needs_no_lock([self._queue[0]])
        commit = f"COMMIT; {self._database.begin}" if goes_on else "COMMIT"
        await self._in_time(batch.connection.execute(commit), batch, commits=True)
        self._has_begun = goes_on

    def _transaction(self, commands: list[PendingCommand]) -> Transaction:
        return Transaction(
            self._connection,
            self._policy,
            commands,
            epoch=self._epoch,
            is_pooled=self._database.is_pooled and not self._database.epochs.is_hidden,
        )

    async def _in_time(self, step: Any, batch: Transaction, *, commits: bool = False) -> None:
        """Waits for a step of a transaction; `_keep_patience` ends the connection of a slow one.

        Raises:
            AnswerLost: the step `commits`, and Postgres's answer never came.
        """
        self._sent_at = asyncio.get_running_loop().time()
        try:
            await step
        except Exception as error:
            if commits and outages.is_outage(error) and not outages.is_worth_repeating(error):
                note_uncertain(pending for pending, _, _ in batch.answers)
                raise AnswerLost from error
            raise

    def _tell(self, batch: Transaction) -> None:
        # A transaction that has begun must not wait: none stays open without work.
        self._telling.committed(
            batch, waiting=len(self._queue), may_gather=not self._has_begun
        )

    # -- the connection -----------------------------------------------------------------------

    def _is_connected(self) -> bool:
        """True where there is a connection that is proven for the current epoch."""
        connection = self._connection
        if connection is None or connection.is_closed():
            return False
        return self._epoch == self._database.epochs.current

    async def _connect(self) -> None:
        """Makes a connection, and forgets the cache; Postgres's clock is known from now on."""
        await self._disconnect()
        self._cache = RoomCache()  # a database that was set back counts its versions anew
        connection = await self._database.connect()
        self._cache.set_clock(await ClockReading.first_of(connection, within=TRANSACTION_SECONDS))
        self._connection = connection
        self._epoch = self._database.epochs.current

    async def _disconnect(self) -> None:
        """Drops the connection at once: what was open on it is rolled back by Postgres."""
        self._has_begun = False  # a transaction dies with its connection
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

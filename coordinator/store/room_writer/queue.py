"""The writer: every change of a room, many at a time, in one transaction after the other.

Commands that arrive while a transaction is in flight wait together and go into the next one (group
commit). A transaction locks its rooms in order, loads what the commands name, lets the pure rules
decide, writes the outcome in one statement, and commits; each caller gets its own answer or its own
error. The way of one batch:

    lock rooms (skipping those that another node holds: their commands go to the next batch)
    load the people named        one statement, after the lock, so it sees what the lock waited for
    decide                       domain/room.py; a refusal fails one caller
    write                        room rows, people, log, connections (`transaction.py`)
    COMMIT                       then events to `on_commit`, answers to the callers

The short way: of rooms that this node alone changes the writer remembers what it wrote last
(`room_cache.py`). A batch of such rooms is decided from memory and sent as that one write
statement, alone. It locks and writes those rooms whose row is still the very version that is
remembered and skips the others, whose commands then go the long way: so nothing is decided by what
is out of date, and a change costs one round trip instead of four.

Lock order everywhere: room rows by id, then the node's own row. Nobody touches participants, events
or connections of a room without its lock, and without writing its row too. (The one statement locks
the node's row first: it waits for no room.)

If we are killed: before COMMIT nothing happened; after it the events are in the log, and whoever
was not told finds them by the next seq or the next poll.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog

from coordinator.domain.errors import Unavailable
from coordinator.domain.events import Event
from coordinator.domain.room import Policy
from coordinator.store.database import AWAY, Database
from coordinator.store.room_writer.commands import Command, UndoJoin
from coordinator.store.room_writer.room_cache import RoomCache
from coordinator.store.room_writer.transaction import PendingCommand, Transaction

log = structlog.get_logger()

A = TypeVar("A")

BATCH = 256
QUEUE = 20_000
PATIENCE_SECONDS = 4.0
"""How long a caller waits before it is told that the service is unavailable."""

_BUSY_SECONDS = 0.002
_AWAY_SECONDS = 0.1

OnCommit = Callable[[Sequence[Event], Sequence[str]], None]
"""Hears of each committed batch: its events in order, and the sessions that newer ones replaced."""


class Writer:
    """One lane of transactions per node. Start it with `run` in a task of its own.

    Args:
        on_commit: called after each COMMIT, before the callers hear; must not block or raise.
    """

    def __init__(self, database: Database, policy: Policy, on_commit: OnCommit) -> None:
        self._database = database
        self._policy = policy
        self._on_commit = on_commit
        self._queue: deque[PendingCommand] = deque()
        self._arrived = asyncio.Event()
        self._connection: Any = None
        self._has_begun = False
        """The last COMMIT has begun the next transaction in the same message."""
        self._cache = RoomCache()
        self._batch: list[PendingCommand] = []
        self._is_waiting = False

    def submit(self, command: Command[A]) -> asyncio.Future[A]:
        """Queues a command; its answer, or the error that its decision raised.

        The order of submitting is kept for each room. The future fails with `Unavailable` where
        Postgres does not answer within `PATIENCE_SECONDS`, and with `RoomNotFound`.
        """
        return self._queue_up(command, PATIENCE_SECONDS)

    def post(self, command: Command[Any]) -> None:
        """Queues a command whose answer nobody waits for: it waits until Postgres is there."""
        self._queue_up(command, float("inf")).add_done_callback(_unheard)

    def _queue_up(self, command: Command[A], patience: float) -> asyncio.Future[A]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[A] = loop.create_future()
        if len(self._queue) >= QUEUE:
            answer.set_exception(Unavailable(retry_after=1))
            return answer
        self._queue.append(PendingCommand(command, answer, loop.time() + patience))
        self._arrived.set()
        return answer

    async def run(self) -> None:
        """Carries out what is queued, until cancelled. Survives every error."""
        patience = asyncio.create_task(self._keep_patience())
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._queue:
                    await self._next_batch()
        finally:
            patience.cancel()
            await self._disconnect()

    async def _keep_patience(self) -> None:
        """Tells callers in time, whatever the transaction under way is waiting for."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PATIENCE_SECONDS / 16)
            now = loop.time()
            for order in (*self._batch, *self._queue):
                if order.deadline < now:
                    _fail(order, Unavailable(retry_after=1))

    async def drained(self, *, within: float) -> None:
        """Returns when what is queued now has been carried out, or after `within` seconds."""
        waiting = [order.answer for order in (*self._batch, *self._queue)]
        if waiting:
            await asyncio.wait(waiting, timeout=within)

    async def _next_batch(self) -> None:
        orders = self._take()
        if not orders:
            if self._has_begun:
                await self._disconnect()  # no transaction stays open without work
            return
        self._batch = orders
        try:
            left, is_busy = await self._carry_out(orders)
        except (Unavailable, _AnswerLost, *AWAY) as error:
            await self._try_later(orders, error)
        except Exception as error:
            await self._disconnect()
            await self._one_by_one(orders, error)
        else:
            self._is_waiting = False
            self._queue.extendleft(reversed(left))
            if is_busy:
                await asyncio.sleep(_BUSY_SECONDS * random.uniform(0.5, 1.5))
        finally:
            self._batch = []

    def _take(self) -> list[PendingCommand]:
        """The next orders, without those whose callers have been told that they failed."""
        orders: list[PendingCommand] = []
        while self._queue and len(orders) < BATCH:
            order = self._queue.popleft()
            if not order.is_given_up:
                orders.append(order)
            elif order.is_uncertain and order.is_to_undo:
                self._undo(order.command)
        return orders

    def _undo(self, join: Command[Any]) -> None:
        assert join.user_id is not None
        self.post(UndoJoin(room_id=join.room_id, user_id=join.user_id))

    async def _try_later(self, orders: list[PendingCommand], error: BaseException) -> None:
        """Postgres is away: what is not overdue stays queued, in order."""
        await self._disconnect()
        self._queue.extendleft(reversed(orders))
        self._batch = []
        if not self._is_waiting:
            reason = type(error.__cause__ or error).__name__
            log.warning("writer_waits", waiting=len(self._queue), reason=reason)
        self._is_waiting = True
        await asyncio.sleep(_AWAY_SECONDS)

    async def _one_by_one(self, orders: list[PendingCommand], error: Exception) -> None:
        """Postgres refused a batch: each command once alone, so that one cannot fail the others."""
        log.error("batch_refused", commands=len(orders), exc_info=error)
        if len(orders) == 1:
            _fail(orders[0], error)
            return
        busy: list[PendingCommand] = []
        for position, order in enumerate(orders):
            if any(order.command.room_id == other.command.room_id for other in busy):
                busy.append(order)  # in order
                continue
            try:
                busy += await self._lock_and_write([order])
            except (Unavailable, _AnswerLost, *AWAY) as away:
                await self._try_later([*busy, *orders[position:]], away)
                return
            except Exception as own:
                await self._disconnect()
                log.error("command_refused", command=type(order.command).__name__, exc_info=own)
                _fail(order, own)
        self._queue.extendleft(reversed(busy))

    async def _carry_out(self, orders: list[PendingCommand]) -> tuple[list[PendingCommand], bool]:
        """One transaction; the orders that are left, and whether all their rooms are held.

        Raises:
            _AnswerLost: it may have been committed.
        """
        await self._connected()
        if not self._has_begun and self._is_covered(orders):
            return await self._write_from_memory(orders), False
        busy = await self._lock_and_write(orders)
        return busy, len(busy) == len(orders)

    def _is_covered(self, orders: Sequence[PendingCommand]) -> bool:
        if any(order.is_uncertain or order.needs_lock for order in orders):
            return False
        return self._cache.covers(order.command for order in orders)

    async def _write_from_memory(self, orders: list[PendingCommand]) -> list[PendingCommand]:
        """The short way; the orders of those rooms that were not as remembered."""
        batch = Transaction(await self._connected(), self._policy, orders)
        batch.recall(self._cache)
        batch.decide()
        try:
            await batch.write()
        except AWAY as error:
            raise self._answer_lost(batch) from error
        left, unchanged = batch.drop_unwritten()
        self._cache.keep([*batch.written, *unchanged])
        if batch.clock is not None:
            self._cache.note_time(*batch.clock)
        self._tell(batch)
        return left

    async def _lock_and_write(self, orders: list[PendingCommand]) -> list[PendingCommand]:
        """The long way; the orders of those rooms that somebody else holds."""
        connection = await self._connected()
        batch = Transaction(connection, self._policy, orders)
        if not self._has_begun:
            await connection.execute("BEGIN")
        self._has_begun = False
        await batch.lock_and_load()
        found = {room.room_id: room.version for room in batch.rooms.values()}
        batch.decide()
        await batch.write()
        try:
            # Where such orders wait already, the next one begins in the same round trip.
            goes_on = bool(self._queue) and not self._is_covered([self._queue[0]])
            await connection.execute("COMMIT; BEGIN" if goes_on else "COMMIT")
            self._has_begun = goes_on
        except AWAY as error:
            raise self._answer_lost(batch) from error
        self._cache.learn(batch.written, found)
        if batch.clock is not None:
            self._cache.set_clock(*batch.clock)
        self._tell(batch)
        return batch.busy

    def _answer_lost(self, batch: Transaction) -> _AnswerLost:
        for order, _, _ in batch.answers:
            order.is_uncertain = True
        return _AnswerLost()

    def _tell(self, batch: Transaction) -> None:
        """It is committed: everybody hears of it, whatever a listener does with it."""
        try:
            if batch.events or batch.replaced:
                self._on_commit(batch.events, batch.replaced)
        except Exception as error:
            log.error("commit_not_announced", exc_info=error)
        for order, answer, refusal in batch.answers:
            if refusal is not None:
                _fail(order, refusal)
            elif not order.is_given_up:
                order.answer.set_result(answer)
            elif order.is_to_undo:
                self._undo(order.command)

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._has_begun = False  # what was begun died with its connection
            self._cache = RoomCache()  # and a database that was set back counts its versions anew
            self._connection = await self._database.connect()
        return self._connection

    async def _disconnect(self) -> None:
        """Drops the connection at once: what was open on it is rolled back by Postgres."""
        self._has_begun = False
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


class _AnswerLost(Exception):
    """COMMIT was sent, and its answer never came."""


def _fail(order: PendingCommand, error: BaseException) -> None:
    if not order.answer.done():
        order.answer.set_exception(error)


def _unheard(answer: asyncio.Future[Any]) -> None:
    """Nobody waits for this answer: a failure is repaired elsewhere (`live/lease.py`)."""
    if not answer.cancelled():
        answer.exception()

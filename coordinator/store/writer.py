"""The writer: every change of a room, many at a time, in one transaction after the other.

Commands that arrive while a transaction is in flight wait together and go into the next one (group
commit). A transaction locks its rooms in order, loads what the commands name, lets the pure rules
decide, writes the outcome in one statement, and commits; each caller gets its own answer or its own
error. The way of one batch:

    lock rooms (skipping those that another node holds: their commands go to the next batch)
    load the people named        one statement, after the lock, so it sees what the lock waited for
    decide                       domain/room.py; a refusal fails one caller
    write                        room rows, people, log, connections
    COMMIT                       then events to `on_commit`, answers to the callers

Lock order everywhere: room rows by id, then the node's own row. Nobody touches participants, events
or connections of a room without its lock.

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

from coordinator.domain.errors import CoordinatorError, LeaseLost, RoomNotFound, Unavailable
from coordinator.domain.events import Event
from coordinator.domain.room import Participant, Policy, Room
from coordinator.store.commands import Command, Join, UndoJoin
from coordinator.store.database import AWAY, Database
from coordinator.store.rooms import payload

log = structlog.get_logger()

A = TypeVar("A")

BATCH = 256
QUEUE = 20_000
PATIENCE_SECONDS = 4.0
"""How long a caller waits before it is told that the service is unavailable."""

_BUSY_SECONDS = 0.002
_AWAY_SECONDS = 0.1

_LOCK = """
    SELECT room_id, room_name, host_name, status, created_at, ended_at, last_seq, last_at, present,
           guests, online, host_absent_since, empty_since, clock_timestamp() AS now
    FROM interview_rooms WHERE room_id = ANY($1::varchar[])
    ORDER BY room_id FOR NO KEY UPDATE SKIP LOCKED
"""

_EXISTING = "SELECT room_id FROM interview_rooms WHERE room_id = ANY($1::varchar[])"

_ALIVE = "SELECT boot FROM nodes WHERE boot = ANY($1::varchar[]) FOR KEY SHARE"

_PEOPLE = """
    SELECT p.room_id, p.user_id, p.user_name, p.role, p.identity, p.joined_at, p.joined_seq,
           p.left_at, p.leave_at, p.connection, p.proven, p.removed,
           ARRAY(SELECT c.id FROM connections c
                 WHERE c.room_id = p.room_id AND c.user_id = p.user_id
                 ORDER BY c.connected_at, c.id) AS sessions
    FROM unnest($1::varchar[], $2::varchar[]) AS named (room_id, user_id)
    JOIN interview_participants p USING (room_id, user_id)
"""

_WRITE = """
    WITH rooms AS (
        UPDATE interview_rooms r
        SET status = n.status, ended_at = n.ended_at, last_seq = n.last_seq, last_at = n.last_at,
            present = n.present, guests = n.guests, online = n.online,
            host_absent_since = n.host_absent_since, empty_since = n.empty_since
        FROM unnest($1::varchar[], $2::varchar[], $3::timestamptz[], $4::bigint[],
                    $5::timestamptz[], $6::int[], $7::int[], $8::int[], $9::timestamptz[],
                    $10::timestamptz[])
            AS n (room_id, status, ended_at, last_seq, last_at, present, guests, online,
                  host_absent_since, empty_since)
        WHERE r.room_id = n.room_id
    ), people AS (
        INSERT INTO interview_participants
            (room_id, user_id, user_name, role, identity, joined_at, joined_seq, left_at, leave_at,
             connection, proven, removed)
        SELECT * FROM unnest($11::varchar[], $12::varchar[], $13::varchar[], $14::varchar[],
                    $15::varchar[], $16::timestamptz[], $17::bigint[], $18::timestamptz[],
                    $19::timestamptz[], $20::varchar[], $21::bool[], $22::bool[])
        ON CONFLICT (room_id, user_id) DO UPDATE
        SET user_name = excluded.user_name, identity = excluded.identity,
            joined_at = excluded.joined_at, joined_seq = excluded.joined_seq,
            left_at = excluded.left_at, leave_at = excluded.leave_at,
            connection = excluded.connection, proven = excluded.proven, removed = excluded.removed
    ), opened AS (
        INSERT INTO connections (id, room_id, user_id, boot, connected_at)
        SELECT * FROM unnest($23::varchar[], $24::varchar[], $25::varchar[], $26::varchar[],
                    $27::timestamptz[])
    ), closed AS (
        DELETE FROM connections WHERE id = ANY($28::varchar[])
    )
    INSERT INTO room_events (room_id, seq, type, at, payload)
    SELECT * FROM unnest($29::varchar[], $30::bigint[], $31::varchar[], $32::timestamptz[],
                         $33::json[])
"""

# One room at a time (sent together): the planner cannot take its fancy to reading whole tables.
_EMPTY_ENDED_ROOM = (
    """
    UPDATE interview_participants SET left_at = $2, leave_at = NULL, connection = 'none'
    WHERE room_id = $1 AND left_at IS NULL
    """,
    "DELETE FROM connections WHERE room_id = $1 AND connected_at <= $2",
)

OnCommit = Callable[[Sequence[Event], Sequence[str]], None]
"""Hears of each committed batch: its events in order, and the sessions that newer ones replaced."""


class _Order:
    """A command that waits for its answer."""

    __slots__ = ("answer", "command", "deadline", "is_uncertain")

    def __init__(self, command: Command[Any], answer: asyncio.Future[Any], deadline: float) -> None:
        self.command = command
        self.answer = answer
        self.deadline = deadline
        self.is_uncertain = False
        """An earlier COMMIT of it was never answered: it may have been carried out."""

    @property
    def is_given_up(self) -> bool:
        """Its caller has been told that the service is unavailable, or is gone."""
        return self.answer.done()

    @property
    def is_to_undo(self) -> bool:
        """A new guest was told that it did not join: where it did, that is made true.

        Only a new one's: nobody else knows its id. A return that was refused may have been asked
        for again meanwhile, and answered.
        """
        answer = self.answer
        return (
            isinstance(self.command, Join)
            and not answer.cancelled()
            and bool(answer.done() and answer.exception())
        )


class Writer:
    """One lane of transactions per node. Start it with `run` in a task of its own.

    Args:
        on_commit: called after each COMMIT, before the callers hear; must not block or raise.
    """

    def __init__(self, database: Database, policy: Policy, on_commit: OnCommit) -> None:
        self._database = database
        self._policy = policy
        self._on_commit = on_commit
        self._queue: deque[_Order] = deque()
        self._arrived = asyncio.Event()
        self._connection: Any = None
        self._has_begun = False
        """The last COMMIT has begun the next transaction in the same message."""
        self._batch: list[_Order] = []
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
        self._queue.append(_Order(command, answer, loop.time() + patience))
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
            busy = await self._carry_out(orders)
        except (Unavailable, _AnswerLost, *AWAY) as error:
            await self._try_later(orders, error)
        except Exception as error:
            await self._disconnect()
            await self._one_by_one(orders, error)
        else:
            self._is_waiting = False
            if busy:
                self._queue.extendleft(reversed(busy))
                if len(busy) == len(orders):
                    await asyncio.sleep(_BUSY_SECONDS * random.uniform(0.5, 1.5))
        finally:
            self._batch = []

    def _take(self) -> list[_Order]:
        """The next orders, without those whose callers have been told that they failed."""
        orders: list[_Order] = []
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

    async def _try_later(self, orders: list[_Order], error: BaseException) -> None:
        """Postgres is away: what is not overdue stays queued, in order."""
        await self._disconnect()
        self._queue.extendleft(reversed(orders))
        self._batch = []
        if not self._is_waiting:
            reason = type(error.__cause__ or error).__name__
            log.warning("writer_waits", waiting=len(self._queue), reason=reason)
        self._is_waiting = True
        await asyncio.sleep(_AWAY_SECONDS)

    async def _one_by_one(self, orders: list[_Order], error: Exception) -> None:
        """Postgres refused a batch: each command once alone, so that one cannot fail the others."""
        log.error("batch_refused", commands=len(orders), exc_info=error)
        if len(orders) == 1:
            _fail(orders[0], error)
            return
        busy: list[_Order] = []
        for position, order in enumerate(orders):
            if any(order.command.room_id == other.command.room_id for other in busy):
                busy.append(order)  # in order
                continue
            try:
                busy += await self._carry_out([order])
            except (Unavailable, _AnswerLost, *AWAY) as away:
                await self._try_later([*busy, *orders[position:]], away)
                return
            except Exception as own:
                await self._disconnect()
                log.error("command_refused", command=type(order.command).__name__, exc_info=own)
                _fail(order, own)
        self._queue.extendleft(reversed(busy))

    async def _carry_out(self, orders: list[_Order]) -> list[_Order]:
        """One transaction; those orders whose rooms somebody else holds.

        Raises:
            _AnswerLost: it may have been committed.
        """
        connection = await self._connected()
        batch = _Batch(connection, self._policy, orders)
        if not self._has_begun:
            await connection.execute("BEGIN")
        self._has_begun = False
        await batch.lock_and_load()
        batch.decide()
        await batch.write()
        try:
            # Where orders wait already, the next transaction begins in the same round trip.
            goes_on = bool(self._queue)
            await connection.execute("COMMIT; BEGIN" if goes_on else "COMMIT")
            self._has_begun = goes_on
        except AWAY as error:
            for order, _, _ in batch.answers:
                order.is_uncertain = True
            raise _AnswerLost from error
        self._tell(batch)
        return batch.busy

    def _tell(self, batch: _Batch) -> None:
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


class _Batch:
    """The orders of one transaction, and what has become of them."""

    def __init__(self, connection: Any, policy: Policy, orders: list[_Order]) -> None:
        self.connection = connection
        self.policy = policy
        self.orders = orders
        self.rooms: dict[str, Room] = {}
        self.unknown: set[str] = set()
        self.alive: set[str] = set()
        self.busy: list[_Order] = []
        self.answers: list[tuple[_Order, Any, BaseException | None]] = []
        self.events: list[Event] = []
        self.replaced: list[str] = []

    async def lock_and_load(self) -> None:
        wanted = {order.command.room_id for order in self.orders}
        for row in await self.connection.fetch(_LOCK, list(wanted)):
            self.rooms[row["room_id"]] = _room(row)
        if absent := wanted - self.rooms.keys():
            existing = await self.connection.fetch(_EXISTING, list(absent))
            self.unknown = absent - {row["room_id"] for row in existing}
        boots = {order.command.boot for order in self.orders if order.command.boot is not None}
        if boots:
            rows = await self.connection.fetch(_ALIVE, list(boots))
            self.alive = {row["boot"] for row in rows}
        await self._load_people()

    async def _load_people(self) -> None:
        named = {
            (order.command.room_id, order.command.user_id)
            for order in self.orders
            if order.command.user_id is not None
            and order.command.room_id in self.rooms
            and (order.is_uncertain or not order.command.is_fresh)
        }
        if not named:
            return
        room_ids, user_ids = zip(*named, strict=True)
        for row in await self.connection.fetch(_PEOPLE, room_ids, user_ids):
            self.rooms[row["room_id"]].participants[row["user_id"]] = _participant(row)

    def decide(self) -> None:
        for order in self.orders:
            command = order.command
            room = self.rooms.get(command.room_id)
            if room is None and command.room_id not in self.unknown:
                self.busy.append(order)
                continue
            try:
                if room is None:
                    raise RoomNotFound
                if command.boot is not None and command.boot not in self.alive:
                    raise LeaseLost
                self.answers.append((order, command.decide(room, self.policy), None))
            except CoordinatorError as refusal:
                self.answers.append((order, None, refusal))

    async def write(self) -> None:
        changed = [room for room in self.rooms.values() if room.is_changed]
        if not changed:
            return
        for room in changed:
            self.events += room.events
            self.replaced += room.replaced
        await self.connection.execute(_WRITE, *_columns(changed))
        ended = [room for room in changed if room.is_ended]
        for statement in _EMPTY_ENDED_ROOM if ended else ():
            await self.connection.executemany(
                statement, [(room.room_id, room.ended_at) for room in ended]
            )


def _fail(order: _Order, error: BaseException) -> None:
    if not order.answer.done():
        order.answer.set_exception(error)


def _unheard(answer: asyncio.Future[Any]) -> None:
    """Nobody waits for this answer: a failure is repaired elsewhere (`live/presence.py`)."""
    if not answer.cancelled():
        answer.exception()


def _room(row: Any) -> Room:
    return Room(
        room_id=row["room_id"], room_name=row["room_name"], host_name=row["host_name"],
        status=row["status"], created_at=row["created_at"], ended_at=row["ended_at"],
        last_seq=row["last_seq"], last_at=row["last_at"], present=row["present"],
        guests=row["guests"], online=row["online"], host_absent_since=row["host_absent_since"],
        empty_since=row["empty_since"], now=max(row["now"], row["last_at"]),
    )  # fmt: skip


def _participant(row: Any) -> Participant:
    return Participant(
        user_id=row["user_id"], user_name=row["user_name"], role=row["role"],
        identity=row["identity"], joined_at=row["joined_at"], joined_seq=row["joined_seq"],
        left_at=row["left_at"], leave_at=row["leave_at"], connection=row["connection"],
        proven=row["proven"], removed=row["removed"], connections=list(row["sessions"]),
    )  # fmt: skip


def _columns(rooms: list[Room]) -> list[Sequence[Any]]:
    """The parameters of `_WRITE`: one list per column."""
    room_rows = [
        (r.room_id, r.status, r.ended_at, r.last_seq, r.last_at, r.present, r.guests, r.online,
         r.host_absent_since, r.empty_since)
        for r in rooms
    ]  # fmt: skip
    people_rows = [
        (r.room_id, p.user_id, p.user_name, p.role, p.identity, p.joined_at, p.joined_seq,
         p.left_at, p.leave_at, p.connection, p.proven, p.removed)
        for r in rooms
        for p in (r.participants[user_id] for user_id in r.touched)
    ]  # fmt: skip
    opened_rows = [
        (session_id, r.room_id, user_id, boot, r.now)
        for r in rooms
        for session_id, user_id, boot in r.opened
        if session_id not in r.closed
    ]
    event_rows = [(e.feed.id, e.seq, e.type, r.now, payload(e)) for r in rooms for e in r.events]
    return [
        *_transposed(room_rows, 10),
        *_transposed(people_rows, 12),
        *_transposed(opened_rows, 5),
        [session_id for r in rooms for session_id in r.closed],
        *_transposed(event_rows, 5),
    ]


def _transposed(rows: list[tuple[Any, ...]], width: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width

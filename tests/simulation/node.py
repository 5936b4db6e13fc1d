"""A node of the simulation: a real hub, the connections on it, and what surrounds them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import CoordinatorError, LeaseLost, Unavailable
from coordinator.domain.events import ROOM, Event, FeedKey
from coordinator.domain.room import Lifespan
from coordinator.domain.roster import Counts
from coordinator.live.feed import Feed
from coordinator.live.hub import Hub
from coordinator.live.judge import Judge
from coordinator.live.lease import Lease
from coordinator.live.reaper import Reaper, Reconciler
from coordinator.live.shifts import Shifts
from coordinator.store.room_writer.commands import Command, Connect, Disconnect
from tests.harness.wire import frames
from tests.simulation.database import GRACE, RoomLogs, SimulatedDatabase
from tests.simulation.leases import (
    LeaseTable,
    Road,
    SimulatedDuties,
    SimulatedNodes,
    SimulatedWriter,
)
from tests.simulation.virtual_time import begin

PING_SECONDS = 4.0
SLOWEST_NETWORK = 0.02
NOTICES_HISTORY_WITHIN = 4.0

Hears = Callable[[dict[str, Any]], None]


class SimulatedConnection:
    """A live connection: the node's end of it, and the wire to its client, which keeps order."""

    def __init__(
        self, node: SimulatedNode, room_id: str, user_id: str | None, session_id: str, hears: Hears
    ) -> None:
        self.node = node
        self.room_id = room_id
        self.user_id = user_id
        self.session_id = session_id
        self.connect_seq = 0
        self.counts_only = False
        self.is_open = True
        self.has_row = False
        self.feed: Feed | None = None
        self.on_end: Callable[[], None] = lambda: None
        self._hears = hears
        self._arrives_at = 0.0

    @property
    def writer(self) -> Callable[[bytes], None]:
        return self.write

    def write(self, frames_: bytes) -> None:
        for _, payload in frames(frames_)[0]:
            self._send(msgspec.json.decode(payload))

    def welcome(self, feed: Feed, *, since: int, counts: Counts | None, resumed: bool) -> None:
        told: dict[str, Any] = {
            "type": "welcome", "seq": since, "epoch": feed.epoch, "resumed": resumed
        }  # fmt: skip
        if not resumed:
            snapshot = feed.snapshot()
            told |= msgspec.json.decode(msgspec.json.encode(snapshot.members))
            told["participants"] = msgspec.json.decode(b"".join(snapshot.people or [b"[]"]))
        self._send(told)

    def ping(self) -> None:
        """What the node sends by itself: what its feed has goes first."""
        if self.feed is not None and self in self.feed.subscribers and self.is_open:
            self.node.hub.broadcast.flush(self.feed, self)
            self._send({"type": "ping", "seq": self.feed.seq, "epoch": self.feed.epoch})

    def on_not_admitted(self) -> None:
        self.close(CloseCode.CANNOT_CONTINUE)

    def close(self, code: CloseCode) -> None:
        if self.is_open and self.feed is not None:
            self.node.hub.broadcast.flush(self.feed, self)
        self._send({"type": "bye", "code": int(code)})
        self.end()

    def end(self) -> None:
        """The TCP connection is gone, however that came about."""
        if self.is_open:
            self.is_open = False
            self.node.on_ended(self)
            self.on_end()

    def _send(self, frame: dict[str, Any]) -> None:
        if not self.is_open:
            return
        loop = asyncio.get_running_loop()
        network = self.node.chance.uniform(0, SLOWEST_NETWORK)
        self._arrives_at = max(self._arrives_at + 1e-6, loop.time() + network)
        loop.call_at(self._arrives_at, self._hears, frame)


class SimulatedNode:
    """One node: the real lease, shifts, reaper and reconciler around a real hub.

    Attributes:
        road: its way to the database.
        was_cut_off: it alone could not reach the database for a while.
    """

    def __init__(self, name: str, database: SimulatedDatabase, leases: LeaseTable) -> None:
        self.name = name
        self.database = database
        self.chance = database.chance
        self.epoch = database.epoch
        self.is_up = True
        self.bus_is_up = True
        self.was_cut_off = False
        self.road = Road(database, leases)
        self.publish: Callable[[str, Sequence[Event]], None] = lambda epoch, events: None
        self.connections: dict[SimulatedConnection, None] = {}  # in order: a seed is one history
        self.hub = Hub(
            [RoomLogs(database, self._notice, lambda: self.road.is_cut)],
            epoch=lambda: self.epoch,
            is_degraded=lambda: not self.bus_is_up,
        )
        nodes, writer = SimulatedNodes(self.road, self._notice), SimulatedWriter(self.carry_out)
        self.judge = Judge()
        self.lease = Lease(nodes, self, name=name)
        shifts = Shifts(SimulatedDuties(self.road), self.lease, self.judge)
        self._reaper = Reaper(
            self.lease, nodes, writer, shifts, self.judge, grace=GRACE,
            lifespan=Lifespan(None, None, None),
        )  # fmt: skip
        self._reconciler = Reconciler(self.lease, nodes, writer, self)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Takes its lease, as soon as the database lets it, and begins."""
        while True:
            try:
                await self.lease.enter()
                break
            except Unavailable:
                await asyncio.sleep(0.3)
        loops = (
            self.hub.run, self.lease.run, self._reaper.run, self._reconciler.run, self._ping,
            self._watch_history,
        )  # fmt: skip
        self._tasks = [begin(loop()) for loop in loops]

    # -- its connections, as lease and reconciler need them

    def count(self) -> int:
        return len(self.connections)

    def close_all(self, code: CloseCode) -> None:
        for connection in list(self.connections):
            connection.close(code)

    def claimed(self) -> set[str]:
        return {each.session_id for each in self.connections}

    def confirmed(self) -> set[str]:
        return {each.session_id for each in self.connections if each.has_row}

    def marked(self) -> set[str]:
        return set()

    def participant(self, session_id: str) -> tuple[str, str] | None:
        for each in self.connections:
            if each.session_id == session_id and each.has_row:
                return each.room_id, each.user_id or ""
        return None

    def close_session(self, session_id: str, code: CloseCode) -> None:
        for connection in list(self.connections):
            if connection.session_id == session_id:
                connection.close(code)

    # -- commands

    async def carry_out(self, command: Command[Any]) -> Any:
        """Through the database; its events go to this hub at once, to the others by the bus."""
        if self.road.is_cut or not self.is_up:
            raise Unavailable
        if isinstance(command, Connect) and command.node_epoch not in self.road.leases.nodes:
            raise LeaseLost
        answer, events = await self.database.carry_out(command)
        if events:
            self._notice(events[0].epoch)
        self.tell(events)
        return answer

    def tell(self, events: Sequence[Event]) -> None:
        if self.is_up and events:
            self.hub.offer(events, 0.0)
            self.publish(events[0].epoch, events)
            if self.chance.random() < 0.2:  # pongs are due in this very turn
                for connection in list(self.connections):
                    connection.ping()

    def hear(self, epoch: str, events: Sequence[Event]) -> None:
        """A message of the bus; those of another history are not for this node."""
        if self.is_up and epoch == self.epoch:
            self.hub.offer(events, 0.0)

    # -- connections

    async def connect(
        self, connection: SimulatedConnection, *, since: int | None, epoch: str | None
    ) -> None:
        """Writes the connection's row, then lets it into the stream."""
        self.connections[connection] = None
        try:
            assert connection.user_id is not None
            connected = await self.carry_out(
                Connect(
                    room_id=connection.room_id, user_id=connection.user_id,
                    session_id=connection.session_id, node_epoch=self.lease.node_epoch,
                )
            )  # fmt: skip
            connection.has_row = True
            for session in connected.replaced:
                self.close_session(session, CloseCode.REPLACED)
            connection.connect_seq = connected.seq
            if not connection.is_open:
                await self._drop(connection)
                return
            key = FeedKey(ROOM, connection.room_id)
            connection.feed = await self.hub.resume.attach(
                key, connection, since=since, epoch=epoch, connect_seq=connected.seq
            )
            if not connection.is_open:
                self.hub.resume.detach(connection.feed, connection)
        except Unavailable:
            connection.close(CloseCode.SERVER_ERROR)
        except LeaseLost:
            connection.close(CloseCode.CANNOT_CONTINUE)
        except CoordinatorError:
            connection.close(CloseCode.NOT_ALLOWED)

    def on_ended(self, connection: SimulatedConnection) -> None:
        self.connections.pop(connection, None)
        if connection.feed is not None:
            self.hub.resume.detach(connection.feed, connection)
        if connection.has_row and self.is_up:
            begin(self._drop(connection))

    async def _drop(self, connection: SimulatedConnection) -> None:
        assert connection.user_id is not None
        with contextlib.suppress(CoordinatorError):  # then the reconciler finds the row
            await self.carry_out(
                Disconnect(
                    room_id=connection.room_id, user_id=connection.user_id,
                    session_id=connection.session_id,
                )
            )  # fmt: skip

    # -- what goes on by itself

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self.chance.uniform(0.5, PING_SECONDS))
            for connection in list(self.connections):
                connection.ping()

    async def _watch_history(self) -> None:
        while True:
            await asyncio.sleep(self.chance.uniform(0.1, NOTICES_HISTORY_WITHIN))
            if not self.database.is_away and not self.road.is_cut:
                self._notice(self.database.epoch)

    def _notice(self, epoch: str) -> None:
        """The database says which history it is in; an answer that was long on its way is old."""
        if int(epoch[1:]) > int(self.epoch[1:]):
            self.epoch = epoch
            self.hub.change_history(epoch)

    async def die(self) -> None:
        """Killed: its sockets break, its rows stay."""
        self.is_up = False
        for connection in list(self.connections):
            connection.has_row = False
            connection.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.hub.close()

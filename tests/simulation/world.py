"""One history: the plan of a seed, carried out, then every promise held against the log."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
import structlog

from coordinator.domain.errors import CoordinatorError
from coordinator.domain.events import Event
from coordinator.live import broadcast
from coordinator.store.room_writer.commands import Command, End, Join, Leave, Remove
from tests.simulation import virtual_time
from tests.simulation.client import SimulatedClient
from tests.simulation.database import START, SimulatedDatabase, SimulatedRoom, replayed
from tests.simulation.leases import LeaseTable
from tests.simulation.node import SimulatedNode
from tests.simulation.virtual_time import begin

BUSY_SECONDS = 8.0
LONGEST_CUT = 12.0
QUIET_SECONDS = 36.0
"""The longest cut; a lease, and the time in which nobody is judged after an outage; the grace, a
poll, a look for another history, and reconciling twice."""
LOOK_SECONDS, RIGHT_LOOKS = 3.0, 3
"""Who was told wrongly, or is put out later, is so within that: a grace and a reconciling."""
BEACON_SECONDS = 1.0


@dataclass
class WorldHistory:
    """What came of a seed: a line for each thing that happened, and each promise not kept."""

    seed: int
    events: int = 0
    deliveries: int = 0
    broken: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)


class World:
    """Two or three nodes, one or two rooms, a few people, and a plan of faults."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.database = SimulatedDatabase(self.chance)
        self.history = WorldHistory(seed)
        self.leases = LeaseTable()
        self.nodes: list[SimulatedNode] = []
        self.clients: list[SimulatedClient] = []
        self.loses = self.chance.choice((0.0, 0.1, 0.5, 1.0))
        self._names = 0

    async def live(self) -> WorldHistory:
        for _ in range(self.chance.randint(2, 3)):
            await self._start_node().start()
        rooms = [f"room{n}" for n in range(self.chance.randint(1, 2))]
        for room_id in rooms:
            self.nodes[0].tell(await self.database.create(room_id))
            self._add_client(room_id, "host")
        begin(self._beacons())
        for room_id in rooms:
            for _ in range(self.chance.randint(1, 3)):
                begin(self._visits(room_id))
        begin(self._break_things())
        await asyncio.sleep(BUSY_SECONDS)
        self._mend()
        await self._settle()
        self.history.broken += self._verdict()
        return self.history

    async def _settle(self) -> None:
        """Until everything has been right for a while; for as long as promises take at most."""
        looks = 0
        for _ in range(round(QUIET_SECONDS / LOOK_SECONDS)):
            await asyncio.sleep(LOOK_SECONDS)
            looks = 0 if self._verdict() or not self._is_calm() else looks + 1
            if looks == RIGHT_LOOKS:
                return

    def _is_calm(self) -> bool:
        """No node is cut off, and no dead one is still taken for alive."""
        living = self._living()
        return len(self.leases.nodes) == len(living) and not any(
            node.road.is_cut for node in living
        )

    def note(self, what: str) -> None:
        self.history.trace.append(f"{asyncio.get_running_loop().time():8.3f} {what}")

    @property
    def is_busy(self) -> bool:
        return asyncio.get_running_loop().time() < BUSY_SECONDS

    # -- nodes and the bus

    def _start_node(self) -> SimulatedNode:
        self._names += 1
        node = SimulatedNode(f"node{self._names}", self.database, self.leases)
        node.publish = lambda epoch, events: self._carry(node, epoch, events)
        self.nodes.append(node)
        return node

    def _carry(self, sender: SimulatedNode, epoch: str, events: Sequence[Event]) -> None:
        """The bus: each other node hears a message never, once or twice, sooner or later."""
        loop = asyncio.get_running_loop()
        for node in self.nodes:
            if node is sender or not node.bus_is_up:
                continue
            copies = 1 + (self.chance.random() < 0.1)
            for _ in range(copies):
                if self.chance.random() >= self.loses:
                    late = self.chance.choice((0.0, 0.002, 0.05, 0.4))
                    loop.call_later(late, node.hear, epoch, events)

    def _living(self) -> list[SimulatedNode]:
        return [node for node in self.nodes if node.is_up]

    async def _beacons(self) -> None:
        """The judge's word every second, as `BusHealth` takes it."""
        while True:
            await asyncio.sleep(BEACON_SECONDS)
            for judge in self._living():
                if judge.judge.is_me and judge.bus_is_up and judge.lease.reaches_postgres:
                    self._hear_judge(judge)

    def _hear_judge(self, judge: SimulatedNode) -> None:
        for node in self._living():
            if node is not judge and node.bus_is_up:
                node.judge.heard_at = asyncio.get_running_loop().time()
                node.judge.is_me &= node.lease.reaches_postgres
                node.lease.note_that_others_reach_postgres()

    async def _try(self, node: SimulatedNode, command: Command[Any]) -> Any:
        try:
            return await node.carry_out(command)
        except CoordinatorError:
            return None

    # -- people

    def _add_client(self, room_id: str, user_id: str) -> SimulatedClient:
        client = SimulatedClient(room_id, user_id, self._living, self.chance)
        self.clients.append(client)
        begin(client.run())
        return client

    async def _visits(self, room_id: str) -> None:
        """Guests who join, stay a while, and go, one after the other."""
        while self.is_busy:
            await asyncio.sleep(self.chance.uniform(0, 3))
            self._names += 1
            user_id, node = f"guest{self._names}", self.chance.choice(self._living())
            joined = await self._try(
                node, Join(room_id=room_id, user_id=user_id, user_name=user_id, identity=None)
            )
            if joined is None:
                continue
            self.note(f"{user_id} joins {room_id}")
            if self.chance.random() < 0.2:
                continue
            client = self._add_client(room_id, user_id)
            for _ in range(self.chance.randint(1, 4)):
                await asyncio.sleep(self.chance.uniform(0.1, 4))
                if self.chance.random() < 0.6:
                    client.drop()
            if self.chance.random() < 0.5:
                await self._goes(room_id, user_id)

    async def _goes(self, room_id: str, user_id: str) -> None:
        nodes = self._living()
        kind = Leave if self.chance.random() < 0.7 else Remove
        self.note(f"{user_id} goes ({kind.__name__})")
        await self._try(self.chance.choice(nodes), kind(room_id=room_id, user_id=user_id))

    # -- faults

    async def _break_things(self) -> None:
        while self.is_busy:
            await asyncio.sleep(self.chance.uniform(0.2, 3))
            fault = self.chance.choice(
                (self._kill_node, self._redis_away, self._postgres_away, self._fail_over,
                 self._everybody_drops, self._end_a_room, self._cut_off)
            )  # fmt: skip
            self.note(fault.__name__)
            await fault()

    async def _kill_node(self) -> None:
        living = self._living()
        if len(living) > 1:
            victim = self.chance.choice(living)
            await victim.die()
            begin(self._start_node().start())

    async def _cut_off(self) -> None:
        """One node alone does not reach the database."""
        begin(self._cut_for_a_while(self.chance.choice(self._living())))

    async def _cut_for_a_while(self, node: SimulatedNode) -> None:
        node.road.is_cut = node.was_cut_off = True
        await asyncio.sleep(self.chance.uniform(0.5, LONGEST_CUT))
        node.road.is_cut = False

    async def _redis_away(self) -> None:
        for node in self.nodes:
            node.bus_is_up = False
            node.hub.poll_now()
        await asyncio.sleep(self.chance.uniform(0.2, 3))
        for node in self.nodes:
            node.bus_is_up = True
            node.hub.poll_now()

    async def _postgres_away(self) -> None:
        self.database.is_away = True
        await asyncio.sleep(self.chance.uniform(0.1, 3))
        self.database.is_away = False

    async def _fail_over(self) -> None:
        self.database.is_away = True
        await asyncio.sleep(self.chance.uniform(0, 1))
        self.database.fail_over(self.chance.choice((0, 1, 2, 8)))
        self.database.is_away = False

    async def _everybody_drops(self) -> None:
        for client in self.clients:
            client.drop()

    async def _end_a_room(self) -> None:
        if self.chance.random() < 0.3:
            room_id = self.chance.choice(list(self.database.rooms))
            await self._try(self.chance.choice(self._living()), End(room_id=room_id, by="host"))

    def _mend(self) -> None:
        self.database.is_away = False
        self.loses = 0.0

    # -- the verdict

    def _verdict(self) -> list[str]:
        """What is not as it must be in the end."""
        broken: list[str] = []
        self.history.events = self.history.deliveries = 0
        for client in self.clients:
            broken += client.broken
            self.history.deliveries += len(client.events)
        living = {node.lease.node_epoch for node in self._living()}
        here = set[str]().union(*(node.claimed() for node in self._living()))
        for room_id, stored in self.database.rooms.items():
            self.history.events += len(stored.log)
            dead = [user for user, owner in stored.rows.values() if owner not in living]
            broken += [f"{room_id}: {user} is connected to a dead node" for user in dead]
            gone = [session for session in stored.rows if session not in here]
            broken += [f"{room_id}: a row without a connection: {session}" for session in gone]
            broken += [f"{room_id}: {what}" for what in self._judge_room(room_id, stored)]
        return broken

    def _judge_room(self, room_id: str, stored: SimulatedRoom) -> list[str]:
        log = stored.log
        found = [f"seq {e.seq} at place {n}" for n, e in enumerate(log, 1) if e.seq != n]
        found += hasty_departures(log)
        if self.database.epoch == "e1":  # else rows of connections went with the old history
            for client in self.clients:
                if client.room_id == room_id:
                    found += absences_in_spite_of_a_connection(log, client)
        roster = replayed(log)
        for client in self.clients:
            if client.room_id == room_id and client.stopped_by is None:
                found += self._judge_client(client, log)
        for user_id, person in roster.participants.items():
            online = person["connection"] == "online"
            has_row = any(user == user_id for user, _ in stored.rows.values())
            if online != has_row:
                found.append(f"{user_id} is {person['connection']}, has a row: {has_row}")
            if person["connection"] == "away":
                found.append(f"{user_id} is away for longer than the grace")
        return found

    def _judge_client(self, client: SimulatedClient, log: list[Event]) -> list[str]:
        """It is connected, stands at the log's end, and was told just that log."""
        who, connection = client.user_id, client.connection
        if connection is None or not connection.is_open or not client.is_welcomed:
            return [f"{who} is stuck"]
        if client.seq != len(log):
            return [f"{who} stands at {client.seq}, the log at {len(log)}"]
        told = [frame["seq"] for frame in client.events]
        found = []
        for frame in client.events:
            if frame != log[frame["seq"] - 1].body():
                found.append(f"{who} was told {frame}, the log has {log[frame['seq'] - 1].body()}")
        if told != list(range(client.snapshot_seq + 1, len(log) + 1)):
            found.append(f"{who} was told {told} after {client.snapshot_seq}")
        before = replayed(log[: client.snapshot_seq])
        if client.snapshot is not None and client.snapshot != before.snapshot():
            found.append(f"{who}'s snapshot of {client.snapshot_seq} is not its log")
        if client.epoch != self.database.epoch:
            found.append(f"{who} believes in epoch {client.epoch}, it is {self.database.epoch}")
        return found


def hasty_departures(log: Sequence[Event]) -> list[str]:
    """Whoever is said not to have returned was away, and its deadline had passed."""
    deadline: dict[str, str] = {}
    found = []
    for event in log:
        user = event.data.get("participant", {}).get("userId", "")
        if event.type == "participant_away":
            deadline[user] = event.data["leaveAt"]
        elif event.type != "participant_left":
            deadline.pop(user, None)
        elif event.data["reason"] == "disconnected" and not deadline.get(user, "~") <= event.at:
            found.append(f"{user} left at seq {event.seq}, its deadline: {deadline.get(user)}")
    return found


def absences_in_spite_of_a_connection(log: Sequence[Event], client: SimulatedClient) -> list[str]:
    """Nobody is away whose connection, on a node that lives, had long stood and goes on to."""
    found = []
    for event in log:
        user = event.data.get("participant", {}).get("userId")
        if event.type != "participant_away" or user != client.user_id:
            continue
        at = (datetime.fromisoformat(event.at) - START).total_seconds()
        for stay in client.stays:
            stands = stay.welcomed < at - 0.1 and (stay.ended is None or stay.ended > at + 0.5)
            if stands and stay.node.is_up and not stay.node.was_cut_off:
                found.append(f"{user} is away at seq {event.seq} in spite of a connection")
    return found


@contextmanager
def quietly() -> Iterator[None]:
    """What the cores log about faults that were meant is not of interest."""
    before = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(wrapper_class=before)


def history_of(seed: int) -> WorldHistory:
    """The history of a seed, the same at every run."""

    async def story() -> WorldHistory:
        patch.setattr(time, "monotonic", asyncio.get_running_loop().time)
        random.seed(seed)
        world = World(seed)
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: world.history.broken.append(
                f"{context['message']}: {context.get('exception')!r}"
            )
        )
        return await world.live()

    with pytest.MonkeyPatch.context() as patch:
        # Rooms are small here: every other seed has them told as large ones are.
        patch.setattr(broadcast, "SMALL", broadcast.SMALL if seed % 2 else -1)
        return virtual_time.run(story())

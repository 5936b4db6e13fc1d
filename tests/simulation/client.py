"""A client as the contract asks of it. It checks every frame, and keeps what it was told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coordinator.domain.close_codes import CloseCode
from tests.simulation.node import SimulatedConnection, SimulatedNode
from tests.simulation.virtual_time import begin

SOON = (0.02, 1.5)
ABOUT_THE_GRACE = (3.0, 5.5)
STOPS = {CloseCode.LEFT, CloseCode.REMOVED, CloseCode.ENDED, CloseCode.NOT_ALLOWED}


@dataclass(slots=True)
class SimulatedStay:
    """One connection from its welcome to its end, in the loop's time."""

    node: SimulatedNode
    welcomed: float
    ended: float | None = None


class SimulatedClient:
    """One person in one room, connected as long as it can be.

    Attributes:
        seq: the last event that it knows; None before the first welcome.
        events: what it was told since its last snapshot (`snapshot`, of `snapshot_seq`).
        stays: its connections.
        broken: promises that were not kept towards it.
    """

    def __init__(
        self, room_id: str, user_id: str, nodes: Callable[[], list[SimulatedNode]],
        chance: random.Random,
    ) -> None:  # fmt: skip
        self.room_id = room_id
        self.user_id = user_id
        self.nodes = nodes
        self.chance = chance
        self.seq: int | None = None
        self.epoch = ""
        self.snapshot: dict[str, Any] | None = None
        self.snapshot_seq = 0
        self.events: list[dict[str, Any]] = []
        self.stays: list[SimulatedStay] = []
        self.broken: list[str] = []
        self.stopped_by: int | None = None
        self.connection: SimulatedConnection | None = None
        self.is_welcomed = False
        self._asked: int | None = None
        self._sessions = 0
        self._bye = False
        self._lost = asyncio.Event()

    async def run(self) -> None:
        """Connects, and again, until something tells it to stop."""
        while self.stopped_by is None:
            nodes = self.nodes()
            if nodes:
                self._open(self.chance.choice(nodes))
                await self._lost.wait()
            stays_away = self.chance.random() < 0.2
            await asyncio.sleep(self.chance.uniform(*(ABOUT_THE_GRACE if stays_away else SOON)))

    def _open(self, node: SimulatedNode) -> None:
        self._sessions += 1
        self._lost.clear()
        self.is_welcomed = self._bye = False
        session = f"{self.room_id}:{self.user_id}:{self._sessions}"
        connection: SimulatedConnection
        connection = SimulatedConnection(
            node, self.room_id, self.user_id, session, lambda frame: self._hear(connection, frame)
        )
        self.connection = connection
        since, epoch = self.seq, self.epoch or None
        if since is not None and self.chance.random() < 0.15:
            since = None
        self._asked = since
        begin(node.connect(connection, since=since, epoch=epoch))
        connection.on_end = lambda: self._notice_the_end(connection)

    def _notice_the_end(self, connection: SimulatedConnection) -> None:
        """The network tells it when what was under way has arrived."""
        if connection is self.connection:
            self._end_stay()
        asyncio.get_running_loop().call_later(0.05, self._lose, connection)

    def _lose(self, connection: SimulatedConnection) -> None:
        if connection is self.connection:
            self._lost.set()

    def drop(self) -> None:
        """Its network breaks: what is under way is lost, and the node finds out by and by."""
        connection, self.connection = self.connection, None
        if connection is not None:
            asyncio.get_running_loop().call_later(self.chance.uniform(0, 2.5), connection.end)
        self._end_stay()
        self._lost.set()

    def _end_stay(self) -> None:
        if self.stays and self.stays[-1].ended is None:
            self.stays[-1].ended = asyncio.get_running_loop().time()

    # -- what it is told

    def _hear(self, connection: SimulatedConnection, frame: dict[str, Any]) -> None:
        if connection is not self.connection:
            return  # of a connection that it has given up
        if self._bye:
            self._complain(f"a {frame['type']} after bye")
        match frame["type"]:
            case "welcome":
                self._hear_welcome(frame)
            case "bye":
                self._bye = True
                if frame["code"] in STOPS:
                    self.stopped_by = frame["code"]
            case "ping":
                if frame["seq"] != self.seq:
                    self._complain(f"a ping tells seq {frame['seq']} at seq {self.seq}")
                self.epoch = frame["epoch"]
            case _:
                self._hear_event(frame)

    def _hear_welcome(self, frame: dict[str, Any]) -> None:
        if not self.is_welcomed:
            assert self.connection is not None
            now = asyncio.get_running_loop().time()
            self.stays.append(SimulatedStay(self.connection.node, now))
        self.is_welcomed = True
        self.epoch = frame["epoch"]
        if frame["resumed"]:
            if frame["seq"] != self._asked:
                self._complain(f"resumed at {frame['seq']}, asked for {self._asked}")
            return
        self.seq = self.snapshot_seq = frame["seq"]
        self.snapshot = {name: frame[name] for name in ("room", "participants")}
        self.events = []

    def _hear_event(self, frame: dict[str, Any]) -> None:
        if not self.is_welcomed or self.seq is None:
            self._complain(f"event {frame['seq']} before a welcome")
        elif frame["seq"] != self.seq + 1:
            self._complain(f"event {frame['seq']} at seq {self.seq}")
        self.seq = frame["seq"]
        self.events.append(frame)

    def _complain(self, what: str) -> None:
        now = asyncio.get_running_loop().time()
        self.broken.append(f"{now:.3f} {self.room_id} {self.user_id}: {what}")

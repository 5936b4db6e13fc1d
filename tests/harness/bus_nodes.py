"""Nodes' ends of the bus in this process, on one Redis and one database, and what they hear."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.events import ROOM, Event, FeedKey
from coordinator.live.judge import Judge
from coordinator.live.known_nodes import KnownNodes
from coordinator.live.lease import Lease
from coordinator.live.pubsub import Bus
from coordinator.live.registry import ConnectionRegistry
from coordinator.redis_connection import RedisConnection, command, connect
from coordinator.redis_url import parse_redis_url
from coordinator.store.database import Database
from coordinator.store.nodes import Nodes
from tests.harness.node import JWT_SECRET
from tests.harness.patience import patient
from tests.harness.people import new_room_id


class Ear:
    """What a node's hub and registry hear."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed: list[str] = []
        self.polls = 0
        self.open: list[FeedKey] = []
        self.heads: dict[FeedKey, int] = {}
        self.looks = 0

    def offer(self, events: Sequence[Event], committed: float) -> None:
        self.events += events

    def poll_now(self) -> None:
        self.polls += 1

    def open_keys(self) -> Iterable[FeedKey]:
        return self.open

    def close_sessions(self, session_ids: Sequence[str], code: CloseCode) -> None:
        self.closed += session_ids

    def hear(self, heads: Iterable[tuple[FeedKey, int]]) -> None:
        self.heads.update(heads)

    def look_now(self) -> None:
        self.looks += 1


class BusNode:
    """A node's bus, as `NodeProcess` builds it."""

    def __init__(
        self, database: Database, redis_url: str, *, prefix: str, secrets: Sequence[str],
        channels: int = 1,
    ) -> None:  # fmt: skip
        self.lease = Lease(Nodes(database), ConnectionRegistry(), name="test")
        self.judge = Judge()
        self.known = KnownNodes(Nodes(database))
        self.ear = Ear()
        self.bus = Bus(
            redis_url, prefix=prefix, jwt_secrets=secrets, lease=self.lease, judge=self.judge,
            known=self.known, epochs=database.epochs,
        )  # fmt: skip
        self.bus.spread_over(channels)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.lease.enter()
        self._tasks = [
            asyncio.create_task(self.lease.run()),
            asyncio.create_task(self.bus.run(self.ear, self.ear, self.ear)),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.lease.leave()

    async def until(self, holds: Callable[[], bool], seconds: float = 8.0) -> None:
        async with asyncio.timeout(patient(seconds)):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def knows(self, other: BusNode) -> None:
        await self.until(lambda: self.known.knows(other.lease.node_epoch))


class Town:
    """Nodes on one Redis and one database.

    Who holds a lease in the database decides on which channels each of them tells and hears, and in
    which version's words: it is theirs alone.
    """

    def __init__(self, database: Database, redis_url: str) -> None:
        self.database = database
        self.redis_url = redis_url
        self.prefix = f"test:{new_room_id()}"
        self.sites: list[BusNode] = []
        self._taps: list[RedisConnection] = []

    async def node(self, *, secrets: Sequence[str] = (JWT_SECRET,), channels: int = 1) -> BusNode:
        site = BusNode(
            self.database, self.redis_url, prefix=self.prefix, secrets=secrets, channels=channels
        )
        self.sites.append(site)
        await site.start()
        await site.until(lambda: any(link.is_connected for link in site.bus.links.all()))
        return site

    async def older_node(self) -> str:
        """The node epoch of one of version 1.0 that has just taken its lease, and says nothing."""
        node_epoch = "older-node"
        await self.database.execute(
            "INSERT INTO nodes (boot, name, lease_until, held_since)"
            " VALUES ($1, 'v1', clock_timestamp() + interval '1 h', clock_timestamp())",
            node_epoch,
        )
        return node_epoch

    async def tap(self, channel: bytes) -> list[bytes]:
        """What is said on a channel, as anybody hears it who reaches this Redis."""
        heard: list[bytes] = []
        connection = await self._connection(lambda _kind, _channel, data: heard.append(data))
        await connection.subscribe(b"SUBSCRIBE", [channel])
        return heard

    async def says(self, channel: bytes, data: bytes) -> None:
        """Anybody says something."""
        connection = await self._connection(lambda *_: None)
        connection.send(command(b"PUBLISH", channel, data))
        await connection.ask("PING")

    async def _connection(self, on_push: Callable[[bytes, bytes, bytes], None]) -> RedisConnection:
        target = parse_redis_url(self.redis_url)
        connection = await connect(target, (target.addresses or (None,))[0], on_push)
        self._taps.append(connection)
        return connection

    async def close(self) -> None:
        for tap in self._taps:
            tap.abort("the test is over")
        for site in self.sites:
            await site.stop()


def event(seq: int = 3, room: str = "room_1") -> Event:
    data = {"participant": {"userId": "guest_1", "userName": "李明"}}
    return Event(FeedKey(ROOM, room), seq, "participant_joined", "2026-01-01T00:00:00.000Z", data,
                 "epoch")  # fmt: skip

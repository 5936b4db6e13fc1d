"""The bus in this process: what is heard, from whom, and what is not believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import timedelta

import pytest
import pytest_asyncio

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.events import ROOM, Event, FeedKey
from coordinator.live import legacy_bus
from coordinator.live.bus_messages import Batch, Close, Ignored, ReplayGuard, Signer
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
from tests.harness.people import new_room_id

OTHER_SECRET = "another-secret-another-secret-another-secret"
CHANNEL = b"c"
A_SECOND = timedelta(seconds=1)


def close(counter: int, epoch: str = "e", node_epoch: str = "n") -> Close:
    return Close(epoch, node_epoch, counter, 4006, ["session"])


# -- messages --------------------------------------------------------------------------------------


def test_what_one_node_signs_another_with_the_same_secret_reads() -> None:
    one, other = Signer([JWT_SECRET]), Signer([JWT_SECRET])

    assert other.open(CHANNEL, one.seal(CHANNEL, close(1))) == close(1)


@pytest.mark.parametrize(
    ("signs", "reads"),
    [
        ([JWT_SECRET], [JWT_SECRET, OTHER_SECRET]),
        ([JWT_SECRET, OTHER_SECRET], [OTHER_SECRET, JWT_SECRET]),
        ([OTHER_SECRET, JWT_SECRET], [OTHER_SECRET]),
    ],
)
def test_secrets_rotate_one_step_at_a_time(signs: list[str], reads: list[str]) -> None:
    assert Signer(reads).open(CHANNEL, Signer(signs).seal(CHANNEL, close(1))) == close(1)


def test_what_was_signed_with_another_secret_or_for_another_channel_is_ignored() -> None:
    sealed = Signer([OTHER_SECRET]).seal(CHANNEL, close(1))
    with pytest.raises(Ignored):
        Signer([JWT_SECRET]).open(CHANNEL, sealed)
    with pytest.raises(Ignored):
        Signer([OTHER_SECRET]).open(b"another", sealed)


@pytest.mark.parametrize("data", [b"", b"x" * 15, b"x" * 16, b"x" * 400, b'["c","n",4006,["s"]]'])
def test_noise_is_ignored(data: bytes) -> None:
    with pytest.raises(Ignored):
        Signer([JWT_SECRET]).open(CHANNEL, data)


def test_nothing_is_heard_twice() -> None:
    guard = ReplayGuard()
    guard.check(CHANNEL, close(5))
    for counter in (5, 4):
        with pytest.raises(Ignored):
            guard.check(CHANNEL, close(counter))
    guard.check(CHANNEL, close(6))
    guard.check(b"another channel", close(5))
    guard.check(CHANNEL, close(1, node_epoch="another node"))


# -- nodes -----------------------------------------------------------------------------------------


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
    """A node's bus, as `Node` builds it."""

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
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.lease.enter()
        self._task = asyncio.create_task(self.bus.run(self.ear, self.ear, self.ear))

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.lease.leave()

    async def until(self, holds: Callable[[], bool], seconds: float = 8.0) -> None:
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def knows(self, other: BusNode) -> None:
        await self.until(lambda: self.known.knows(other.lease.node_epoch))


class Town:
    """Nodes on one Redis and one database."""

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


@pytest_asyncio.fixture
async def town(database: Database, redis_url: str) -> AsyncIterator[Town]:
    made = Town(database, redis_url)
    yield made
    await made.close()


def event(seq: int = 3, room: str = "room_1") -> Event:
    data = {"participant": {"userId": "guest_1", "userName": "李明"}}
    return Event(FeedKey(ROOM, room), seq, "participant_joined", "2026-01-01T00:00:00.000Z", data,
                 "epoch")  # fmt: skip


async def test_events_and_closes_reach_the_other_node_and_not_the_own(town: Town) -> None:
    one, other = await town.node(), await town.node()
    await other.knows(one)

    one.bus.publish([event(3), event(4)], 1.0)
    one.bus.close_sessions(["session"], CloseCode.REPLACED)
    await other.until(lambda: len(other.ear.events) == 2 and other.ear.closed == ["session"])

    assert other.ear.events == [event(3), event(4)]
    assert one.ear.events == []
    assert one.ear.closed == []


async def test_who_tells_webhooks_hears_the_heads_of_events(town: Town) -> None:
    one, other = await town.node(), await town.node()
    await other.knows(one)

    one.bus.publish([event(3), event(4)], 1.0)

    await other.until(lambda: other.ear.heads == {FeedKey(ROOM, "room_1"): 4})
    assert not one.bus.needs_hints


async def test_where_channels_are_many_hints_tell_the_heads_to_those_who_ask(town: Town) -> None:
    one, other, third = [await town.node(channels=512) for _ in range(3)]
    await other.knows(one)
    await third.knows(one)
    assert one.bus.needs_hints
    await other.bus.hear_hints()

    one.bus.hint([(FeedKey(ROOM, "room_1"), 7)])
    one.bus.hint([])

    await other.until(lambda: other.ear.looks == 1)
    assert other.ear.heads == {FeedKey(ROOM, "room_1"): 7}
    assert third.ear.heads == {}


async def test_redis_is_up_where_the_judge_is_heard_and_nobody_is_deaf(town: Town) -> None:
    one, other = await town.node(), await town.node()
    await other.knows(one)
    one.judge.is_me, one.judge.is_somebody_deaf = True, False

    for site in (one, other):
        await site.until(lambda site=site: not site.bus.is_down())  # type: ignore[misc]
    one.judge.is_somebody_deaf = True
    for site in (one, other):
        await site.until(site.bus.is_down, 2)


async def test_who_does_not_hear_the_judge_says_so_with_its_lease(town: Town) -> None:
    one = await town.node()
    renewing = asyncio.create_task(one.lease.run())
    try:
        for _ in range(100):
            if await Nodes(town.database).is_somebody_deaf(A_SECOND):
                break
            await asyncio.sleep(0.1)
        assert await Nodes(town.database).is_somebody_deaf(A_SECOND)
        await one.until(one.bus.is_down, 5)
    finally:
        renewing.cancel()


async def test_a_node_without_the_secret_is_not_heard(town: Town) -> None:
    stranger, other = await town.node(secrets=[OTHER_SECRET]), await town.node()

    stranger.bus.publish([event()], 1.0)
    await other.until(lambda: "signature" in other.bus._ignored)

    assert other.ear.events == []


async def test_what_is_said_again_is_not_heard_again(town: Town) -> None:
    one, other = await town.node(), await town.node()
    await other.knows(one)
    control = f"{town.prefix}:control".encode()
    heard = await town.tap(control)
    one.bus.close_sessions(["session"], CloseCode.REPLACED)
    await other.until(lambda: other.ear.closed == ["session"])

    await town.says(control, heard[0])
    await other.until(lambda: "replayed" in other.bus._ignored)

    assert other.ear.closed == ["session"]


async def test_a_clone_on_the_same_redis_is_not_heard(town: Town) -> None:
    """Another epoch of the database; or the same, by a node without a lease in this one."""
    one = await town.node()
    channel = f"{town.prefix}:feeds:{{0}}".encode()
    clone = Signer([JWT_SECRET])
    epoch = town.database.epochs.current
    told = legacy_bus.wire(event())

    await town.says(channel, clone.seal(channel, Batch("other", one.lease.node_epoch + "x", 1, 1.0,
                                                       [told])))  # fmt: skip
    await one.until(lambda: "epoch" in one.bus._ignored)
    await town.says(channel, clone.seal(channel, Batch(epoch, "a copy's node", 1, 1.0, [told])))
    await one.until(lambda: "unknown node" in one.bus._ignored)

    assert one.ear.events == []


async def test_a_node_of_the_version_before_makes_this_one_look_into_the_log(town: Town) -> None:
    one = await town.node()
    older = "older-node"
    await town.database.execute(
        "INSERT INTO nodes (boot, name, lease_until, held_since)"
        " VALUES ($1, 'v1', clock_timestamp() + interval '8 s', clock_timestamp())",
        older,
    )
    await one.until(lambda: one.known.knows(older))
    channel = legacy_bus.channel(town.prefix)
    polls = one.ear.polls
    heard = await town.tap(channel)

    await town.says(channel, legacy_bus.batch(older, 1.0, [legacy_bus.wire(event())]))
    await one.until(lambda: one.ear.polls > polls)
    assert one.ear.events == []

    one.bus.publish([event()], 1.0)  # and that one hears this one as it always did
    await one.until(lambda: len(heard) == 2)
    assert heard[1].startswith(b'["e","' + one.lease.node_epoch.encode())
    await Nodes(town.database).leave(older)


async def test_unsigned_messages_of_nobody_change_nothing(town: Town) -> None:
    one = await town.node()
    await one.until(lambda: not one.known.older)
    looked_at = one.bus._looked_at

    for _ in range(3):
        await town.says(legacy_bus.channel(town.prefix), b'["e","nobody",1,[]]')
    await one.until(lambda: "unsigned" in one.bus._ignored)

    assert one.bus._looked_at == looked_at, "one of them made it look into the log"
    assert one.ear.events == []


async def test_a_node_hears_the_channels_of_its_open_feeds_alone(town: Town) -> None:
    one, other = await town.node(channels=512), await town.node(channels=512)
    await other.knows(one)
    mine = FeedKey(ROOM, "room_mine")
    await other.bus.listen(mine)

    foreign = [event(1, f"room_{number}") for number in range(50)]
    one.bus.publish([*foreign, event(7, "room_mine")], 1.0)
    await other.until(lambda: any(e.feed == mine for e in other.ear.events))

    assert len(other.ear.events) < 5
    assert other.ear.events[-1] == event(7, "room_mine")


async def test_nodes_that_spread_feeds_otherwise_hear_each_other(town: Town) -> None:
    """A deployment goes from one channel to many, one node after the other."""
    mine = FeedKey(ROOM, "room_mine")
    one = await town.node(channels=1)
    one.ear.open = [mine]
    await one.bus.listen(mine)

    other = await town.node(channels=4096)
    other.ear.open = [mine]
    await other.bus.listen(mine)
    await one.knows(other)
    await one.until(lambda: one.bus._channels.spreads == (1, 4096))
    one.bus.publish([event(1, "room_mine")], 1.0)
    await other.until(lambda: bool(other.ear.events))
    other.bus.publish([event(2, "room_mine")], 1.0)
    await one.until(lambda: bool(one.ear.events))

    # As the version before does, which knows its own way alone.
    seen = len(other.ear.events)
    one.bus._channels.spread(1, set())
    one.bus.publish([event(3, "room_mine")], 1.0)
    await other.until(lambda: len(other.ear.events) > seen)


async def test_a_node_of_another_spread_makes_open_feeds_heard_there(town: Town) -> None:
    mine = FeedKey(ROOM, "room_mine")
    one = await town.node(channels=64)
    one.ear.open = [mine]
    await one.bus.listen(mine)

    other = await town.node(channels=4096)
    await one.knows(other)
    await one.until(lambda: one.bus.links.all()[0]._confirmed >= one.bus._channels.of(mine))

    assert one.bus._channels.spreads == (64, 4096)


async def test_a_bad_message_costs_one_message(town: Town) -> None:
    one, other = await town.node(), await town.node()
    await other.knows(one)

    def fails(events: Sequence[Event], committed: float) -> None:
        raise RuntimeError("a bug")

    heard, other.ear.offer = other.ear.offer, fails  # type: ignore[method-assign]
    one.bus.publish([event(3)], 1.0)
    await asyncio.sleep(0.2)
    other.ear.offer = heard  # type: ignore[method-assign]
    one.bus.publish([event(4)], 1.0)
    await other.until(lambda: bool(other.ear.events))

    assert other.ear.events == [event(4)]


async def test_feeds_that_open_while_the_link_is_made_are_heard(town: Town) -> None:
    site = BusNode(
        town.database, town.redis_url, prefix=town.prefix, secrets=[JWT_SECRET], channels=4096
    )
    town.sites.append(site)
    await site.start()
    for number in range(300):
        await site.bus.listen(FeedKey(ROOM, f"room_{number}"))
        await asyncio.sleep(0)
    await site.until(lambda: any(link.is_connected for link in site.bus.links.all()))
    await asyncio.sleep(0.1)

    link = site.bus.links.all()[0]
    assert link.wanted
    assert link.wanted <= link._confirmed

"""Webhooks while something dies: nodes between sending and noting, Redis, Postgres, the receiver.

What must hold: every event of the log is taken at least once, in order within its room, and no
event that is not in the log is sent; what is sent twice is bounded by the kills.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from tests.harness.cluster import Cluster, ClusterNode
from tests.harness.observing import samples
from tests.harness.patience import patient
from tests.harness.people import bearer, new_room_id
from tests.harness.receiver import HANG, SETTINGS, Receiver

pytestmark = pytest.mark.timeout(180)

MOST_REPEATED = 250
"""What one kill may have sent twice: what was under way (100), and what was not noted yet."""


class Scene:
    """A cluster, its receiver, and hosts who fill rooms."""

    def __init__(self, cluster: Cluster, receiver: Receiver) -> None:
        self.cluster = cluster
        self.receiver = receiver
        self.http = httpx.AsyncClient(trust_env=False, verify=False, timeout=patient(20))
        self.webhook_id = ""
        self.lengths: dict[str, int] = {}

    @property
    def node(self) -> ClusterNode:
        return next(node for node in self.cluster.nodes if node.is_running)

    async def call(self, method: str, path: str, body: Any = None, *, admin: bool = True) -> Any:
        token = self.cluster.admin_token if admin else self.cluster.token
        response = await self.http.request(
            method, f"{self.node.url}{path}", json=body, headers=bearer(token)
        )
        assert response.status_code == 200, response.text
        return response.json()["data"]

    async def adds_webhook(self) -> None:
        body = {"url": self.receiver.url, "name": "crm"}
        self.webhook_id = (await self.call("POST", "/api/webhooks", body))["id"]

    async def creates(self) -> str:
        room = new_room_id()
        body = {"roomId": room, "roomName": "面试", "hostName": "张经理"}
        await self.call("POST", "/api/interview/create-room", body, admin=False)
        self.lengths[room] = 1
        return room

    async def joins(self, room: str, times: int) -> None:
        """So many guests join, one after the other."""
        for _ in range(times):
            body = {"roomId": room, "userName": "李明", "joinKey": secrets.token_hex(16)}
            url = f"{self.node.url}/api/interview/guest/join"
            answer = await self.http.post(url, json=body)
            while answer.status_code == 503:  # a full machine is slow for the writer, too
                answer = await self.http.post(url, json=body)
            assert answer.status_code == 200, answer.text
            self.lengths[room] = max(self.lengths[room], answer.json()["data"]["seq"])

    async def fills(self, rooms: int, events: int) -> None:
        """So many rooms with so many events each, at once."""
        made = await asyncio.gather(*(self.creates() for _ in range(rooms)))
        await asyncio.gather(*(self.joins(room, events - 1) for room in made))

    async def is_whole(self, patience: float = 60.0) -> None:
        """Waits until every event of every room was taken; then judges what was sent."""
        await self.receiver.until(
            lambda: all(self._taken(room) == length for room, length in self.lengths.items()),
            patience,
        )
        for room, length in self.lengths.items():
            seqs = [d.seq for d in self.receiver.of(room)]
            first = list(dict.fromkeys(seqs))
            assert first == list(range(1, length + 1)), f"{room}: {seqs}"
        assert {d.feed for d in self.receiver.taken} == self.lengths.keys()

    def _taken(self, room: str) -> int:
        return len({d.seq for d in self.receiver.of(room)})

    @property
    def repeated(self) -> int:
        return len(self.receiver.taken) - len({d.id for d in self.receiver.taken})

    async def asks_one_that_does_not_send(self) -> None:
        """From now on the calls go to another node than the sender."""
        holder = await self.holder()
        self.cluster.nodes.sort(key=lambda node: node is holder)

    async def holder(self) -> ClusterNode:
        """The node that sends."""
        deadline = time.monotonic() + patient(20)
        while time.monotonic() < deadline:
            for node in self.cluster.nodes:
                metrics = (await self.http.get(f"{node.url}/metrics")).text
                if 'coordinator_webhook_lag_seconds{endpoint="crm"}' in metrics:
                    return node
            await asyncio.sleep(0.1)
        raise AssertionError("nobody sends")

    async def first_tries(self, *, within: float) -> tuple[float, float]:
        """How many events the sender has tried to send, and how many of them so many seconds after
        their commit at the latest, by its own clock; `within` is a bucket of its metric.
        """
        name, label = "coordinator_webhook_seconds", 'endpoint="crm"'
        found = samples((await self.http.get(f"{(await self.holder()).url}/metrics")).text)
        bucket = f'{name}_bucket{{{label},le="{float(within)}"}}'
        return found[f"{name}_count{{{label}}}"], found[bucket]


@pytest_asyncio.fixture(scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster(nodes=2, grace=30, **SETTINGS) as started:
        yield started


@pytest_asyncio.fixture
async def scene(cluster: Cluster) -> AsyncIterator[Scene]:
    """A webhook of this test's own, on a cluster that each test leaves well."""
    async with Receiver() as receiver:
        opened = Scene(cluster, receiver)
        await opened.adds_webhook()
        yield opened
        await opened.call("DELETE", f"/api/webhooks/{opened.webhook_id}")
        await opened.http.aclose()


async def test_a_sender_killed_again_and_again_loses_nothing(scene: Scene) -> None:
    filling = asyncio.create_task(scene.fills(rooms=20, events=40))
    await scene.receiver.until(lambda: len(scene.receiver.taken) > 50, 30)
    await filling
    kills = 0
    for _ in range(2):
        holder = await scene.holder()
        await scene.fills(rooms=5, events=20)
        holder.kill()
        kills += 1
        scene.cluster.start_node(holder)
        await scene.cluster.ready(holder)

    await scene.is_whole(90)

    assert scene.repeated <= kills * MOST_REPEATED


async def test_what_another_node_commits_is_hinted_at(scene: Scene) -> None:
    await scene.creates()
    await scene.is_whole()
    await scene.asks_one_that_does_not_send()
    room = await scene.creates()
    await scene.is_whole()

    sent, quick = await scene.first_tries(within=0.5)
    for seq in range(2, 12):
        await scene.joins(room, 1)
        await scene.receiver.has(room, seq)

    sent_now, quick_now = await scene.first_tries(within=0.5)
    assert sent_now - sent == 10
    assert quick_now - quick > 5  # scans alone take two seconds


async def test_with_redis_dead_the_scans_find_what_happened(scene: Scene) -> None:
    room = await scene.creates()
    await scene.is_whole()
    await scene.asks_one_that_does_not_send()
    for node in scene.cluster.nodes:
        node.redis.cut()

    await scene.joins(room, 3)
    await scene.fills(rooms=3, events=3)

    await scene.is_whole(30)
    assert scene.repeated == 0
    for node in scene.cluster.nodes:
        node.redis.mend()
        await scene.cluster.ready(node)


async def test_postgres_killed_and_back_every_event_is_told(scene: Scene) -> None:
    await scene.fills(rooms=10, events=5)
    await scene.receiver.until(lambda: len(scene.receiver.taken) > 5)

    await asyncio.to_thread(scene.cluster.postgres.kill)
    await asyncio.sleep(1)
    await asyncio.to_thread(scene.cluster.postgres.start)
    for node in scene.cluster.nodes:
        await scene.cluster.ready(node)
    await scene.fills(rooms=5, events=5)

    await scene.is_whole(60)
    assert scene.repeated <= MOST_REPEATED


async def test_a_receiver_that_was_away_is_told_everything_when_it_is_back(scene: Scene) -> None:
    await scene.receiver.__aexit__()
    await scene.fills(rooms=5, events=5)
    await asyncio.sleep(1)

    async with scene.receiver:
        await scene.is_whole(60)
    assert scene.repeated == 0


async def test_a_backlog_of_a_disabled_webhook_is_told_when_it_is_enabled(scene: Scene) -> None:
    await scene.call("PATCH", f"/api/webhooks/{scene.webhook_id}", {"enabled": False})
    await scene.fills(rooms=50, events=20)
    assert scene.receiver.taken == []
    lag = (await scene.call("GET", f"/api/webhooks/{scene.webhook_id}"))["lagSeconds"]
    assert lag > 0

    await scene.call("PATCH", f"/api/webhooks/{scene.webhook_id}", {"enabled": True})

    await scene.is_whole(60)
    assert scene.repeated == 0
    assert scene.receiver.most_under_way <= 100


async def test_a_transaction_that_commits_late_is_not_passed_over(scene: Scene) -> None:
    held, other = await scene.creates(), await scene.creates()
    await scene.is_whole()
    postgres = await asyncpg.connect(
        f"postgresql://postgres@127.0.0.1:{scene.cluster.postgres.port}/coordinator"
    )
    try:
        late = postgres.transaction()
        await late.start()
        await postgres.execute(
            "UPDATE interview_rooms SET last_seq = 2, last_at = clock_timestamp()"
            " WHERE room_id = $1",
            held,
        )
        await postgres.execute(
            "INSERT INTO room_events (room_id, seq, type, at, payload, epoch)"
            " SELECT $1, 2, 'participant_joined', clock_timestamp(), '{}', epoch FROM deployment",
            held,
        )
        await scene.joins(other, 10)
        await scene.receiver.has(other, *range(1, 12))
        await asyncio.sleep(6)  # scans and hints have gone by
        await late.commit()
    finally:
        await postgres.close()
    scene.lengths[held] = 2

    await scene.is_whole(30)
    assert scene.repeated == 0


async def test_a_frozen_sender_that_wakes_writes_nothing_over_its_successor(scene: Scene) -> None:
    room = await scene.creates()
    await scene.is_whole()
    await scene.asks_one_that_does_not_send()
    holder = await scene.holder()
    holder.signal(signal.SIGSTOP)
    await scene.joins(room, 5)
    await scene.is_whole(40)

    holder.signal(signal.SIGCONT)
    await scene.joins(room, 5)

    await scene.is_whole(40)
    assert scene.repeated <= 2


async def test_in_another_history_a_room_is_told_anew_from_where_it_differs(
    scene: Scene,
) -> None:
    room, whole = await scene.creates(), await scene.creates()
    await scene.joins(room, 4)
    await scene.joins(whole, 1)
    await scene.is_whole()
    before = {d.seq: d.id for d in scene.receiver.of(room)}
    postgres = await asyncpg.connect(
        f"postgresql://postgres@127.0.0.1:{scene.cluster.postgres.port}/coordinator"
    )
    async with asyncio.timeout(patient(10)):
        position = "SELECT position FROM webhook_feeds WHERE feed_id = $1"
        while await postgres.fetchval(position, room) != 5:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    for node in scene.cluster.nodes:
        node.kill()

    await postgres.execute("DELETE FROM room_events WHERE room_id = $1 AND seq > 2", room)
    await postgres.execute("UPDATE interview_rooms SET last_seq = 2 WHERE room_id = $1", room)
    await postgres.execute("UPDATE deployment SET epoch = 'restored'")
    await postgres.close()
    for node in scene.cluster.nodes:
        scene.cluster.start_node(node)
    for node in scene.cluster.nodes:
        await scene.cluster.ready(node)
    await scene.joins(room, 6)
    await scene.receiver.has(room, 8, patience=40)

    told = [(d.seq, d.id) for d in scene.receiver.of(room)]
    assert [seq for seq, _ in told] == [1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8]
    assert not {seq_and_id[1] for seq_and_id in told[5:]} & set(before.values())
    assert {d.seq for d in scene.receiver.of(whole)} == {1, 2}


async def test_a_node_that_drains_hands_over_and_nothing_is_told_twice(scene: Scene) -> None:
    room = await scene.creates()
    await scene.is_whole()
    holder = await scene.holder()
    await scene.asks_one_that_does_not_send()

    holder.signal(signal.SIGTERM)
    await scene.joins(room, 30)
    await scene.is_whole(30)
    await asyncio.to_thread(holder.wait, 15)
    scene.cluster.start_node(holder)
    await scene.cluster.ready(holder)

    assert scene.repeated == 0


async def test_100_hanging_rooms_do_not_hold_up_the_others(scene: Scene) -> None:
    well = await scene.creates()
    await scene.is_whole()
    hanging = [await scene.creates() for _ in range(110)]
    await scene.is_whole()
    scene.receiver.plan = lambda d: HANG if d.feed in hanging else 200

    await asyncio.gather(*(scene.joins(room, 1) for room in hanging))
    await scene.receiver.until(lambda: scene.receiver.under_way >= 90)
    await scene.joins(well, 1)
    await scene.receiver.has(well, 2, patience=30)

    told = next(one for one in scene.receiver.of(well) if one.seq == 2)
    committed = datetime.fromisoformat(told.body["timestamp"])
    assert told.sent_at - committed.timestamp() <= 10

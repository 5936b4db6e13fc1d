"""How long it takes until a fault is noticed and repaired: figures, one fault at a time.

`python -m tests.chaos --measure` runs it. Each figure is the time that a person in the room
sees, on a connection to another node where the fault takes one away.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import httpx

from tests.chaos.client import Client, Observations, seconds_of
from tests.harness.cluster import Cluster
from tests.harness.screen import Screen

GRACE = 5.0


class ChaosBench:
    """Two nodes, a room, its host on node 0, and who comes to be hurt."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.rng = random.Random(1)
        self.observed = Observations()
        self.took: dict[str, list[float]] = {}
        self._http = httpx.AsyncClient(trust_env=False, timeout=15)
        self._rooms = iter(range(1000))
        self.room = ""
        self.host: Client | None = None

    async def close(self) -> None:
        await self.leave_room()
        await self._http.aclose()

    def note(self, what: str, seconds: float) -> None:
        self.took.setdefault(what, []).append(seconds)

    async def call(self, node: int, path: str, body: Any = None) -> Any:
        url = f"{self.cluster.nodes[node].url}/api/interview{path}"
        headers = {"Authorization": f"Bearer {self.cluster.token}"}
        answer = await self._http.post(url, json=body, headers=headers)
        answer.raise_for_status()
        return answer.json()["data"]

    async def new_room(self) -> Client:
        """A new room; its host watches from node 0."""
        await self.leave_room()
        self.room = f"repair_{next(self._rooms)}"
        body = {"roomId": self.room, "roomName": "repair", "hostName": "host"}
        await self.call(0, "/create-room", body)
        self.host = await self.open(0, "host", self.cluster.token)
        return self.host

    async def leave_room(self) -> None:
        if self.host is not None:
            await self.host.close()

    async def open(self, node: int, user_id: str, token: str) -> Client:
        """A welcomed connection to one node, which does not return by itself."""
        only = _OnlyNode(self.cluster, node)
        client = Client(only, self.observed, self.rng, self.room, user_id, token)
        assert await client.until_welcomed(15), f"nobody was welcomed at node {node}"
        return client

    async def guest(self, node: int) -> Client:
        joined = await self.join(node)
        return await self.open(node, joined["guestId"], joined["guestToken"])

    async def join(self, node: int) -> Any:
        return await self.call(node, "/guest/join", {"roomId": self.room, "userName": "guest"})

    async def sees(self, kind: str, user_id: str, *, within: float) -> float:
        """The wall-clock time at which the host was told of it."""
        assert self.host is not None
        assert self.host.history is not None
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            for frame in self.host.history.events:
                if frame["type"] == kind and frame["participant"]["userId"] == user_id:
                    return time.time()
            await asyncio.sleep(0.002)
        raise TimeoutError(f"the host never saw {kind} of {user_id}")


class _OnlyNode(Cluster):
    """The cluster as a client sees it that always goes to the same node."""

    def __init__(self, cluster: Cluster, node: int) -> None:
        self.nodes = [cluster.nodes[node]]


async def measure(screen: Screen, *, times: int) -> dict[str, tuple[float, float]]:
    """Figure -> (median, worst) in seconds."""
    async with Cluster(nodes=2, grace=GRACE) as cluster:
        bench = ChaosBench(cluster)
        try:
            for number in range(times):
                async with screen.step(f"round {number + 1} of {times}"):
                    await _drop(bench)
                    await _redis_dies(bench)
                    await _redis_hangs(bench)
                    await _node_dies(bench)
        finally:
            await bench.close()
    return {what: (median(took), max(took)) for what, took in bench.took.items()}


async def _drop(bench: ChaosBench) -> None:
    await bench.new_room()
    for orderly in (True, False):
        guest = await bench.guest(1)
        start = time.time()
        guest.drop(3600) if not orderly else await guest.close()
        seen = await bench.sees("participant_away", guest.user_id, within=5)
        bench.note("TCP connection closed -> away seen on another node", seen - start)
        await guest.close()


async def _node_dies(bench: ChaosBench) -> None:
    host = await bench.new_room()
    guest = await bench.guest(1)
    await asyncio.sleep(bench.rng.uniform(0, 2.5))  # anywhere between two renewals
    victim = bench.cluster.nodes[1]
    start = time.time()
    await asyncio.to_thread(victim.kill)
    away = await bench.sees("participant_away", guest.user_id, within=15)
    await guest.close()
    left = await bench.sees("participant_left", guest.user_id, within=15)
    bench.note("kill -9 of a node -> its people away", away - start)
    bench.note(f"kill -9 of a node -> left, with a grace of {GRACE:g} s", left - start)
    assert host.history is not None
    deadline = next(f["leaveAt"] for f in host.history.events if "leaveAt" in f)
    bench.note("deadline of an absent person -> left seen", left - seconds_of(deadline))
    bench.cluster.start_node(victim)
    await bench.cluster.ready(victim)


async def _joins_are_seen(bench: ChaosBench, within: float) -> float:
    """From the call on node 1 to the host on node 0."""
    start = time.time()
    joined = await bench.join(1)
    return await bench.sees("participant_joined", joined["guestId"], within=within) - start


async def _redis_dies(bench: ChaosBench) -> None:
    await bench.new_room()
    start = time.time()
    await asyncio.to_thread(bench.cluster.redis.kill)
    await _joins_are_seen(bench, 5)
    bench.note("Redis killed -> first join seen on another node", time.time() - start)
    for _ in range(3):
        took = await _joins_are_seen(bench, 5)
        bench.note("while Redis is away: join -> seen on another node", took)
    await asyncio.to_thread(bench.cluster.redis.start)
    await _until_normal(bench, "Redis is back -> both nodes use it again")


async def _redis_hangs(bench: ChaosBench) -> None:
    await bench.new_room()
    start = time.time()
    bench.cluster.signal_redis(signal.SIGSTOP)
    await _joins_are_seen(bench, 6)
    bench.note("Redis hangs, half open -> first join seen on another node", time.time() - start)
    await _until(bench, lambda status: status == "degraded", within=6)
    bench.note("Redis hangs, half open -> both nodes have noticed", time.time() - start)
    bench.cluster.signal_redis(signal.SIGCONT)
    await _until_normal(bench, "Redis goes on -> both nodes use it again")


async def _until_normal(bench: ChaosBench, what: str) -> None:
    start = time.time()
    await _until(bench, lambda status: status == "ready", within=10)
    bench.note(what, time.time() - start)
    bench.note("with Redis: join -> seen on another node", await _joins_are_seen(bench, 5))


async def _until(bench: ChaosBench, holds: Callable[[str], bool], *, within: float) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=3) as http, asyncio.timeout(within):
        for node in bench.cluster.nodes:
            while True:
                answer = await http.get(f"{node.url}/health/ready")
                if holds(answer.json()["status"]):
                    break
                await asyncio.sleep(0.01)

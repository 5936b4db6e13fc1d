"""Hosts and guests who come, connect, drop, return and go at random, whatever breaks meanwhile."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import httpx

from tests.chaos.client import REFUSAL_SECONDS, AnsweredJoin, Client, InReach, Observations

_NO_ANSWER = (httpx.HTTPError, AttributeError)
"""The second is what comes out of httpx (by anyio) where a connection dies as it is made."""


class Population:
    """All rooms and people of a run."""

    def __init__(
        self,
        cluster: InReach,
        observed: Observations,
        seed: int,
        rooms: int,
        people: int,
        *,
        name: str = "chaos",
    ) -> None:
        self.cluster = cluster
        self.observed = observed
        self.seed = seed
        self.name = name
        self.rooms: list[str] = []
        """The room that each director keeps open now."""
        self.all_rooms: list[str] = []
        self.clients: set[Client] = set()
        self.stopping = asyncio.Event()
        self._count = rooms
        self._people = people
        self._names = iter(range(10**9))
        self._http = httpx.AsyncClient(
            trust_env=False, timeout=12, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for slot in range(self._count):
            self.rooms.append(await self._make_room())
            self._tasks.append(asyncio.create_task(self._directs(slot)))
            for person in range(self._people):
                rng = random.Random(f"{self.seed}:{slot}:{person}")
                self._tasks.append(asyncio.create_task(self._visits(slot, rng)))

    async def stop(self) -> None:
        """Nobody does anything any more; who is connected stays."""
        self.stopping.set()
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                self.observed.broken.append(f"the test itself failed: {result!r}")

    async def end_rooms(self) -> None:
        """Ends the rooms that are open, so that nothing goes on in somebody's deployment."""
        rng = random.Random(self.seed)
        for room in self.rooms:
            await self.call(rng, "POST", f"/room/{room}/end", token=self.cluster.token)

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self.clients))
        await self._http.aclose()

    # -- REST

    async def call(
        self, rng: random.Random, method: str, path: str, body: Any = None, token: str = ""
    ) -> tuple[int, Any, int]:
        """Status (0: no answer), decoded answer, and the node that was asked."""
        node = rng.choice(self.cluster.nodes)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        start = time.time()
        try:
            answer = await self._http.request(
                method, f"{node.url}/api/interview{path}", json=body, headers=headers
            )
        except _NO_ANSWER:
            self.observed.did["calls without answer"] += 1
            return 0, None, node.number
        if answer.status_code == 503 and time.time() - start > REFUSAL_SECONDS:
            self.observed.late_refusals.append((node.number, start, time.time()))
        if answer.status_code == 429:
            self.observed.did["calls refused by a rate limit"] += 1
        if answer.status_code >= 500 and answer.status_code != 503:
            told = f"{answer.status_code} {answer.text[:200]}"
            self.observed.broken.append(f"{method} {path}: {told}")
        return answer.status_code, answer.json(), node.number

    async def _make_room(self) -> str:
        rng = random.Random(f"{self.seed}:rooms:{len(self.all_rooms)}")
        while True:
            name = f"{self.name}_{next(self._names)}"
            self.all_rooms.append(name)
            body = {"roomId": name, "roomName": "混沌", "hostName": "张经理"}
            status, _, _ = await self.call(rng, "POST", "/create-room", body, self.cluster.token)
            if status == 200:
                self.observed.made[name] = time.time()
                return name
            await asyncio.sleep(0.3)

    # -- people

    async def _directs(self, slot: int) -> None:
        """Ends the slot's room now and then and opens another; removes guests; is its host."""
        rng = random.Random(f"{self.seed}:{slot}:host")
        while True:
            room = self.rooms[slot]
            client = self._open(rng, room, "host", self.cluster.token)
            for _ in range(rng.randrange(4, 12)):
                await asyncio.sleep(rng.uniform(1, 5))
                await self._acts_as_host(rng, room, client)
            await self._ends(rng, room)
            self.rooms[slot] = await self._make_room()
            await asyncio.sleep(rng.uniform(0, 1))
            await self._forget(client)

    async def _acts_as_host(self, rng: random.Random, room: str, client: Client) -> None:
        what = rng.random()
        if what < 0.3:
            client.drop(rng.uniform(0.1, self.cluster.grace * 1.5))
        elif what < 0.5:
            guests = [join.guest_id for join in self.observed.joins[-200:] if join.room == room]
            if guests:
                path = f"/room/{room}/participants/{rng.choice(guests)}/remove"
                await self.call(rng, "POST", path, token=self.cluster.token)
                self.observed.did["removes"] += 1

    async def _ends(self, rng: random.Random, room: str) -> None:
        while True:
            status, _, _ = await self.call(
                rng, "POST", f"/room/{room}/end", token=self.cluster.token
            )
            if status in (200, 404):
                self.observed.did["ends"] += 1
                return
            await asyncio.sleep(0.5)

    async def _visits(self, slot: int, rng: random.Random) -> None:
        """One guest after the other."""
        while True:
            await asyncio.sleep(rng.uniform(0.05, 1.5))
            room = self.rooms[slot]
            joined = await self._joins(rng, room)
            if joined is None:
                await asyncio.sleep(rng.uniform(0.1, 1.5))
                continue
            guest_id, token = joined
            if rng.random() < 0.15:
                await asyncio.sleep(rng.uniform(0, 4))
                if rng.random() < 0.7:
                    await self._leaves(rng, room, guest_id, token)
                continue
            client = self._open(rng, room, guest_id, token)
            await client.until_welcomed(20)
            for _ in range(rng.randrange(1, 6)):
                await asyncio.sleep(rng.uniform(0.1, 4))
                if client.ended_by is not None:
                    break
                await self._acts(rng, room, guest_id, token, client)
            if rng.random() < 0.3:
                await self._leaves(rng, room, guest_id, token)
            await self._forget(client)

    async def _joins(self, rng: random.Random, room: str) -> tuple[str, str] | None:
        name = f"guest {next(self._names)}"
        body = {"roomId": room, "userName": name, "identity": "求职者"}
        status, answer, node = await self.call(rng, "POST", "/guest/join", body)
        if status == 200:
            joined = answer["data"]
            self.observed.joins.append(
                AnsweredJoin(room, joined["guestId"], name, joined["seq"], time.time())
            )
            self.observed.did["joins"] += 1
            return joined["guestId"], joined["guestToken"]
        if status == 503:
            self.observed.refused.append((room, name, node, time.time()))
        return None

    async def _leaves(self, rng: random.Random, room: str, guest_id: str, token: str) -> None:
        body = {"roomId": room, "guestId": guest_id, "guestToken": token}
        await self.call(rng, "POST", "/guest/leave", body)
        self.observed.did["leaves"] += 1

    async def _acts(
        self, rng: random.Random, room: str, guest_id: str, token: str, client: Client
    ) -> None:
        grace, what = self.cluster.grace, rng.random()
        if what < 0.35:
            self.observed.did["drops"] += 1
            client.drop(rng.uniform(0.05, grace * 0.7))
        elif what < 0.45:
            self.observed.did["late returns"] += 1
            client.drop(grace + rng.uniform(0, 3))
            await asyncio.sleep(grace)
        elif what < 0.55:
            second = self._open(rng, room, guest_id, token)
            await second.until_welcomed(5)
            if rng.random() < 0.5:
                client.drop(rng.uniform(0, grace))
            await asyncio.sleep(rng.uniform(0, 2))
            await self._forget(second)
        elif what < 0.70:
            if client.says(type="away"):
                self.observed.did["away marks"] += 1
                await asyncio.sleep(rng.choice((0, 0, rng.uniform(0.1, grace * 1.3))))
                client.says(type="ping")
        elif what < 0.78:
            if client.says(type="leave"):
                self.observed.did["leaves by frame"] += 1
        elif what < 0.88:
            client.drop(0.01)

    def _open(self, rng: random.Random, room: str, user_id: str, token: str) -> Client:
        own = random.Random(rng.random())
        client = Client(self.cluster, self.observed, own, room, user_id, token)
        self.clients.add(client)
        return client

    async def _forget(self, client: Client) -> None:
        self.clients.discard(client)
        await client.close()

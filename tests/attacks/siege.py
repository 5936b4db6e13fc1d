"""A node under all attacks together, and an honest room beside them.

    python -m tests.attacks --seconds 30

says how late the honest room heard its events, how late `/health/live` answered, and what memory
the node had before, meanwhile and after.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec

from coordinator.store.database import Database
from loadtest.usage import memory_kib
from tests.attacks.strangers import AttackTarget
from tests.harness.node import NodeProcess
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host, Live
from tests.open_api import INTERVIEWS, JOB_ID, KEY

EVENT_SECONDS, HEALTH_SECONDS = 1.0, 0.5
MEMORY_SHARE = 0.1
"""How much more memory than before the node may keep."""
CALM_SECONDS = 60.0
"""How long it may take to give memory back."""
CROWD = 2000


@dataclass(frozen=True, slots=True)
class Delays:
    """The slowest event (from one person's frame to the other's ear) and health, in seconds."""

    event: float
    health: float
    events: int


@dataclass(frozen=True, slots=True)
class Siege:
    """What came of it; memory in KiB."""

    in_peace: Delays
    under_attack: Delays
    memory_before: float
    memory_most: float
    memory_after: float
    seconds_to_calm: float

    def is_held(self) -> bool:
        """True where the promises were kept; a machine that was slow in peace makes them later."""
        peace, war = self.in_peace, self.under_attack
        return (
            war.event < max(EVENT_SECONDS, 10 * peace.event)
            and war.health < max(HEALTH_SECONDS, 10 * peace.health)
            and self.memory_after <= self.memory_before * (1 + MEMORY_SHARE)
        )

    def __str__(self) -> str:
        peace, war = self.in_peace, self.under_attack
        mib = [each / 1024 for each in (self.memory_before, self.memory_most, self.memory_after)]
        return (
            f"{war.events} events beside the attacks, the slowest after {war.event:.3f} s"
            f" (in peace {peace.event:.3f} s)\n"
            f"/health/live after {war.health:.3f} s at most (in peace {peace.health:.3f} s)\n"
            f"memory {mib[0]:.1f} MiB before, {mib[1]:.1f} at most, {mib[2]:.1f}"
            f" {self.seconds_to_calm:.0f} s after"
        )


async def besiege(
    node: NodeProcess, database: Database, redis_url: str, seconds: float, *,
    clock: Callable[[], float] = time.monotonic,
) -> Siege:  # fmt: skip
    """Peace, all attacks for `seconds`, and the calm after them. The node has the key `KEY`."""
    api = Api(node)
    host = await Host.hired(database, api)
    target = await _prepared(api, host, database, redis_url)
    honest = await _Honest.met(api, host)
    async with _attackers(target):  # what every attack needs once: code, caches, connections
        await asyncio.sleep(min(10.0, seconds))
    await _calmed(node, 0.0)
    in_peace = await honest.measured(seconds / 2, clock)
    before = memory_kib(node.process.pid)
    seen = [before]
    async with _attackers(target):
        watching = asyncio.create_task(_watch_memory(node, seen))
        under_attack = await honest.measured(seconds, clock)
        watching.cancel()
    after, took = await _calmed(node, before * (1 + MEMORY_SHARE))
    await honest.ends()
    await api.aclose()
    return Siege(
        in_peace=in_peace, under_attack=under_attack, memory_before=before, memory_most=max(seen),
        memory_after=after, seconds_to_calm=took,
    )  # fmt: skip


async def _watch_memory(node: NodeProcess, seen: list[float]) -> None:
    while True:
        seen.append(memory_kib(node.process.pid))
        await asyncio.sleep(0.2)


async def _calmed(node: NodeProcess, enough: float) -> tuple[float, float]:
    """Memory when it is no more than `enough`, or after `CALM_SECONDS`; and how long that took."""
    began = time.monotonic()
    limit = began + (CALM_SECONDS if enough else 5.0)
    while True:
        now = memory_kib(node.process.pid)
        if now <= enough or time.monotonic() > limit:
            return now, time.monotonic() - began
        await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def _attackers(target: AttackTarget) -> AsyncIterator[None]:
    """They are at work, in a process of their own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.attacks.strangers", msgspec.json.encode(target).decode(),
        stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    try:
        yield
        _, complaints = await asyncio.wait_for(process.communicate(b""), patient(20))
        assert process.returncode == 0, complaints.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _prepared(api: Api, host: Host, database: Database, redis_url: str) -> AttackTarget:
    """A crowded room, and an interview as large as it may be."""
    room = await host.creates()
    guest = await Guest(api).joins(room)
    await database.execute(
        """
        INSERT INTO interview_participants
            (room_id, user_id, user_name, role, joined_at, joined_seq)
        SELECT $1, 'guest_' || n, repeat('李', 100), 'guest', clock_timestamp(), 2 + n
        FROM generate_series(1, $2::int) AS n
        """,
        room, CROWD,
    )  # fmt: skip
    await database.execute(
        "UPDATE interview_rooms SET present = present + $2, guests = guests + $2"
        " WHERE room_id = $1",
        room, CROWD,
    )  # fmt: skip
    async with httpx.AsyncClient(
        base_url=api.node.url, headers=KEY, trust_env=False, timeout=patient(20)
    ) as coze:
        made = await coze.post(INTERVIEWS, json={"userId": "attacked", "jobId": JOB_ID})
        interview: str = made.json()["data"]["id"]
        texts = [{"questionIndex": n, "question": "?", "answer": "*" * 60_000} for n in range(15)]
        changed = await coze.patch(
            f"{INTERVIEWS}/{interview}", json={"answers": texts, "suggestions": "*" * 60_000}
        )
        assert changed.status_code == 200, changed.text
    return AttackTarget(
        port=api.node.port, room=room, guest=guest.token, key=KEY["X-API-Key"],
        interview=interview, redis_url=redis_url,
    )  # fmt: skip


class _Honest:
    """Two people in a room of their own; one goes away and comes back, the other one hears it."""

    def __init__(self, api: Api, guest: Live, host: Live) -> None:
        self._api = api
        self._guest = guest
        self._host = host

    @classmethod
    async def met(cls, api: Api, host: Host) -> _Honest:
        room = await host.creates()
        hears = await host.connects(room)
        guest = await (await Guest(api).joins(room)).connects()
        await hears.sees("participant_online")
        return cls(api, guest, hears)

    async def measured(self, seconds: float, clock: Callable[[], float]) -> Delays:
        event = health = 0.0
        events = 0
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            started = clock()
            assert (await self._api.get("/health/live")).status_code == 200
            health = max(health, clock() - started)
            for said, heard in (("away", "participant_away"), ("ping", "participant_back")):
                started = clock()
                await self._guest.says(type=said)
                await self._host.sees(heard, patience=30)
                event = max(event, clock() - started)
                events += 1
            await asyncio.sleep(0.2)  # ten frames a second are allowed
        return Delays(event, health, events)

    async def ends(self) -> None:
        await self._guest.hangs_up()
        await self._host.hangs_up()

"""People who come, connect, drop, return and go while everything around them breaks.

A `Tab` is one client's chain of connections, as the contract asks of clients: it resumes by
`since`, backs off as each close code says, and remembers all that it was told. A `Visitor` is a
person who uses tabs and REST. What they remember is judged in `verdict.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from loadtest.figures import Histogram
from loadtest.site import Site
from loadtest.sockets import Frame, LiveSocket

WELCOME_SECONDS = 10.0
SILENCE_SECONDS = 6.0
"""How long a client waits for the answer to its pings before it takes the network for lost."""
LONGEST_BACKOFF = 5.0
"""The contract's 20 s would let a short run end before anybody is back."""

SLOW_SECONDS = 0.5
REFUSAL_SECONDS = 5.5
"""The contract's 5 s for a 503, and some for a busy machine."""

NOT_EVENTS = frozenset(("welcome", "ping", "pong", "error", "bye", "refreshed"))
LOG_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


def seconds_of(text: str) -> float:
    """A time as the API prints it, as seconds of the wall clock."""
    return datetime.strptime(text, LOG_TIME).replace(tzinfo=UTC).timestamp()


_NO_ANSWER = (httpx.HTTPError, AttributeError)
"""The second is what comes out of httpx (by anyio) where a connection dies as it is made."""


@dataclass(slots=True)
class Run:
    """What a client was told from a `welcome` with a snapshot (or from seq 0) on, without a break.

    Attributes:
        seq: the snapshot's. snapshot: `{room, participants}`, None where it resumed from nothing.
        events: whole frames, in the order in which they came.
    """

    seq: int
    snapshot: dict[str, Any] | None
    events: list[Frame] = field(default_factory=list)


@dataclass(slots=True)
class Stay:
    """One live connection as its client saw it; wall-clock seconds, 0 = not yet."""

    user_id: str
    node: int
    welcomed: float = 0.0
    marked_away: float = 0.0
    ended: float = 0.0


@dataclass(frozen=True, slots=True)
class Slow:
    """An event that a connected client read late; wall-clock seconds."""

    at: float
    seen: float
    node: int
    room: str
    seq: int

    @property
    def seconds(self) -> float:
        return self.seen - self.at


@dataclass(slots=True)
class Memory:
    """What all people together were told and did.

    Attributes:
        joins: (room, guest id, user name, seq) of every join that was answered 200.
        refused: (room, user name, node, when) of every join that was answered 503.
        codes: close codes, 0 = closed without a bye.
        late: how long after its `at` an event was read by clients that were connected then.
        slow: those that took longer than half a second, in full.
        late_refusals: (node, asked, answered) of each 503 that took too long.
    """

    runs: dict[str, list[Run]] = field(default_factory=dict)
    stays: dict[str, list[Stay]] = field(default_factory=dict)
    joins: list[tuple[str, str, str, int]] = field(default_factory=list)
    refused: list[tuple[str, str, int, float]] = field(default_factory=list)
    did: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    late: Histogram = field(default_factory=Histogram)
    slow: list[Slow] = field(default_factory=list)
    late_refusals: list[tuple[int, float, float]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


class Tab:
    """A client's chain of connections to one room.

    Attributes:
        seq: of the last event that it knows, None before the first welcome.
        ended_by: the code that told it to stop for good, None while it goes on.
    """

    def __init__(
        self, site: Site, memory: Memory, rng: random.Random, room: str, user_id: str, token: str
    ) -> None:
        self.site = site
        self.memory = memory
        self.rng = rng
        self.room = room
        self.user_id = user_id
        self.token = token
        self.seq: int | None = None
        self.ended_by: int | None = None
        self.run: Run | None = None
        self.stay: Stay | None = None
        self.hold_off = 0.0
        """Seconds without network after the next loss of the connection."""
        self._socket: LiveSocket | None = None
        self._asked_since: int | None = None
        self._bye: Frame | None = None
        self._heard_at = 0.0
        self._gone = asyncio.Event()
        self._welcomed = asyncio.Event()
        self._stopped = self._returning = False
        self._task = asyncio.create_task(self._keep_connected())

    @property
    def is_connected(self) -> bool:
        """Welcomed, not marked away, and the connection stands as far as this client knows."""
        stay = self.stay
        return stay is not None and stay.welcomed > 0 and not stay.ended and not stay.marked_away

    async def _keep_connected(self) -> None:
        attempt = 0
        while not self._stopped and self.ended_by is None:
            was_welcomed = await self._one_connection()
            attempt = 0 if was_welcomed else attempt + 1
            if not self._stopped and self.ended_by is None:
                await asyncio.sleep(self._pause(attempt))

    def _pause(self, attempt: int) -> float:
        bye, hold_off, self.hold_off = self._bye, self.hold_off, 0.0
        if hold_off:
            return hold_off
        if bye is not None and bye["retry"] == "soon":
            return self.rng.uniform(0, bye.get("afterMs", 1000) / 1000)
        self.memory.did["back-offs"] += 1
        return self.rng.uniform(0.05, min(LONGEST_BACKOFF, 0.5 * 2**attempt))

    async def _one_connection(self) -> bool:
        """From opening to its end; True where it was welcomed."""
        node = self.rng.choice(self.site.nodes)
        self._gone, self._welcomed = asyncio.Event(), asyncio.Event()
        self._bye = None
        self._returning = False
        self._asked_since = self.seq
        self.stay = Stay(self.user_id, node.number)
        since = "" if self.seq is None else f"?since={self.seq}"
        path = f"/api/interview/room/{self.room}/live{since}"
        gone = self._gone
        try:
            async with asyncio.timeout(3):
                self._socket = await LiveSocket.open(
                    node.address, path, self.token, self._take, gone.set
                )
        except (OSError, TimeoutError):
            return False
        self._heard_at = time.monotonic()
        await self._watch(gone)
        self.stay.ended = time.time()
        self._socket.cut()
        self._socket = None
        code = self._bye["code"] if self._bye else 0
        if self.stay.welcomed or code:
            self.memory.codes[code] += 1
        if self._bye is not None and self._bye["retry"] == "no":
            self.ended_by = code
        return self.stay.welcomed > 0

    async def _watch(self, gone: asyncio.Event) -> None:
        """Until the connection is gone, or has been silent for too long."""
        assert self._socket is not None
        while not gone.is_set():
            silent = time.monotonic() - self._heard_at
            limit = SILENCE_SECONDS if self.is_connected else WELCOME_SECONDS
            if silent > limit:
                self.memory.did["silences"] += 1
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), 1.5)
            if self._welcomed.is_set() and self.stay and not self.stay.marked_away:
                self._socket.send({"type": "ping"})

    # -- what it is told

    def _take(self, frame: Frame) -> None:
        if self._bye is not None:
            self._complain(f"a {frame['type']} after bye {self._bye['code']}")
            return
        self._heard_at = time.monotonic()
        kind = frame["type"]
        if kind == "welcome":
            self._take_welcome(frame)
        elif kind == "bye":
            self._bye = frame
        elif kind in ("ping", "pong"):
            if frame["seq"] != self.seq:
                self._complain(f"a {kind} tells seq {frame['seq']} at seq {self.seq}")
            if kind == "pong" and self._returning:
                self._begin_stay_anew()
        elif kind not in NOT_EVENTS:
            self._take_event(frame)

    def _begin_stay_anew(self) -> None:
        """It was marked away and is known to be back: another stay on the same socket."""
        self._returning = False
        if self.stay is not None:
            now = time.time()
            self.stay.ended = now
            self.stay = Stay(self.user_id, self.stay.node, now)
            self.memory.stays.setdefault(self.room, []).append(self.stay)

    def _take_welcome(self, frame: Frame) -> None:
        stay = self.stay
        assert stay is not None
        if not stay.welcomed:
            stay.welcomed = time.time()
            self.memory.stays.setdefault(self.room, []).append(stay)
            self.memory.did["connects"] += 1
        self._welcomed.set()
        if frame["resumed"]:
            if frame["seq"] != self._asked_since:
                self._complain(f"resumed at {frame['seq']}, asked for {self._asked_since}")
            self.memory.did["resumed"] += 1
            return
        self.seq = frame["seq"]
        snapshot = {"room": frame["room"], "participants": frame["participants"]}
        self.run = Run(frame["seq"], snapshot)
        self.memory.runs.setdefault(self.room, []).append(self.run)

    def _take_event(self, frame: Frame) -> None:
        if self.run is None or self.seq is None or not self._welcomed.is_set():
            self._complain(f"event {frame.get('seq')} before a welcome")
            return
        if frame["seq"] != self.seq + 1:
            self._complain(f"event {frame['seq']} at seq {self.seq}")
        self.seq = frame["seq"]
        self.run.events.append(frame)
        self.memory.did["deliveries"] += 1
        self._note_delay(frame)

    def _note_delay(self, frame: Frame) -> None:
        """Of events that happened while this connection stood; others are a return's history."""
        at, now = seconds_of(frame["at"]), time.time()
        if self.stay is not None and at > self.stay.welcomed:
            late = max(0.0, now - at)
            self.memory.late.add(int(late * 1e9))
            if late > SLOW_SECONDS:
                slow = Slow(at, now, self.stay.node, self.room, frame["seq"])
                self.memory.slow.append(slow)

    def _complain(self, what: str) -> None:
        node = self.stay.node if self.stay else "?"
        self.memory.broken.append(f"{self.room} {self.user_id} on node {node}: {what}")

    # -- what it does

    async def until_welcomed(self, seconds: float) -> bool:
        """True once it is connected; False where it is not in time or never will be."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.ended_by is None:
            if self.stay is not None and self.stay.welcomed and not self.stay.ended:
                return True
            await asyncio.sleep(0.02)
        return False

    def drop(self, hold_off: float) -> None:
        """The network is lost, and back after `hold_off` seconds."""
        if self._socket is not None:
            self.hold_off = hold_off
            self._socket.cut()

    def says(self, **frame: Any) -> bool:
        """Sends a frame, where it is connected and welcomed."""
        stay = self.stay
        if self._socket is None or stay is None or not stay.welcomed or stay.ended:
            return False
        if frame["type"] == "away":
            stay.marked_away = time.time()
        self._returning = bool(stay.marked_away) and frame["type"] == "ping"
        self._socket.send(frame)
        return True

    async def close(self) -> None:
        """Drops for good."""
        self._stopped = True
        if self._socket is not None:
            self._socket.cut()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self.stay is not None and not self.stay.ended:
            self.stay.ended = time.time()


class Crowd:
    """All rooms and people of a run."""

    def __init__(self, site: Site, memory: Memory, seed: int, rooms: int, people: int) -> None:
        self.site = site
        self.memory = memory
        self.seed = seed
        self.rooms: list[str] = []
        """The room that each director keeps open now."""
        self.all_rooms: list[str] = []
        self.tabs: set[Tab] = set()
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
                self.memory.broken.append(f"the test itself failed: {result!r}")

    async def close(self) -> None:
        await asyncio.gather(*(tab.close() for tab in self.tabs))
        await self._http.aclose()

    # -- REST

    async def call(
        self, rng: random.Random, method: str, path: str, body: Any = None, token: str = ""
    ) -> tuple[int, Any, int]:
        """Status (0: no answer), decoded answer, and the node that was asked."""
        node = rng.choice(self.site.nodes)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        start = time.time()
        try:
            answer = await self._http.request(
                method, f"{node.url}/api/interview{path}", json=body, headers=headers
            )
        except _NO_ANSWER:
            self.memory.did["calls without answer"] += 1
            return 0, None, node.number
        if answer.status_code == 503 and time.time() - start > REFUSAL_SECONDS:
            self.memory.late_refusals.append((node.number, start, time.time()))
        if answer.status_code >= 500 and answer.status_code != 503:
            self.memory.broken.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer.status_code, answer.json(), node.number

    async def _make_room(self) -> str:
        rng = random.Random(f"{self.seed}:rooms:{len(self.all_rooms)}")
        while True:
            name = f"chaos_{next(self._names)}"
            self.all_rooms.append(name)
            body = {"roomId": name, "roomName": "混沌", "hostName": "张经理"}
            status, _, _ = await self.call(rng, "POST", "/create-room", body, self.site.token)
            if status == 200:
                return name
            await asyncio.sleep(0.3)

    # -- people

    async def _directs(self, slot: int) -> None:
        """Ends the slot's room now and then and opens another; removes guests; is its host."""
        rng = random.Random(f"{self.seed}:{slot}:host")
        while True:
            room = self.rooms[slot]
            tab = self._open(rng, room, "host", self.site.token)
            for _ in range(rng.randrange(4, 12)):
                await asyncio.sleep(rng.uniform(1, 5))
                await self._acts_as_host(rng, room, tab)
            await self._ends(rng, room)
            self.rooms[slot] = await self._make_room()
            await asyncio.sleep(rng.uniform(0, 1))
            await self._forget(tab)

    async def _acts_as_host(self, rng: random.Random, room: str, tab: Tab) -> None:
        what = rng.random()
        if what < 0.3:
            tab.drop(rng.uniform(0.1, self.site.grace * 1.5))
        elif what < 0.5:
            guests = [guest for r, guest, _, _ in self.memory.joins[-200:] if r == room]
            if guests:
                path = f"/room/{room}/participants/{rng.choice(guests)}/remove"
                await self.call(rng, "POST", path, token=self.site.token)
                self.memory.did["removes"] += 1

    async def _ends(self, rng: random.Random, room: str) -> None:
        while True:
            status, _, _ = await self.call(rng, "POST", f"/room/{room}/end", token=self.site.token)
            if status in (200, 404):
                self.memory.did["ends"] += 1
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
            tab = self._open(rng, room, guest_id, token)
            await tab.until_welcomed(20)
            for _ in range(rng.randrange(1, 6)):
                await asyncio.sleep(rng.uniform(0.1, 4))
                if tab.ended_by is not None:
                    break
                await self._acts(rng, room, guest_id, token, tab)
            if rng.random() < 0.3:
                await self._leaves(rng, room, guest_id, token)
            await self._forget(tab)

    async def _joins(self, rng: random.Random, room: str) -> tuple[str, str] | None:
        name = f"guest {next(self._names)}"
        body = {"roomId": room, "userName": name, "identity": "求职者"}
        status, answer, node = await self.call(rng, "POST", "/guest/join", body)
        if status == 200:
            joined = answer["data"]
            self.memory.joins.append((room, joined["guestId"], name, joined["seq"]))
            self.memory.did["joins"] += 1
            return joined["guestId"], joined["guestToken"]
        if status == 503:
            self.memory.refused.append((room, name, node, time.time()))
        return None

    async def _leaves(self, rng: random.Random, room: str, guest_id: str, token: str) -> None:
        body = {"roomId": room, "guestId": guest_id, "guestToken": token}
        await self.call(rng, "POST", "/guest/leave", body)
        self.memory.did["leaves"] += 1

    async def _acts(
        self, rng: random.Random, room: str, guest_id: str, token: str, tab: Tab
    ) -> None:
        grace, what = self.site.grace, rng.random()
        if what < 0.35:
            self.memory.did["drops"] += 1
            tab.drop(rng.uniform(0.05, grace * 0.7))
        elif what < 0.45:
            self.memory.did["late returns"] += 1
            tab.drop(grace + rng.uniform(0, 3))
            await asyncio.sleep(grace)
        elif what < 0.55:
            second = self._open(rng, room, guest_id, token)
            await second.until_welcomed(5)
            if rng.random() < 0.5:
                tab.drop(rng.uniform(0, grace))
            await asyncio.sleep(rng.uniform(0, 2))
            await self._forget(second)
        elif what < 0.70:
            if tab.says(type="away"):
                self.memory.did["away marks"] += 1
                await asyncio.sleep(rng.choice((0, 0, rng.uniform(0.1, grace * 1.3))))
                tab.says(type="ping")
        elif what < 0.78:
            if tab.says(type="leave"):
                self.memory.did["leaves by frame"] += 1
        elif what < 0.88:
            tab.drop(0.01)

    def _open(self, rng: random.Random, room: str, user_id: str, token: str) -> Tab:
        tab = Tab(self.site, self.memory, random.Random(rng.random()), room, user_id, token)
        self.tabs.add(tab)
        return tab

    async def _forget(self, tab: Tab) -> None:
        self.tabs.discard(tab)
        await tab.close()

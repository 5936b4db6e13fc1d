"""`presence`: rooms full of people who join, connect, drop, return and leave, by a seeded plan.

Everything that a client is promised is checked by each of them: its history has no gap, nothing
twice, nothing out of order; its roster, kept from the snapshot and the events alone, equals the
server's; and what it saw equals the room's log.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from loadtest.figures import Histogram, Result, rates
from loadtest.http import Answered, Lines, exchange
from loadtest.measure import Bench, Run, describe, not_let_in
from loadtest.usage import Usage, memory_kib
from loadtest.watch import SLOT_NS
from tests.harness.live_client import Frame, LiveClient
from tests.harness.wire import NAME

SHORT_GRACE = "3"
LONGEST_WAIT = 5.0
TOO_LATE = 0.05  # of the dropped return only when their grace is over, where it is short
PAUSE_SECONDS = (0.2, 2.0)
LINES = 16
QUIET_SECONDS = 20.0


@dataclass(slots=True)
class Tally:
    """What all people together did and saw."""

    joins: int = 0
    connects: int = 0
    drops: int = 0
    returns: int = 0
    leaves: int = 0
    deliveries: int = 0
    seen: Histogram = field(default_factory=Histogram)
    welcomed: Histogram = field(default_factory=Histogram)
    slots: Counter[int] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)

    def numbers(self) -> dict[str, float]:
        return {
            "joins": self.joins, "connects": self.connects, "drops": self.drops,
            "leaves": self.leaves, "deliveries": self.deliveries,
        }  # fmt: skip


class Person:
    """Somebody in one room: a guest with its token, perhaps connected, with all that it saw.

    Attributes:
        roster: userId -> connection, from the snapshot and the events alone.
        saw: seq -> (type, userId), over all its connections.
    """

    def __init__(self, room: str, tally: Tally, fresh: dict[str, int]) -> None:
        self.room = room
        self.tally = tally
        self.fresh = fresh
        self.token = ""
        self.guest_id = ""
        self.name = ""
        self.seq = -1
        self.roster: dict[str, str] = {}
        self.saw: dict[int, tuple[str, str]] = {}
        self.socket: LiveClient | None = None
        self.welcome: asyncio.Future[None] | None = None
        self.opened_ns = 0
        self.moved = asyncio.Event()

    def takes(self, frame: Frame) -> None:
        """One frame from the server."""
        kind = frame["type"]
        if kind == "welcome":
            self._take_welcome(frame)
        elif kind == "ping":
            if frame["seq"] < self.seq:
                self.tally.broken["a ping tells a seq that is behind the events"] += 1
        elif kind == "bye":
            if frame["code"] not in (1000, 4009):
                self.tally.broken[f"a connection was ended: bye {frame['code']}"] += 1
        elif "at" in frame:
            self._take_event(kind, frame)
        elif kind == "error":
            self.tally.broken[f"error {frame.get('code')}"] += 1

    def _take_welcome(self, frame: Frame) -> None:
        if not frame["resumed"]:
            self.roster = {p["userId"]: p["connection"] for p in frame["participants"]}
        elif frame["seq"] != self.seq:
            self.tally.broken["a resumed welcome names another seq than was asked for"] += 1
        self.seq = frame["seq"]
        self.tally.welcomed.add(time.monotonic_ns() - self.opened_ns)
        if self.welcome is not None and not self.welcome.done():
            self.welcome.set_result(None)

    def _take_event(self, kind: str, frame: Frame) -> None:
        seq, now = frame["seq"], time.monotonic_ns()
        if seq != self.seq + 1:
            self.tally.broken["a gap" if seq > self.seq else "twice or late"] += 1
        self.seq = seq
        self.tally.deliveries += 1
        self.tally.slots[now // SLOT_NS] += 1
        person = frame.get("participant", {})
        self.saw[seq] = (kind, person.get("userId", ""))
        apply(self.roster, kind, person)
        sent = self.fresh.get(person.get("userName", ""), 0)
        # Joins from before this connection are what a return brings up to date.
        if kind == "participant_joined" and sent > self.opened_ns:
            self.tally.seen.add(now - sent)
        self.moved.set()

    def ended(self) -> None:
        """The connection is gone."""
        self.socket = None
        if self.welcome is not None and not self.welcome.done():
            self.welcome.set_exception(OSError("the connection ended before its welcome"))


def apply(roster: dict[str, str], kind: str, person: dict[str, Any]) -> None:
    """What an event does to a roster."""
    if kind == "participant_joined":
        roster[person["userId"]] = person["connection"]
    elif kind in ("participant_online", "participant_back"):
        roster[person["userId"]] = "online"
    elif kind == "participant_away":
        roster[person["userId"]] = "away"
    elif kind == "participant_left":
        roster.pop(person["userId"], None)


async def presence(bench: Bench, *, rooms: int, people: int, seconds: float) -> Result:
    """`rooms` × `people`, everybody busy for `seconds`, then quiet, then the checks."""
    result = Result(
        "presence",
        f"{people} people in each of {rooms} rooms join over REST, connect, drop, return and leave"
        f" for {seconds:g} s; each checks everything that it is told.",
        {"rooms": rooms, "people per room": people, "seconds": seconds, "seed": bench.seed},
    )
    with bench.run(PRESENCE_GRACE=SHORT_GRACE) as run:
        describe(run, result)
        await _Crowd(run, rooms, people).live(result, seconds)
    return result


class _Crowd:
    """All people of a run."""

    def __init__(self, run: Run, rooms: int, people: int) -> None:
        self.run = run
        self.tally = Tally()
        self.fresh: dict[str, int] = {}
        self.lines = Lines(run.deployment.addresses)
        self.rooms = run.room_names(rooms)
        self.people = [
            Person(room, self.tally, self.fresh) for room in self.rooms for _ in range(people)
        ]
        self.free: asyncio.Queue[Any] = asyncio.Queue()

    async def live(self, result: Result, seconds: float) -> None:
        run, tally = self.run, self.tally
        parties = run.deployment.parties
        parties.clients = [os.getpid()]
        for line in await self.lines.grow(LINES):
            self.free.put_nowait(line)
        async with run.screen.step("making rooms"):
            for room in self.rooms:
                body = {"roomId": room, "roomName": "Load test", "hostName": "Load test"}
                await self._call("POST", "/api/interview/create-room", body, staff=True)
        before, start = parties.now(), time.monotonic()
        async with run.screen.step("people come and go", tally.numbers):
            await asyncio.gather(*(
                self._lives(person, random.Random(f"{run.seed}-{i}"), start + seconds)
                for i, person in enumerate(self.people)
            ))  # fmt: skip
        lasted = time.monotonic() - start
        usage = Usage.between(before, parties.now())
        memory = sum(map(memory_kib, parties.servers))
        async with run.screen.step("waiting for the last events, then checking"):
            await self._quiet()
            await self._check()
        for person in self.people:
            if person.socket is not None:
                person.socket.close()
        for room in self.rooms:
            await self._call("POST", f"/api/interview/room/{room}/end", {}, staff=True)
        self.lines.close()
        self._report(result, usage, lasted, memory)

    # -- what people do

    async def _lives(self, person: Person, dice: random.Random, until: float) -> None:
        """One life: in, on, then whatever the dice say."""
        await asyncio.sleep(dice.uniform(0, PAUSE_SECONDS[1]))
        await self._joins(person)
        await self._connects(person, dice)
        while time.monotonic() < until:
            await asyncio.sleep(dice.uniform(*PAUSE_SECONDS))
            await self._acts(person, dice)
        if person.socket is None:  # at the end everybody is there, so that all can be compared
            await self._connects(person, dice)

    async def _acts(self, person: Person, dice: random.Random) -> None:
        choice = dice.random()
        if person.socket is None:
            await self._connects(person, dice)
        elif choice < 0.55:
            self.fresh.pop(person.name, None)  # a later joined event of this name is a return
            person.socket.cut()
            self.tally.drops += 1
            if dice.random() < TOO_LATE and self.run.deployment.grace <= LONGEST_WAIT:
                await asyncio.sleep(self.run.deployment.grace + 1)
        elif choice < 0.75:
            await self._leaves(person, by_frame=dice.random() < 0.5)
            await asyncio.sleep(dice.uniform(*PAUSE_SECONDS))
            await self._returns(person, dice)
        elif choice < 0.9:
            person.socket.send({"type": "sync", "since": person.seq})
        else:
            person.socket.send({"type": "ping"})

    async def _joins(self, person: Person) -> None:
        now = time.monotonic_ns()
        person.name = f"{NAME}{next(self.run.numbers)}-{now}"
        self.fresh[person.name] = now
        body = {"roomId": person.room, "userName": person.name, "identity": "candidate"}
        joined = await self._call("POST", "/api/interview/guest/join", body)
        person.token, person.guest_id = joined["guestToken"], joined["guestId"]
        self.tally.joins += 1

    async def _connects(self, person: Person, dice: random.Random) -> None:
        """A new connection, mostly one that resumes where the last one ended."""
        path = f"/api/interview/room/{person.room}/live"
        if person.seq >= 0 and dice.random() < 0.8:
            path += f"?since={person.seq}"
        addresses = self.run.deployment.addresses
        person.welcome = asyncio.get_running_loop().create_future()
        person.opened_ns = time.monotonic_ns()
        person.socket = await LiveClient.open(
            dice.choice(addresses), path, person.token, person.takes, person.ended
        )
        await asyncio.wait_for(person.welcome, 20)
        self.tally.connects += 1

    async def _leaves(self, person: Person, *, by_frame: bool) -> None:
        assert person.socket is not None
        if by_frame:
            person.socket.send({"type": "leave"})
        else:
            body = {"roomId": person.room, "guestId": person.guest_id, "guestToken": person.token}
            await self._call("POST", "/api/interview/guest/leave", body)
        self.tally.leaves += 1
        for _ in range(500):
            if person.socket is None:
                return
            await asyncio.sleep(0.01)
        self.tally.broken["a connection stands 5 s after its person left"] += 1

    async def _returns(self, person: Person, dice: random.Random) -> None:
        self.fresh.pop(person.name, None)
        if dice.random() < 0.5:  # over REST; else connecting alone brings it in again
            body = {"roomId": person.room, "userName": person.name, "guestToken": person.token}
            joined = await self._call("POST", "/api/interview/guest/join", body)
            person.token = joined["guestToken"]
        self.tally.returns += 1
        await self._connects(person, dice)

    # -- the end

    async def _quiet(self) -> None:
        """Returns when everybody who is connected has the last event of its room."""
        ends = dict.fromkeys(self.rooms, 0)
        give_up = time.monotonic() + QUIET_SECONDS
        while time.monotonic() < give_up:
            for room in self.rooms:
                path = f"/api/interview/room/{room}/events?limit=1"
                ends[room] = (await self._call("GET", path, staff=True))["lastSeq"]
            behind = [p for p in self.people if p.socket is not None and p.seq < ends[p.room]]
            if not behind:
                return
            for person in behind:
                person.moved.clear()
            await asyncio.wait([asyncio.create_task(p.moved.wait()) for p in behind], timeout=0.5)
        self.tally.broken["somebody did not get the last events in time"] += 1

    async def _check(self) -> None:
        for room in self.rooms:
            log = await self._log(room)
            shown = await self._call("GET", f"/api/interview/room/{room}")
            server = {p["userId"]: p["connection"] for p in shown["participants"]}
            for person in self.people:
                if person.room == room and person.socket is not None:
                    self._compare(person, log, server)

    def _compare(
        self, person: Person, log: dict[int, tuple[str, str]], server: dict[str, str]
    ) -> None:
        if person.roster != server:
            self.tally.broken["a roster differs from the server's"] += 1
        if any(log.get(seq) != saw for seq, saw in person.saw.items()):
            self.tally.broken["somebody saw what is not in the log"] += 1

    async def _log(self, room: str) -> dict[int, tuple[str, str]]:
        found: dict[int, tuple[str, str]] = {}
        more, after = True, 0
        while more:
            path = f"/api/interview/room/{room}/events?after={after}&limit=500"
            page = await self._call("GET", path, staff=True)
            for event in page["events"]:
                after += 1
                if event["seq"] != after:
                    self.tally.broken["the log has a hole"] += 1
                found[event["seq"]] = (
                    event["type"], event.get("participant", {}).get("userId", ""),
                )  # fmt: skip
            more = page["hasMore"]
        return found

    async def _call(self, method: str, path: str, body: Any = None, *, staff: bool = False) -> Any:
        token = self.run.deployment.token if staff else None
        line = await self.free.get()
        try:
            status, raw = await exchange(line, self.lines.request(method, path, body, token))
        finally:
            self.free.put_nowait(line)
        if status != 200:
            raise not_let_in(Answered(status, raw))
        return msgspec.json.decode(raw).get("data")

    def _report(self, result: Result, usage: Usage, lasted: float, memory: float) -> None:
        tally = self.tally
        for name, value in tally.numbers().items():
            result.add(name, value / lasted, "/s", note=f"{value:,.0f} in {lasted:.1f} s")
        if usage.servers:
            result.add("server CPU", sum(usage.servers) * 100, "% of a core", note=usage.text())
            result.add("server memory", memory / 1024, "MiB")
        result.latencies["join → seen by the others"] = tally.seen
        result.latencies["connect → welcome"] = tally.welcomed
        result.timelines["deliveries per second"] = rates(dict(tally.slots), SLOT_NS)
        result.notes.append(usage.text())
        if usage.clients and max(usage.clients) > 0.9:
            result.notes.append("The client was full: latencies are its own, not the server's.")
        result.broken += [f"{count} × {why}" for why, count in tally.broken.items()]
        if not tally.broken:
            result.checked += [
                "everybody's history is gapless, each event once and in order",
                "everybody's roster, from snapshot and events alone, equals the server's",
                "what everybody saw equals the room's log",
            ]

"""A log that answers late, listeners that decode what they are sent, and feeds over both."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import Unavailable
from coordinator.domain.events import Event, FeedKey, Head
from coordinator.domain.roster import Counts, Departure
from coordinator.live.broadcast import evict
from coordinator.live.feed import Feed
from coordinator.live.history import Histories
from coordinator.live.hub import Hub
from coordinator.live.resume import admit_pending
from coordinator.store.logs import Moved
from tests.harness.patience import patient

KEY = FeedKey("room", "r")
AT = "2026-01-01T00:00:00.000Z"


def event(seq: int, kind: str = "change", **data: Any) -> Event:
    return Event(KEY, seq, kind, AT, data)


class Count:
    """The state of a log of nothing in particular: how many events there were."""

    def __init__(self, seen: int = 0, erasures: int = 0) -> None:
        self.seen, self.erasures = seen, erasures

    def apply(self, event: Event) -> Departure | None:
        assert event.seq == self.seen + 1, "a hole, or twice"
        self.seen = event.seq
        if event.type == "out":
            return Departure(event.data["who"], CloseCode.LEFT)
        return None

    def admits(self, user_id: str | None) -> bool:
        return True

    def counts(self) -> Counts | None:
        return Counts(self.seen, 0)

    def snapshot(self) -> dict[str, Any]:
        return {"seen": self.seen}


class Listener:
    """A client's end: decodes what it is sent, and complains about anything twice or missing."""

    def __init__(self, user_id: str | None = None, *, counts_only: bool = False) -> None:
        self.user_id = user_id
        self.counts_only = counts_only
        self.connect_seq = 0
        self.seqs: list[int] = []
        self.welcomes: list[tuple[bool, int]] = []
        self.writes = 0
        self.code: CloseCode | None = None

    @property
    def writer(self) -> Callable[[bytes], None]:
        return self.write

    def write(self, frames: bytes) -> None:
        assert self.welcomes, "told something before it was greeted"
        assert self.code is None, "told something after it was closed"
        self.writes += 1
        for frame in decoded(frames):
            self.seqs.append(frame["seq"])

    def welcome(self, feed: Feed, *, since: int, counts: Counts | None, resumed: bool) -> None:
        if not resumed:
            assert bytes(feed.snapshot().members["seen"]) == str(since).encode()
        self.welcomes.append((resumed, since))

    def close(self, code: CloseCode) -> None:
        self.code = code

    def on_not_admitted(self) -> None:
        self.close(CloseCode.LEFT)

    @property
    def stands_at(self) -> int:
        return self.seqs[-1] if self.seqs else self.welcomes[-1][1]

    def was_told_all(self, end: int) -> None:
        first = self.welcomes[0][1] + 1
        assert self.seqs == list(range(first, end + 1))


def decoded(data: bytes) -> list[dict[str, Any]]:
    """The frames in what was written (RFC 6455, section 5.2; a server's are not masked)."""
    frames = []
    while data:
        assert data[0] == 0x81
        size, start = data[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        frames.append(json.loads(data[start : start + size]))
        data = data[start + size :]
    return frames


class Log:
    """The log of one feed, in memory; reading takes some turns of the loop."""

    kind = "room"

    def __init__(self, length: int = 0, chance: random.Random | None = None) -> None:
        self.events = [event(seq) for seq in range(1, length + 1)]
        self.chance = chance
        self.reads = self.erasures = 0
        self.epoch = ""
        self.is_away = self.is_calm = False

    async def _wait(self) -> None:
        if self.chance is not None:
            for _ in range(self.chance.randrange(4)):
                await asyncio.sleep(0)
            if not self.is_calm and self.chance.random() < 0.05:
                raise Unavailable
        if self.is_away:
            raise Unavailable

    def append(self, kind: str = "change", **data: Any) -> Event:
        self.events.append(event(len(self.events) + 1, kind, **data))
        return self.events[-1]

    async def load(self, feed_id: str, /) -> tuple[Head, Count] | None:
        self.reads += 1
        await self._wait()
        seq, head = len(self.events), self.end
        await self._wait()
        return head, Count(seq, self.erasures)

    @property
    def end(self) -> Head:
        return self.events[-1].head if self.events else Head(0, "", AT)

    async def events_after(self, feed_id: str, seq: int, limit: int, /) -> list[Event]:
        self.reads += 1
        await self._wait()
        found = self.events[seq : seq + limit]
        await self._wait()
        return found

    async def connections_at(self, feed_id: str, seq: int, /) -> dict[str, str]:
        await self._wait()
        return {}

    async def head(self, feed_id: str, /) -> int | None:
        await self._wait()
        return len(self.events)

    async def epoch_at(self, feed_id: str, seq: int, /) -> str | None:
        await self._wait()
        return self.events[seq - 1].epoch if 0 < seq <= len(self.events) else None

    async def moved(
        self, known: Sequence[tuple[str, Head]], erasures: Sequence[int], /
    ) -> list[Moved]:
        gone = await self.vanished(known)
        return [
            Moved(feed, len(self.events), feed not in gone, self.erasures)
            for (feed, head), erasures_known in zip(known, erasures, strict=True)
            if head != self.end or erasures_known != self.erasures
        ]

    async def vanished(self, known: Sequence[tuple[str, Head]], /) -> set[str]:
        await self._wait()
        there = {each.head for each in self.events} | {Head(0, "", AT)}
        return {feed for feed, head in known if head not in there}


def loaded(seq: int) -> Feed:
    feed = Feed(KEY, Histories().open())
    feed.start(Head(seq, "", AT), Count(seq), epoch="")
    return feed


def end_turn(feed: Feed) -> int:
    """As at the end of a turn of the loop, with time for all; the deliveries."""
    admit_pending(feed)
    evict(feed)
    feed.subscribers.begin_broadcast()
    _, deliveries = feed.subscribers.send(10_000)
    return deliveries


def hub_of(log: Log) -> Hub:
    return Hub([log], epoch=lambda: log.epoch, is_degraded=lambda: False)


async def attached(hub: Hub, since: int | None = None, seq: int | None = None) -> Listener:
    listener = Listener()
    await hub.resume.attach(KEY, listener, since=since, epoch=None, connect_seq=seq)
    return listener


def the_feed(hub: Hub) -> Feed:
    feed = hub.feeds.get(KEY)
    assert feed is not None
    return feed


async def soon(holds: Any, seconds: float = 2.0) -> None:
    async with asyncio.timeout(patient(seconds)):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

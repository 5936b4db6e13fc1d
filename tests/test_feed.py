"""A feed and its hub: every listener is told everything once, in order, whatever the bus does.

The log here is a list that answers late. Everything else is the real thing; listeners decode the
bytes that they are sent.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import NotFound, Unavailable
from coordinator.domain.events import Event, FeedKey, Head
from coordinator.domain.roster import Counts, Departure
from coordinator.live import broadcast, catch_up
from coordinator.live.broadcast import evict
from coordinator.live.feed import Feed
from coordinator.live.frames import text_frame
from coordinator.live.history import HISTORY, Histories
from coordinator.live.hub import Hub
from coordinator.live.resume import admit_pending
from coordinator.live.subscribers import PendingSubscriber
from coordinator.store.heads import Moved

KEY = FeedKey("room", "r")


AT = "2026-01-01T00:00:00.000Z"


def event(seq: int, kind: str = "change", **data: Any) -> Event:
    return Event(KEY, seq, kind, AT, data)


class Count:
    """The state of a log of nothing in particular: how many events there were."""

    def __init__(self, seen: int = 0) -> None:
        self.seen = seen

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
        self.reads = 0
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
        return head, Count(seq)

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

    async def moved(self, known: Sequence[tuple[str, Head]], /) -> list[Moved]:
        gone = await self.vanished(known)
        return [
            Moved(feed, len(self.events), feed not in gone)
            for feed, head in known
            if head != self.end
        ]

    async def vanished(self, known: Sequence[tuple[str, Head]], /) -> set[str]:
        await self._wait()
        there = {each.head for each in self.events} | {Head(0, "", AT)}
        return {feed for feed, head in known if head not in there}


def loaded(seq: int) -> Feed:
    feed = Feed(KEY, Histories().open())
    feed.start(Head(seq, "", AT), Count(seq), epoch="")
    return feed


def settle(feed: Feed) -> int:
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
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


# -- one feed ------------------------------------------------------------------------------------


def test_the_next_event_is_applied_an_older_one_dropped_a_later_one_waits() -> None:
    feed = loaded(3)

    assert feed.offer(event(3)) is False
    assert feed.offer(event(6)) is False
    assert (feed.seq, feed.is_behind) == (3, True)
    assert feed.offer(event(4)) is True
    assert feed.offer(event(4)) is False
    assert feed.seq == 4
    assert feed.offer(event(5)) is True
    assert (feed.seq, feed.is_behind) == (6, False)


def test_events_that_come_before_the_state_is_loaded_follow_it() -> None:
    feed = Feed(KEY, Histories().open())
    for seq in (2, 5, 4, 3):
        feed.offer(event(seq))

    feed.start(Head(3, "", AT), Count(3), epoch="")

    assert (feed.seq, feed.is_behind) == (5, False)
    assert feed.reorder_buffer == {}


@pytest.mark.parametrize("seed", range(40))
def test_in_whatever_order_and_how_often_events_come_each_is_applied_once(seed: int) -> None:
    """`Count` raises where one comes twice or out of turn."""
    chance = random.Random(seed)
    offers = [event(seq) for seq in range(1, 60) for _ in range(chance.choice((1, 1, 2, 3)))]
    chance.shuffle(offers)
    feed = loaded(0)

    applied = sum([feed.offer(each) for each in offers])

    assert feed.seq == 59
    assert applied <= 59
    assert [frame.seq for frame in feed.history.after(0)] == list(range(1, 60))


def test_what_gathers_until_it_is_settled_goes_out_in_one_write() -> None:
    feed, listener = loaded(0), Listener()
    listener.welcome(feed, since=0, counts=None, resumed=True)
    feed.subscribers.add(listener)
    for seq in (1, 2, 3):
        feed.offer(event(seq))

    assert settle(feed) == 3
    assert settle(feed) == 0
    assert (listener.writes, listener.seqs) == (1, [1, 2, 3])


def listening(feed: Feed, count: int) -> list[Listener]:
    listeners = [Listener() for _ in range(count)]
    for listener in listeners:
        listener.welcome(feed, since=feed.seq or 0, counts=None, resumed=True)
        feed.subscribers.add(listener)
    return listeners


def test_what_happens_during_a_broadcast_goes_out_with_it_where_it_has_not_been_yet() -> None:
    feed = loaded(0)
    listeners = listening(feed, 5)
    feed.offer(event(1))

    feed.subscribers.begin_broadcast()
    assert feed.subscribers.send(2) == (2, 2)
    feed.offer(event(2))
    assert feed.subscribers.send(2) == (2, 4)
    feed.offer(event(3))
    assert feed.subscribers.send(2) == (1, 3)
    assert [each.seqs for each in listeners] == [[1], [1], [1, 2], [1, 2], [1, 2, 3]]
    assert settle(feed) == 2 + 2 + 1 + 1

    assert [each.writes for each in listeners] == [2, 2, 2, 2, 1]
    for listener in listeners:
        listener.was_told_all(3)
    assert not settle(feed)
    assert not feed.subscribers.has_unsent


def test_who_comes_goes_or_is_spoken_to_during_a_broadcast_is_told_everything_once() -> None:
    feed = loaded(0)
    first, second, leaving, last = listening(feed, 4)
    feed.offer(event(1))

    feed.subscribers.begin_broadcast()
    feed.subscribers.send(1)
    feed.offer(event(2))
    assert [feed.subscribers.flush(each) for each in (first, last, last, leaving)] == [1, 2, 0, 2]
    feed.subscribers.remove(leaving)
    feed.subscribers.add(leaving)  # as `sync` does
    (late,) = listening(feed, 1)
    feed.subscribers.remove(second)
    feed.offer(event(3))
    feed.subscribers.send(10)
    settle(feed)

    assert second.seqs == []
    assert late.seqs == [3]
    for listener in (first, leaving, last):
        listener.was_told_all(3)
    assert not feed.subscribers.has_unsent


def test_who_is_let_in_is_not_sent_what_was_pending_before() -> None:
    feed = loaded(0)
    feed.offer(event(1))
    listener = Listener()
    feed.subscribers.pending.append(
        PendingSubscriber(listener, since=None, epoch="", need=1, greets=True)
    )

    settle(feed)
    feed.offer(event(2))
    settle(feed)

    assert listener.welcomes == [(False, 1)]
    listener.was_told_all(2)


def test_nobody_is_let_in_before_the_feed_has_what_it_needs() -> None:
    feed, listener = loaded(3), Listener()
    feed.subscribers.pending.append(
        PendingSubscriber(listener, since=2, epoch="", need=5, greets=True)
    )

    settle(feed)
    feed.offer(event(4))
    settle(feed)
    assert listener.welcomes == []
    feed.offer(event(5))
    settle(feed)

    assert listener.welcomes == [(False, 5)], "3 is not in this history: a snapshot"


@pytest.mark.parametrize(
    ("missed", "resumes"), [(0, True), (1, True), (HISTORY, True), (HISTORY + 1, False)]
)
def test_the_history_resumes_up_to_its_length(missed: int, resumes: bool) -> None:
    feed, listener = loaded(0), Listener()
    for seq in range(1, 401):
        feed.offer(event(seq))
    settle(feed)
    feed.subscribers.pending.append(
        PendingSubscriber(listener, since=400 - missed, epoch="", need=400, greets=True)
    )

    settle(feed)

    assert feed.history.remembers(400 - missed) is resumes
    assert listener.welcomes == [(resumes, 400 - missed if resumes else 400)]
    assert len(listener.seqs) == (missed if resumes else 0)


def test_a_listener_whose_socket_is_broken_costs_the_others_nothing() -> None:
    class Broken(Listener):
        def write(self, frames: bytes) -> None:
            raise RuntimeError("the handler is closed")

    feed, before, broken, after = loaded(0), Listener(), Broken(), Listener()
    for listener in (before, broken, after):
        listener.welcome(feed, since=0, counts=None, resumed=True)
        feed.subscribers.add(listener)
    feed.offer(event(1))
    settle(feed)
    feed.offer(event(2))
    settle(feed)

    assert (before.seqs, after.seqs) == ([1, 2], [1, 2])
    assert list(feed.subscribers) == [before, after]


def test_an_event_puts_out_whom_it_concerns_and_nobody_who_came_later() -> None:
    feed = loaded(0)
    old, newer, other = Listener("g"), Listener("g"), Listener("h")
    newer.connect_seq = 2
    for listener in (old, newer, other):
        listener.welcome(feed, since=0, counts=None, resumed=True)
        feed.subscribers.add(listener)
    feed.offer(event(1, "out", who="g"))
    feed.offer(event(2))

    settle(feed)

    assert (old.code, newer.code, other.code) == (4009, None, None)
    assert old.seqs == [1, 2], "it is told before it goes"


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 70000])
def test_a_frame_says_its_length_in_each_of_the_three_ways(size: int) -> None:
    payload = json.dumps("x" * size).encode()

    assert decoded(text_frame(payload)) == [json.loads(payload)]


# -- the hub -------------------------------------------------------------------------------------


@pytest.fixture
def log() -> Log:
    return Log(5)


@pytest.fixture
def hub(log: Log) -> Hub:
    return hub_of(log)


async def test_a_feed_that_fails_takes_no_other_with_it(log: Log) -> None:
    class Failing(Listener):
        def welcome(self, feed: Feed, *, since: int, counts: Counts | None, resumed: bool) -> None:
            raise RuntimeError("unable to perform operation")

    hub = hub_of(log)
    bystander, other = await attached(hub), Listener()
    await hub.resume.attach(FeedKey("room", "other"), other, since=None, epoch=None, connect_seq=5)
    arriving = asyncio.create_task(
        hub.resume.attach(KEY, Failing(), since=None, epoch=None, connect_seq=6)
    )
    await soon(lambda: bool(the_feed(hub).subscribers.pending))
    made = log.append()

    hub.offer([made, replace(made, feed=FeedKey("room", "other"))], 0.0)
    await soon(lambda: other.stands_at == 6)

    assert bystander.code == 4201
    with pytest.raises(Unavailable):
        await arriving
    assert (await attached(hub)).welcomes == [(False, 6)]


async def test_a_small_feed_is_told_in_the_turn_of_the_commit(hub: Hub, log: Log) -> None:
    listeners = [await attached(hub) for _ in range(broadcast.SMALL)]

    hub.offer([log.append(), log.append()], 0.0)

    assert [(each.seqs, each.writes) for each in listeners] == [([6, 7], 1)] * len(listeners)


async def test_a_larger_feed_is_told_at_the_end_of_the_turn(hub: Hub, log: Log) -> None:
    listeners = [await attached(hub) for _ in range(broadcast.SMALL + 1)]

    hub.offer([log.append()], 0.0)
    hub.offer([log.append()], 0.0)

    assert [each.seqs for each in listeners] == [[]] * len(listeners)
    await soon(lambda: all(each.stands_at == 7 for each in listeners))
    assert {each.writes for each in listeners} == {1}


async def test_a_gap_is_read_from_the_log_at_once(hub: Hub, log: Log) -> None:
    listener = await attached(hub)
    log.append()
    log.append()

    hub.offer([log.append()], 0.0)
    await soon(lambda: listener.stands_at == 8)

    listener.was_told_all(8)


async def test_what_nobody_announced_is_found_by_the_poll(hub: Hub, log: Log) -> None:
    listener = await attached(hub)
    log.append()

    await hub.catch_up.poll()
    await soon(lambda: listener.stands_at == 6)

    listener.was_told_all(6)


async def test_a_gap_that_shows_just_when_the_reader_ends_is_read_too() -> None:
    """The old reader has returned, but the loop has not yet said so."""

    class Racing(Log):
        async def events_after(self, feed_id: str, seq: int, limit: int, /) -> list[Event]:
            found = await super().events_after(feed_id, seq, limit)
            if len(self.events) == 7:
                self.append()
                asyncio.get_running_loop().call_soon(racing.offer, [self.append()], 0.0)
            return found

    log = Racing(5)
    racing = hub_of(log)
    listener = await attached(racing)
    log.append()

    log.append()
    await racing.catch_up.poll()  # starts the reader
    await soon(lambda: listener.stands_at == 9)

    listener.was_told_all(9)


async def test_many_who_attach_at_once_read_the_log_once(hub: Hub, log: Log) -> None:
    listeners = await asyncio.gather(*(attached(hub) for _ in range(500)))

    assert log.reads == 1
    assert {tuple(listener.welcomes) for listener in listeners} == {((False, 5),)}


async def test_a_seq_past_the_logs_end_is_answered_by_a_snapshot(hub: Hub) -> None:
    assert (await attached(hub, since=6)).welcomes == [(False, 5)]
    assert (await attached(hub, since=5)).welcomes == [(True, 5)]


async def test_an_own_event_that_this_node_has_not_heard_yet_is_waited_for(
    hub: Hub, log: Log
) -> None:
    """A seq past this feed, not past the log: the client came from a node that was faster."""
    await attached(hub)
    log.append()
    log.append()

    listener = await attached(hub, since=6, seq=7)

    assert listener.welcomes == [(True, 6)]
    listener.was_told_all(7)


async def test_a_log_that_was_set_back_ends_the_stream(hub: Hub, log: Log) -> None:
    listener = await attached(hub)
    del log.events[3:]

    await hub.catch_up.poll()

    assert listener.code == 4201
    assert (await attached(hub)).welcomes == [(False, 3)]


async def test_an_announcement_of_what_the_log_does_not_have_harms_nobody(
    hub: Hub, log: Log
) -> None:
    listener = await attached(hub)

    hub.offer([event(9)], 0.0)
    await soon(lambda: not the_feed(hub).is_behind)
    for _ in range(4):
        hub.offer([log.append()], 0.0)
    await soon(lambda: listener.stands_at == 9)

    listener.was_told_all(9)


async def test_while_the_log_is_away_listeners_wait_and_then_miss_nothing(
    hub: Hub, log: Log
) -> None:
    listener = await attached(hub)
    log.append()
    log.is_away = True
    hub.offer([log.append()], 0.0)
    await asyncio.sleep(0.1)
    assert listener.stands_at == 5

    log.is_away = False
    await soon(lambda: listener.stands_at == 7)

    listener.was_told_all(7)


async def test_an_unknown_feed_is_not_found() -> None:
    class Nowhere(Log):
        async def load(self, feed_id: str, /) -> tuple[Head, Count] | None:
            return None

        async def head(self, feed_id: str, /) -> int | None:
            return None

    hub = hub_of(Nowhere())

    with pytest.raises(NotFound):
        await attached(hub)
    with pytest.raises(NotFound):
        await attached(hub, seq=3)


async def test_a_sync_repeats_what_was_missed_and_goes_on(hub: Hub, log: Log) -> None:
    listener = await attached(hub)
    feed = the_feed(hub)
    for _ in range(3):
        hub.offer([log.append()], 0.0)

    await hub.resume.sync(feed, listener, since=6, epoch=None)
    hub.offer([log.append()], 0.0)
    await soon(lambda: listener.stands_at == 9)

    assert listener.seqs == [6, 7, 8, 7, 8, 9]
    await hub.resume.sync(feed, listener, since=99, epoch=None)
    assert listener.welcomes[-1] == (False, 9)


# -- all of it, in any order ---------------------------------------------------------------------


async def one_story(chance: random.Random) -> None:
    """Commits, a bus that loses, doubles and reorders, clients that come, resume and go."""
    log = Log(chance.randrange(4), chance)
    hub = hub_of(log)
    on_its_way: list[Event] = []
    listeners: list[Listener] = []
    arriving: list[asyncio.Task[Any]] = []

    async def arrive(listener: Listener, since: int | None, seq: int | None) -> None:
        try:
            await hub.resume.attach(KEY, listener, since=since, epoch=None, connect_seq=seq)
        except Unavailable:
            assert listener.welcomes == [], "refused after it was greeted"
            return
        (greeting,) = listener.welcomes
        if since is not None:
            assert greeting == (True, since), "few were missed, and it got a snapshot"

    for _ in range(chance.randrange(5, 40)):
        match chance.randrange(8):
            case 0 | 1 | 2:
                made = log.append()
                on_its_way += [made] * chance.choice((0, 1, 1, 1, 2))
                if chance.random() < 0.5:
                    hub.offer([made], 0.0)
            case 3 | 4 if on_its_way:
                hub.offer([on_its_way.pop(chance.randrange(len(on_its_way)))], 0.0)
            case 5:
                listener = Listener()
                listeners.append(listener)
                end = len(log.events)
                since = chance.choice((None, 0, end, chance.randrange(end + 1)))
                seq = chance.choice((None, end))
                arriving.append(asyncio.create_task(arrive(listener, since, seq)))
            case 6 if (feed := hub.feeds.get(KEY)) is not None and feed.seq is not None:
                heard = [each for each in listeners if each in feed.subscribers]
                chance.shuffle(heard)
                for each in heard[:2]:
                    hub.broadcast.flush(feed, each)  # as before each direct write
                    assert each.stands_at == feed.seq
            case 7:
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(0)

    await asyncio.gather(*arriving)
    log.is_calm = True
    await hub.catch_up.poll()
    if (feed := hub.feeds.get(KEY)) is not None and feed.is_used:
        await soon(lambda: not feed.is_behind)
    greeted = [each for each in listeners if each.welcomes]
    await soon(lambda: all(each.stands_at == len(log.events) for each in greeted))
    for listener in listeners:
        if listener.welcomes:
            assert len(listener.welcomes) == 1
            listener.was_told_all(len(log.events))
    await hub.close()


@pytest.mark.parametrize("block", range(4))
async def test_in_thousands_of_random_stories_everybody_is_told_everything_once(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "LATE_SECONDS", 0.0)
    monkeypatch.setattr(catch_up, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(broadcast, "FIRST_WRITES", block + 1)  # broadcasts take several turns
    monkeypatch.setattr(broadcast, "WRITES_PER_TURN", 1)
    monkeypatch.setattr(broadcast, "SMALL", -1 if block % 2 else 16)
    for number in range(500):
        seed = block * 500 + number
        try:
            await one_story(random.Random(seed))
        except Exception as error:
            raise AssertionError(f"story {seed}: {error}") from error

"""The hub: every listener is told everything once, in order, whatever the bus does."""

from __future__ import annotations

import asyncio
import random
from contextlib import nullcontext
from typing import Any

import pytest

from coordinator.domain.errors import NotFound, Unavailable
from coordinator.domain.events import Event, FeedKey, Head
from coordinator.domain.roster import Counts
from coordinator.live import broadcast, catch_up
from coordinator.live.feed import Feed
from coordinator.live.hub import Hub
from tests.harness.feeds import KEY, Count, Listener, Log, attached, event, hub_of, soon, the_feed
from tests.harness.patience import untraced


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

    hub.offer([made, made._replace(feed=FeedKey("room", "other"))], 0.0)
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


async def test_what_is_held_of_somebody_erased_is_read_anew(hub: Hub, log: Log) -> None:
    listener = await attached(hub)
    hub.offer([log.append()], 0.0)
    feed = the_feed(hub)
    log.erasures += 1

    await hub.catch_up.poll()
    hub.offer([log.append()], 0.0)  # comes while the state is read
    await soon(lambda: not feed.is_behind)

    assert feed.state is not None
    assert feed.state.erasures == 1
    assert (feed.seq, len(feed.history)) == (7, 0)
    listener.was_told_all(7)
    assert (await attached(hub, since=5)).seqs == [6, 7]


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


async def test_who_goes_while_its_sync_waits_for_later_events_is_put_out(
    hub: Hub, log: Log
) -> None:
    going, staying = Listener("u"), Listener("v")
    for each in (going, staying):
        await hub.resume.attach(KEY, each, since=None, epoch=None, connect_seq=5)
    out, later = log.append("out", who="u"), log.append()
    syncs = [
        asyncio.create_task(hub.resume.sync(the_feed(hub), each, since=99, epoch=None))
        for each in (going, staying)
    ]
    await soon(lambda: len(the_feed(hub).subscribers.pending) == 2)

    hub.offer([out], 0.0)
    hub.offer([later], 0.0)
    await asyncio.gather(*syncs)

    assert (going.code, staying.code) == (4009, None)
    assert list(the_feed(hub).subscribers) == [staying]
    assert staying.welcomes[-1] == (False, 7)


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
            with untraced() if number else nullcontext():
                await one_story(random.Random(seed))
        except Exception as error:
            raise AssertionError(f"story {seed}: {error}") from error

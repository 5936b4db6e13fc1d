"""One feed: each event is applied once, in order, and every subscriber is told everything once."""

from __future__ import annotations

import json
import random

import pytest

from coordinator.domain.events import Head
from coordinator.live.feed import Feed
from coordinator.live.frames import text_frame
from coordinator.live.history import HISTORY, Histories
from coordinator.live.subscribers import PendingSubscriber
from tests.harness.feeds import AT, KEY, Count, Listener, decoded, end_turn, event, loaded


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

    assert end_turn(feed) == 3
    assert end_turn(feed) == 0
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
    assert end_turn(feed) == 2 + 2 + 1 + 1

    assert [each.writes for each in listeners] == [2, 2, 2, 2, 1]
    for listener in listeners:
        listener.was_told_all(3)
    assert not end_turn(feed)
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
    end_turn(feed)

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

    end_turn(feed)
    feed.offer(event(2))
    end_turn(feed)

    assert listener.welcomes == [(False, 1)]
    listener.was_told_all(2)


def test_nobody_is_let_in_before_the_feed_has_what_it_needs() -> None:
    feed, listener = loaded(3), Listener()
    feed.subscribers.pending.append(
        PendingSubscriber(listener, since=2, epoch="", need=5, greets=True)
    )

    end_turn(feed)
    feed.offer(event(4))
    end_turn(feed)
    assert listener.welcomes == []
    feed.offer(event(5))
    end_turn(feed)

    assert listener.welcomes == [(False, 5)], "3 is not in this history: a snapshot"


@pytest.mark.parametrize(
    ("missed", "resumes"), [(0, True), (1, True), (HISTORY, True), (HISTORY + 1, False)]
)
def test_the_history_resumes_up_to_its_length(missed: int, resumes: bool) -> None:
    feed, listener = loaded(0), Listener()
    for seq in range(1, 401):
        feed.offer(event(seq))
    end_turn(feed)
    feed.subscribers.pending.append(
        PendingSubscriber(listener, since=400 - missed, epoch="", need=400, greets=True)
    )

    end_turn(feed)

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
    end_turn(feed)
    feed.offer(event(2))
    end_turn(feed)

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

    end_turn(feed)

    assert (old.code, newer.code, other.code) == (4009, None, None)
    assert old.seqs == [1, 2], "it is told before it goes"


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 70000])
def test_a_frame_says_its_length_in_each_of_the_three_ways(size: int) -> None:
    payload = json.dumps("x" * size).encode()

    assert decoded(text_frame(payload)) == [json.loads(payload)]

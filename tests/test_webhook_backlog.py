"""Whose turn it is: the backlog of one endpoint, decided without I/O and without a clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.domain.events import ROOM, Event, FeedKey
from coordinator.store.webhook_feeds import Behind, TellableEvent
from coordinator.webhooks.backlog import FAILING_IN_FLIGHT, IN_FLIGHT, Backlog, TrackedFeed

NOW = datetime(2026, 11, 25, tzinfo=UTC)
LIMIT = 20


def key(name: str) -> FeedKey:
    return FeedKey(ROOM, name)


def behind(name: str, head: int, *, position: int = 0, attempts: int = 0) -> Behind:
    return Behind(
        feed=key(name), position=position, head=head, attempts=attempts, retry_at=None,
        failing_since=NOW if attempts else None,
    )  # fmt: skip


def event(name: str, seq: int, told_as: str = "participant_joined") -> TellableEvent:
    return TellableEvent(Event(key(name), seq, told_as, "", {}), NOW, told_as)


def filled(backlog: Backlog, *, to: int | None = None) -> None:
    """Reads what is to be read, as the log would answer that is `to` long."""
    for feed in backlog.to_read(1000):
        last = feed.head if to is None else to
        events = [event(feed.key.id, seq) for seq in range(feed.read_to + 1, last + 1)][:LIMIT]
        backlog.fill(feed, events, limit=LIMIT)


def backlog_of(*found: Behind) -> Backlog:
    backlog = Backlog(lambda told_as: told_as != "unwanted")
    backlog.admit(found, NOW)
    filled(backlog)
    return backlog


def taken_from(backlog: Backlog) -> TrackedFeed:
    feed = backlog.take()
    assert feed is not None
    return feed


def test_one_event_of_a_log_is_under_way_at_a_time() -> None:
    backlog = backlog_of(behind("a", 3))

    feed = taken_from(backlog)

    assert feed.events[0].event.seq == 1
    assert backlog.take() is None
    backlog.taken(feed, "200")
    assert taken_from(backlog).events[0].event.seq == 2


def test_a_refused_event_waits_and_is_the_next_again() -> None:
    backlog = backlog_of(behind("a", 2))
    due = NOW + timedelta(seconds=5)

    backlog.refused(taken_from(backlog), "500", now=NOW, retry_at=due)

    assert backlog.take() is None
    assert backlog.wake(NOW) == due
    assert backlog.take() is None
    backlog.wake(due)
    assert taken_from(backlog).events[0].event.seq == 1


def test_a_parked_log_is_not_sent_from() -> None:
    backlog = backlog_of(behind("a", 2))

    backlog.refused(taken_from(backlog), "500", now=NOW, retry_at=None)
    backlog.hear(key("a"), 3, NOW)

    assert backlog.take() is None
    (note,) = [feed.note() for feed in backlog.to_note()]
    assert (note.position, note.parked_at) == (0, NOW)


def test_at_most_100_are_under_way_and_half_of_them_of_failing_logs() -> None:
    failing = [behind(f"f{n}", 1, attempts=1) for n in range(200)]
    fresh = [behind(f"n{n}", 1, position=0) for n in range(200)]
    proven = [behind(f"p{n}", 2, position=1) for n in range(200)]
    backlog = backlog_of(*failing, *fresh, *proven)

    under_way = []
    while (feed := backlog.take()) is not None:
        under_way.append(feed)

    assert len(under_way) == IN_FLIGHT
    assert sum(feed.attempts > 0 for feed in under_way) <= FAILING_IN_FLIGHT


def test_logs_that_fail_leave_half_of_the_places_to_others() -> None:
    backlog = backlog_of(*(behind(f"f{n}", 1, attempts=1) for n in range(200)))

    under_way = 0
    while backlog.take() is not None:
        under_way += 1

    assert under_way == FAILING_IN_FLIGHT


def test_new_logs_that_hang_leave_places_to_those_whose_last_event_was_taken() -> None:
    backlog = backlog_of(*(behind(f"n{n}", 1) for n in range(200)))
    while backlog.take() is not None:
        pass

    backlog.admit([behind("well", 2, position=1)], NOW)
    filled(backlog)

    assert taken_from(backlog).key == key("well")


def test_events_that_are_not_wanted_move_the_position() -> None:
    backlog = Backlog(lambda told_as: told_as != "unwanted")
    backlog.admit([behind("a", 3)], NOW)
    (feed,) = backlog.to_read(10)

    backlog.fill(
        feed, [event("a", 1, "unwanted"), event("a", 2), event("a", 3, "unwanted")], limit=LIMIT
    )
    backlog.taken(taken_from(backlog), "200")

    assert [note.position for note in (f.note() for f in backlog.to_note())] == [3]
    assert backlog.take() is None


def test_what_was_purged_is_passed_over() -> None:
    backlog = backlog_of()
    backlog.admit([behind("a", 3)], NOW)

    filled(backlog, to=0)

    assert [feed.note().position for feed in backlog.to_note()] == [3]


def test_a_head_that_only_a_hint_has_told_never_moves_a_position() -> None:
    backlog = backlog_of(behind("a", 1))
    backlog.taken(taken_from(backlog), "200")
    backlog.to_note()

    backlog.hear(key("a"), 1000, NOW)
    filled(backlog, to=1)
    assert backlog.to_note() == []
    backlog.hear(key("a"), 2, NOW)
    filled(backlog, to=2)

    assert taken_from(backlog).events[0].event.seq == 2


def test_a_log_that_was_set_back_goes_on_from_its_end() -> None:
    backlog = backlog_of()
    backlog.admit([behind("a", 3, position=5)], NOW)
    filled(backlog, to=3)
    assert [feed.note().position for feed in backlog.to_note()] == [3]

    backlog.hear(key("a"), 4, NOW)
    filled(backlog, to=4)

    assert taken_from(backlog).events[0].event.seq == 4


def test_so_much_that_is_not_noted_stops_the_sending() -> None:
    backlog = backlog_of(behind("a", 5000))
    sent = 0
    while (feed := backlog.take()) is not None:
        sent += 1
        backlog.taken(feed, "200")
        filled(backlog)

    assert sent == 1000
    backlog.to_note()
    assert backlog.take() is not None


@settings(max_examples=200)
@given(st.data())
def test_whatever_happens_each_log_is_told_in_order_and_whole(data: st.DataObject) -> None:
    heads = {f"r{n}": data.draw(st.integers(1, 30)) for n in range(3)}
    backlog = Backlog(lambda _: True)
    told: dict[str, list[int]] = {name: [] for name in heads}
    under_way: list[TrackedFeed] = []
    clock = NOW
    for _ in range(data.draw(st.integers(0, 120))):
        match data.draw(st.sampled_from(["hear", "admit", "read", "take", "ok", "fail", "note"])):
            case "hear":
                name = data.draw(st.sampled_from(list(heads)))
                heads[name] += 1
                backlog.hear(key(name), heads[name], clock)
            case "admit":
                name = data.draw(st.sampled_from(list(heads)))
                backlog.admit([behind(name, heads[name])], clock)
            case "read":
                _read(backlog, heads)
            case "take":
                if (feed := backlog.take()) is not None:
                    under_way.append(feed)
            case "ok" if under_way:
                feed = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
                told[feed.key.id].append(feed.events[0].event.seq)
                backlog.taken(feed, "200")
            case "fail" if under_way:
                feed = under_way.pop()
                backlog.refused(feed, "500", now=clock, retry_at=clock + timedelta(seconds=5))
            case _:
                clock += timedelta(seconds=3)
                backlog.wake(clock)
                backlog.forget(backlog.to_note(), later_than=clock + timedelta(seconds=15))
    _finish(backlog, heads, told, under_way, clock)

    for name, seqs in told.items():
        assert seqs == list(range(1, heads[name] + 1))


def _read(backlog: Backlog, heads: dict[str, int]) -> None:
    for feed in backlog.to_read(10):
        last = heads[feed.key.id]
        events = [event(feed.key.id, seq) for seq in range(feed.read_to + 1, last + 1)][:LIMIT]
        backlog.fill(feed, events, limit=LIMIT)


def _finish(
    backlog: Backlog, heads: dict[str, int], told: dict[str, list[int]],
    under_way: list[TrackedFeed], clock: datetime,
) -> None:  # fmt: skip
    """Everything that is lacking is read and taken."""
    for feed in under_way:
        told[feed.key.id].append(feed.events[0].event.seq)
        backlog.taken(feed, "200")
    backlog.admit(
        [behind(n, h, position=len(told[n])) for n, h in heads.items() if h > len(told[n])], clock
    )
    for _ in range(500):
        clock += timedelta(seconds=10)
        backlog.wake(clock)
        _read(backlog, heads)
        if (taken := backlog.take()) is not None:
            told[taken.key.id].append(taken.events[0].event.seq)
            backlog.taken(taken, "200")

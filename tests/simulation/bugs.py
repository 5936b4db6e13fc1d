"""Faults planted into the real cores. The simulation must find each of them: it is what proves that
its promises are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from coordinator.domain import room_rules as rules
from coordinator.domain.events import Event
from coordinator.live import resume
from coordinator.live.broadcast import Broadcast
from coordinator.live.catch_up import CatchUp
from coordinator.live.feed import Feed
from coordinator.live.history import History
from coordinator.live.hub import Hub
from coordinator.live.reaper import Reaper, Reconciler
from coordinator.live.subscribers import Subscribers

Plant = Callable[[pytest.MonkeyPatch], None]


def a_gap_is_delivered(patch: pytest.MonkeyPatch) -> None:
    """A later event is told although the one before it has not come."""

    def offer(feed: Feed, event: Event) -> bool:
        if feed.seq is None or event.seq <= feed.seq or feed.is_frozen:
            return _offer(feed, event)
        feed._apply(event)
        return True

    _offer = Feed.offer
    patch.setattr(Feed, "offer", offer)


def a_doubled_message_is_delivered_twice(patch: pytest.MonkeyPatch) -> None:
    def offer(feed: Feed, event: Event) -> bool:
        if feed.seq is not None and event.seq == feed.seq:
            feed._apply(event)
            return True
        return _offer(feed, event)

    _offer = Feed.offer
    patch.setattr(Feed, "offer", offer)


def a_direct_write_does_not_flush(patch: pytest.MonkeyPatch) -> None:
    """A ping overtakes the events before it."""
    patch.setattr(Broadcast, "flush", lambda *_: None)


def nobody_polls(patch: pytest.MonkeyPatch) -> None:
    """What no message announced stays unknown."""

    async def poll(catch_up: CatchUp) -> None:
        return None

    patch.setattr(CatchUp, "poll", poll)


def a_gap_is_not_read(patch: pytest.MonkeyPatch) -> None:
    """What the log has is thrown away by whoever reads it."""
    patch.setattr("coordinator.live.catch_up._take_events", lambda *_: None)


def a_new_history_is_not_noticed(patch: pytest.MonkeyPatch) -> None:
    """Feeds go on as if the database were the same."""
    patch.setattr(Hub, "change_history", lambda *_: None)
    patch.setattr(CatchUp, "_close_contradicted", lambda *_: None)


def what_vanished_is_not_looked_for(patch: pytest.MonkeyPatch) -> None:
    """After a failover every feed is believed to be in the new log."""

    async def prove(catch_up: CatchUp, source: Any, feeds: list[Feed], epoch: str) -> None:
        for feed in feeds:
            feed.thaw(epoch)

    patch.setattr(CatchUp, "_prove_chunk", prove)


def what_was_announced_before_a_failover_is_told_after_it(patch: pytest.MonkeyPatch) -> None:
    """Events of the old history wait in the reorder buffer until the new log has grown to them."""
    patch.setattr(Feed, "_forget_other_histories", lambda *_: None)


def the_epoch_of_a_resume_is_ignored(patch: pytest.MonkeyPatch) -> None:
    def greet(feed: Feed, entry: Any, seq: int) -> None:
        entry.epoch = feed.epoch
        _greet(feed, entry, seq)

    _greet = resume._greet
    patch.setattr(resume, "_greet", greet)


def a_resume_misses_the_first_event(patch: pytest.MonkeyPatch) -> None:
    _after = History.after
    patch.setattr(History, "after", lambda history, since: _after(history, since)[1:])


def a_cached_snapshot_grows_old(patch: pytest.MonkeyPatch) -> None:
    def apply(feed: Feed, event: Event) -> None:
        kept = feed._snapshot
        _apply(feed, event)
        feed._snapshot = kept

    _apply = Feed._apply
    patch.setattr(Feed, "_apply", apply)


def a_broadcast_leaves_somebody_out(patch: pytest.MonkeyPatch) -> None:
    def begin(subscribers: Subscribers) -> None:
        subscribers._broadcast = iter(list(subscribers._cursors.values())[1:])
        subscribers._broadcast_began_at = subscribers.head

    patch.setattr(Subscribers, "begin_broadcast", begin)


def a_late_close_puts_out_a_newer_connection(patch: pytest.MonkeyPatch) -> None:
    """Dropping is by the person, not by the connection."""

    def disconnect(room: Any, policy: Any, *, user_id: str, session_id: str) -> None:
        person = room.participants.get(user_id)
        if person is not None and person.connections:
            session_id = person.connections[-1]
        _disconnect(room, policy, user_id=user_id, session_id=session_id)

    _disconnect = rules.disconnect
    patch.setattr(rules, "disconnect", disconnect)


def who_returned_expires_all_the_same(patch: pytest.MonkeyPatch) -> None:
    """A candidate of the reaper is believed, not decided again under the lock."""

    def expire(room: Any, *, user_id: str) -> bool:
        person = room.participants.get(user_id)
        if person is None or not person.present or room.is_ended:
            return False
        rules._depart(room, person, "disconnected")
        return True

    patch.setattr(rules, "expire", expire)


def a_dead_node_keeps_its_lease(patch: pytest.MonkeyPatch) -> None:
    async def reap(reaper: Reaper) -> None:
        return None

    patch.setattr(Reaper, "reap", reap)


def no_deadline_is_carried_out(patch: pytest.MonkeyPatch) -> None:
    async def enforce(reaper: Reaper) -> None:
        return None

    patch.setattr(Reaper, "enforce_deadlines", enforce)


def nobody_reconciles(patch: pytest.MonkeyPatch) -> None:
    """Disconnects that could not be written stay unwritten."""

    async def reconcile(reconciler: Reconciler) -> None:
        return None

    patch.setattr(Reconciler, "reconcile", reconcile)


BUGS: tuple[Plant, ...] = (
    a_dead_node_keeps_its_lease,
    no_deadline_is_carried_out,
    nobody_reconciles,
    a_gap_is_delivered,
    a_doubled_message_is_delivered_twice,
    a_direct_write_does_not_flush,
    nobody_polls,
    a_gap_is_not_read,
    a_new_history_is_not_noticed,
    what_vanished_is_not_looked_for,
    what_was_announced_before_a_failover_is_told_after_it,
    the_epoch_of_a_resume_is_ignored,
    a_resume_misses_the_first_event,
    a_cached_snapshot_grows_old,
    a_broadcast_leaves_somebody_out,
    a_late_close_puts_out_a_newer_connection,
    who_returned_expires_all_the_same,
)


@contextmanager
def planted(bug: Plant) -> Iterator[None]:
    """The cores with that fault in them."""
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        yield

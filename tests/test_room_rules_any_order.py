"""The rules of a room in any order: what holds whatever happens."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from coordinator.domain import room_rules as rules
from coordinator.domain.errors import (
    CoordinatorError,
)
from coordinator.domain.events import Event
from coordinator.domain.identity_claim import IdentityClaim
from coordinator.domain.roster import replay
from tests.harness.patience import untraced
from tests.test_room_refusals import ask_for_token, leave_by_id
from tests.test_room_rules import HOST, connect, disconnect, join, mark_away, new_room

USERS = st.sampled_from([HOST, "g0", "g1", "g2", "g3", "g4"])
SESSIONS = st.sampled_from([f"s{number}" for number in range(14)])


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Each rule by itself is traced: `test_room_rules`."""
    with untraced():
        yield


class AnyOrder(RuleBasedStateMachine):
    """Random rules; after each the log tells the same as the room, and the counts are right."""

    @initialize()
    def begin(self) -> None:
        self.room = new_room()
        self.log: list[Event] = list(self.room.events)
        self.rows: dict[str, str] = {}
        self.marked: dict[str, str] = {}
        """The rows of connections that are marked away."""
        self.ended_seq: int | None = None
        self.room.events.clear()

    def ask(self, rule: Callable[[], Any]) -> None:
        """One transaction: it is written, or it was refused and nothing is."""
        room = self.room
        before = copy.deepcopy(room)
        try:
            rule()
        except CoordinatorError:
            assert room == before, "a refused rule changed something"
        moved = {session: self.rows.pop(session) for session in room.marked}
        for session in room.unmarked:
            self.rows[session] = self.marked.pop(session)
        for session in room.closed_marked:
            del self.marked[session]
        self.marked |= moved
        for session in room.closed:
            self.rows.pop(session, None)
        for session, user_id, _ in room.opened:
            if session not in room.closed:
                assert session not in self.rows, "a row is written twice"
                self.rows[session] = user_id
        if room.is_ended:
            self.rows.clear()
            self.marked.clear()
        self.log += room.events
        room.forget_changes()

    @rule(user=USERS)
    def joins(self, user: str) -> None:
        if user != HOST:
            self.ask(lambda: join(self.room, user))

    @rule(user=USERS, session=SESSIONS, returning=st.booleans())
    def connects(self, user: str, session: str, returning: bool) -> None:
        if self.owner(session, user) == user:
            self.ask(lambda: connect(self.room, user, session, returning=returning))

    @rule(user=USERS, session=SESSIONS)
    def disconnects(self, user: str, session: str) -> None:
        self.ask(lambda: disconnect(self.room, user, session))

    @rule(user=USERS, session=SESSIONS)
    def is_marked_away(self, user: str, session: str) -> None:
        self.ask(lambda: mark_away(self.room, user, session))

    @rule(user=USERS, session=SESSIONS, steps=st.lists(st.sampled_from("mrdc"), max_size=5))
    def does_many_things_in_one_transaction(
        self, user: str, session: str, steps: list[str]
    ) -> None:
        if self.owner(session, user) != user:
            return

        def all_of_them() -> None:
            for step in steps:
                # What is refused changes nothing; what came before it stands.
                with contextlib.suppress(CoordinatorError):
                    self.step(step, user, session)

        self.ask(all_of_them)

    def step(self, step: str, user: str, session: str) -> None:
        """Marks it away, returns, disconnects or connects."""
        match step:
            case "m":
                mark_away(self.room, user, session)
            case "r":
                connect(self.room, user, session, returning=True)
            case "d":
                disconnect(self.room, user, session)
            case _:
                connect(self.room, user, session)

    def owner(self, session: str, user: str) -> str:
        """Whose session that is; `user`'s where it is nobody's yet."""
        return self.rows.get(session) or self.marked.get(session, user)

    @rule(seconds=st.sampled_from([0, 1, 29, 30, 31, 300]))
    def time_passes(self, seconds: int) -> None:
        self.room.now += timedelta(seconds=seconds)

    @rule(user=USERS)
    def expires(self, user: str) -> None:
        self.ask(lambda: rules.expire(self.room, user_id=user))

    @rule(user=USERS)
    def leaves(self, user: str) -> None:
        self.ask(lambda: rules.leave(self.room, user_id=user))

    @rule(user=USERS, proven=st.booleans(), required=st.booleans())
    def leaves_by_id(self, user: str, proven: bool, required: bool) -> None:
        shown = IdentityClaim(is_presented=proven, is_required=required)
        self.ask(lambda: leave_by_id(self.room, user, claim=shown))

    @rule(user=USERS, proven=st.booleans())
    def asks_for_token(self, user: str, proven: bool) -> None:
        shown = IdentityClaim(is_presented=proven, is_required=False)
        self.ask(lambda: ask_for_token(self.room, user, claim=shown))

    @rule(user=USERS)
    def is_removed(self, user: str) -> None:
        self.ask(lambda: rules.remove(self.room, user_id=user))

    @rule(really=st.integers(0, 9))
    def ends(self, really: int) -> None:
        if really == 0:
            self.ask(lambda: rules.end(self.room, by=HOST, reason="ended"))
            self.ended_seq = self.room.last_seq

    @invariant()
    def the_log_has_no_hole(self) -> None:
        assert [event.seq for event in self.log] == list(range(1, self.room.last_seq + 1))
        assert [event.at for event in self.log] == sorted(event.at for event in self.log)

    @invariant()
    def the_replay_of_the_log_is_the_room(self) -> None:
        told = replay(self.log)
        here = [p for p in self.room.participants.values() if p.present]
        here.sort(key=lambda p: p.joined_seq)
        assert list(told.participants.values()) == [p.view() for p in here]
        assert told.room["status"] == self.room.status

    @invariant()
    def the_counts_are_right(self) -> None:
        here = [p for p in self.room.participants.values() if p.present]
        assert self.room.present == len(here)
        assert self.room.guests == sum(not p.is_host for p in here)
        assert self.room.online == sum(p.connection == "online" for p in here)

    @invariant()
    def a_state_follows_from_rows_and_deadlines(self) -> None:
        for p in self.room.participants.values():
            live = {s for s, u in self.rows.items() if u == p.user_id}
            marked = {s for s, u in self.marked.items() if u == p.user_id}
            assert (set(p.connections) - p.marked, p.marked) == (live, marked)
            assert len(p.connections) == len(set(p.connections)) <= rules.MAX_CONNECTIONS
            assert p.is_live == bool(live) == (p.connection == "online")
            assert (p.leave_at is not None) == (p.connection == "away")
            if not p.present:
                assert p.connection == "none"
            if p.removed:
                assert not p.present

    @invariant()
    def the_times_of_absence_are_right(self) -> None:
        room = self.room
        host = room.participants[HOST]
        if not room.is_ended:
            assert (room.host_absent_since is None) == (host.connection == "online")
            assert (room.empty_since is None) == bool(room.online or room.guests)

    @invariant()
    def nothing_follows_the_end(self) -> None:
        if self.ended_seq is not None:
            assert self.log[-1].type == "room_ended"
            assert self.room.last_seq == self.ended_seq


AnyOrder.TestCase.settings = hypothesis_settings(max_examples=120, stateful_step_count=40)
TestAnyOrder = AnyOrder.TestCase

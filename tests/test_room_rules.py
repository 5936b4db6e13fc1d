"""The rules of a room, without a database: what each does, refuses, and leaves as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from coordinator.domain import room_rules as rules
from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import (
    CoordinatorError,
    Forbidden,
    InvalidParams,
    NotFound,
    Removed,
    RoomEnded,
    RoomFull,
    TokenExpired,
    Unauthorized,
)
from coordinator.domain.events import Event
from coordinator.domain.room import Lifespan, Participant, Policy, Room, room_view
from coordinator.domain.roster import Departure, replay

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GRACE = timedelta(seconds=30)
POLICY = Policy(capacity=4, grace=GRACE)
HOST = "user_001"


def new_room() -> Room:
    """As create-room leaves it: the host is in it, and not connected."""
    room = Room(
        room_id="r", room_name="房间", host_name="张经理", status="active", created_at=NOON,
        ended_at=None, last_seq=0, last_at=NOON, present=1, guests=0, online=0,
        host_absent_since=NOON, empty_since=NOON, now=NOON,
    )  # fmt: skip
    host = Participant(HOST, "张经理", "host", None, NOON, 1)
    room.participants[HOST] = host
    room.record("room_created", {"room": room_view(room), "participant": host.view()})
    return room


def join(room: Room, user_id: str = "g") -> Participant:
    return rules.join(room, POLICY, user_id=user_id, user_name="李明", identity=None)


def connect(room: Room, user_id: str, session: str, *, returning: bool = False) -> None:
    rules.connect(
        room, POLICY, user_id=user_id, session_id=session, node_epoch="run", returning=returning
    )


def disconnect(room: Room, user_id: str, session: str) -> None:
    rules.disconnect(room, POLICY, user_id=user_id, session_id=session)


def types(room: Room) -> list[str]:
    return [event.type for event in room.events][1:]


# -- joining and returning -----------------------------------------------------------------------


def test_a_join_is_an_event_with_the_seq_that_it_answers() -> None:
    room = new_room()

    guest = join(room)

    assert guest.joined_seq == 2
    assert room.events[-1].data == {"participant": guest.view()}
    assert (room.present, room.guests, room.online) == (2, 1, 0)


def test_joining_while_in_it_changes_nothing() -> None:
    room = new_room()
    join(room)

    rules.join(room, POLICY, user_id="g", user_name="another", identity="x")

    assert types(room) == ["participant_joined"]
    assert room.participants["g"].user_name == "李明"


def test_a_return_after_leaving_is_a_new_join_under_the_new_name() -> None:
    room = new_room()
    join(room)
    rules.leave(room, user_id="g")
    room.now += timedelta(minutes=1)

    back = rules.join(room, POLICY, user_id="g", user_name="小李", identity="求职者")

    assert (back.joined_seq, back.joined_at, back.user_name) == (4, room.now, "小李")
    assert back.left_at is None


def test_a_first_connection_tells_online_and_proves_who_it_is() -> None:
    room = new_room()
    join(room)

    connect(room, "g", "s1")
    connect(room, "g", "s2")

    assert types(room) == ["participant_joined", "participant_online"]
    assert room.participants["g"].proven
    assert room.online == 1


def test_the_same_session_twice_is_one_connection() -> None:
    room = new_room()
    connect(room, HOST, "s1")

    connect(room, HOST, "s1")

    assert room.opened == [("s1", HOST, "run")]
    assert room.participants[HOST].connections == ["s1"]


def test_a_sixth_connection_pushes_out_the_oldest_without_an_event() -> None:
    room = new_room()
    for number in range(6):
        connect(room, HOST, f"s{number}")

    assert room.participants[HOST].connections == [f"s{number}" for number in range(1, 6)]
    assert room.replaced == ["s0"]
    assert types(room) == ["participant_online"]


def test_a_connection_that_goes_and_returns_in_one_batch_keeps_its_row() -> None:
    room = new_room()
    connect(room, HOST, "s1")
    room.opened.clear()  # written by an earlier transaction

    disconnect(room, HOST, "s1")
    connect(room, HOST, "s1", returning=True)

    assert (room.opened, room.closed) == ([], [])
    assert types(room) == ["participant_online", "participant_away", "participant_back"]


def test_who_had_gone_is_in_again_by_connecting() -> None:
    room = new_room()
    join(room)
    rules.leave(room, user_id="g")

    connect(room, "g", "s1")

    joined = room.events[-1]
    assert joined.type == "participant_joined"
    assert joined.data["participant"]["connection"] == "online"
    assert (room.present, room.guests, room.online) == (2, 1, 1)


def test_a_marked_connection_does_not_bring_back_who_has_gone() -> None:
    room = new_room()
    join(room)
    rules.leave(room, user_id="g")

    with pytest.raises(NotFound):
        connect(room, "g", "s1", returning=True)


# -- going ---------------------------------------------------------------------------------------


def test_the_last_connection_to_go_starts_the_grace() -> None:
    room = new_room()
    join(room)
    connect(room, "g", "s1")
    connect(room, "g", "s2")

    disconnect(room, "g", "s1")
    assert types(room)[-1] == "participant_online"
    disconnect(room, "g", "s2")

    away = room.events[-1]
    assert away.type == "participant_away"
    assert away.data["leaveAt"] == "2026-01-01T12:00:30.000Z"
    assert room.participants["g"].leave_at == NOON + GRACE


def test_a_late_close_does_not_put_out_the_newer_connection() -> None:
    room = new_room()
    connect(room, HOST, "old")
    disconnect(room, HOST, "old")
    connect(room, HOST, "new")

    disconnect(room, HOST, "old")

    assert types(room) == ["participant_online", "participant_away", "participant_back"]
    assert room.participants[HOST].connection == "online"


@pytest.mark.parametrize(("after", "leaves"), [(29.999, False), (30, True), (300, True)])
def test_a_deadline_is_carried_out_when_it_has_passed_never_before(
    after: float, leaves: bool
) -> None:
    room = new_room()
    join(room)
    connect(room, "g", "s1")
    disconnect(room, "g", "s1")
    room.now += timedelta(seconds=after)

    assert rules.expire(room, user_id="g") is leaves
    assert (types(room)[-1] == "participant_left") is leaves
    if leaves:
        assert room.events[-1].data["reason"] == "disconnected"
        assert rules.expire(room, user_id="g") is False, "once"


def test_who_never_connected_has_no_deadline() -> None:
    room = new_room()
    join(room)
    room.now += timedelta(days=1)

    assert rules.expire(room, user_id="g") is False
    assert rules.expire(room, user_id="nobody") is False


def test_who_never_connects_leaves_where_that_is_limited() -> None:
    room, limit = new_room(), timedelta(minutes=5)
    policy = replace(POLICY, unconnected=limit)
    rules.join(room, policy, user_id="g", user_name="李明", identity=None)
    rules.join(room, policy, user_id="comes", user_name="王芳", identity=None)
    connect(room, "comes", "s")

    assert rules.expire(room, user_id="g") is False
    room.now += limit
    assert rules.expire(room, user_id="g") is True
    assert rules.expire(room, user_id="comes") is False
    assert room.events[-1].data["reason"] == "disconnected"


def test_leaving_closes_every_connection_and_is_said_once() -> None:
    room = new_room()
    join(room)
    connect(room, "g", "s1")
    connect(room, "g", "s2")

    rules.leave(room, user_id="g")
    rules.leave(room, user_id="g")
    disconnect(room, "g", "s1")

    assert room.closed == ["s1", "s2"]
    assert types(room)[-2:] == ["participant_online", "participant_left"]
    assert (room.present, room.guests, room.online) == (1, 0, 0)


def test_the_end_is_the_last_event_and_the_same_the_second_time() -> None:
    room = new_room()
    join(room)
    connect(room, "g", "s1")

    first = rules.end(room, by=HOST, reason="ended")
    room.now += timedelta(hours=1)

    assert rules.end(room, by="user_002", reason="ended") == first == NOON
    assert types(room)[-1] == "room_ended"
    assert room.participants["g"].left_at == NOON
    assert (room.present, room.guests, room.online) == (0, 0, 0)


# -- refusals ------------------------------------------------------------------------------------


def test_a_connection_that_closes_after_the_end_tells_nothing() -> None:
    room = new_room()
    join(room)
    connect(room, "g", "s")
    rules.end(room, by=HOST, reason="ended")
    room.participants["g"].connections.append("t")  # a row that the end has overlooked
    told = types(room)

    disconnect(room, "g", "t")

    assert types(room) == told
    assert room.closed == ["s", "t"]
    assert room.online == 0


def ended() -> Room:
    room = new_room()
    join(room)
    rules.end(room, by=HOST, reason="ended")
    return room


def full() -> Room:
    room = new_room()
    join(room, "gone")
    rules.leave(room, user_id="gone")
    for number in range(3):
        join(room, f"g{number}")
    return room


def with_removed() -> Room:
    room = new_room()
    join(room)
    rules.remove(room, user_id="g")
    return room


def with_proven() -> Room:
    room = new_room()
    join(room)
    connect(room, "g", "s")
    return room


def leave_by_id(room: Room, user_id: str = "g", **how: Any) -> None:
    how = {"proven": False, "proof_required": False, **how}
    rules.leave_by_id(room, user_id=user_id, **how)


def ask_for_token(room: Room, user_id: str = "g", **how: Any) -> None:
    how = {"proven": False, "proof_required": False, **how}
    rules.admit_token_request(room, user_id=user_id, **how)


REFUSED: list[tuple[str, Callable[[], Room], Callable[[Room], Any], type[CoordinatorError]]] = [
    ("join an ended room", ended, join, RoomEnded),
    ("join a full room", full, join, RoomFull),
    ("return to a full room", full, lambda r: join(r, "gone"), RoomFull),
    ("return after removal", with_removed, join, Removed),
    ("connect to an ended room", ended, lambda r: connect(r, "g", "s"), RoomEnded),
    ("connect to a full room", full, lambda r: connect(r, "gone", "s"), RoomFull),
    ("connect after removal", with_removed, lambda r: connect(r, "g", "s"), Removed),
    ("connect a stranger", new_room, lambda r: connect(r, "x", "s"), Forbidden),
    ("leave as a stranger", new_room, leave_by_id, NotFound),
    ("leave as the host by id", new_room, lambda r: leave_by_id(r, HOST), NotFound),
    ("leave without the proof due", with_proven, leave_by_id, Unauthorized),
    ("leave with a bad proof", with_proven, lambda r: leave_by_id(r, bad_proof=TokenExpired()),
     TokenExpired),
    ("leave where proof is required", lambda: (r := new_room(), join(r))[0],
     lambda r: leave_by_id(r, proof_required=True), Unauthorized),
    ("a token in an ended room", ended, ask_for_token, RoomEnded),
    ("a token for a stranger", new_room, ask_for_token, Forbidden),
    ("a token for one removed", with_removed, ask_for_token, Forbidden),
    ("a token without the proof due", with_proven, ask_for_token, Unauthorized),
    ("remove in an ended room", ended, lambda r: rules.remove(r, user_id="g"), RoomEnded),
    ("remove a stranger", new_room, lambda r: rules.remove(r, user_id="x"), NotFound),
    ("remove the host", new_room, lambda r: rules.remove(r, user_id=HOST), InvalidParams),
]  # fmt: skip


@pytest.mark.parametrize(
    ("room", "ask", "error"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_a_refused_rule_changes_nothing(
    room: Callable[[], Room], ask: Callable[[Room], Any], error: type[CoordinatorError]
) -> None:
    state = room()
    before = copy.deepcopy(state)

    with pytest.raises(error) as raised:
        ask(state)

    assert raised.type is error
    assert state == before


def test_the_host_always_fits() -> None:
    room = new_room()
    rules.leave(room, user_id=HOST)
    for number in range(4):
        join(room, f"g{number}")

    connect(room, HOST, "s")

    assert room.present == 5


def test_a_proof_shown_once_is_due_from_then_on() -> None:
    room = new_room()
    join(room)
    ask_for_token(room)
    ask_for_token(room, proven=True)

    with pytest.raises(Unauthorized):
        leave_by_id(room)
    leave_by_id(room, proven=True)
    assert types(room)[-1] == "participant_left"


# -- rooms that end by themselves ----------------------------------------------------------------

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("lifespan", "reason"),
    [
        (Lifespan(MINUTE, None, None), "host_absent"),
        (Lifespan(None, MINUTE, None), "empty"),
        (Lifespan(None, None, MINUTE), "expired"),
    ],
)
def test_a_room_ends_when_its_time_has_passed(lifespan: Lifespan, reason: str) -> None:
    room = new_room()
    room.now += timedelta(seconds=59)
    assert rules.end_if_overdue(room, lifespan) is False
    room.now += timedelta(seconds=1)

    assert rules.end_if_overdue(room, lifespan) is True
    assert dict(room.events[-1].data) == {
        "endedAt": "2026-01-01T12:01:00.000Z",
        "by": "system",
        "reason": reason,
    }
    assert rules.end_if_overdue(room, lifespan) is False


def test_a_guest_or_a_connection_keeps_a_room_from_being_empty() -> None:
    room = new_room()
    lifespan = Lifespan(None, MINUTE, None)
    join(room)
    room.now += timedelta(hours=1)
    assert rules.end_if_overdue(room, lifespan) is False

    connect(room, HOST, "s")
    rules.leave(room, user_id="g")
    room.now += timedelta(hours=1)
    assert rules.end_if_overdue(room, lifespan) is False

    disconnect(room, HOST, "s")
    room.now += MINUTE
    assert rules.end_if_overdue(room, lifespan) is True


def test_a_host_that_is_connected_is_not_absent() -> None:
    room = new_room()
    lifespan = Lifespan(MINUTE, None, None)
    connect(room, HOST, "s")
    room.now += timedelta(hours=1)
    assert rules.end_if_overdue(room, lifespan) is False

    disconnect(room, HOST, "s")
    room.now += timedelta(seconds=30)
    rules.expire(room, user_id=HOST)
    room.now += timedelta(seconds=30)
    assert rules.end_if_overdue(room, lifespan) is True, "a minute since it went, not since it left"


# -- all of it, in any order ---------------------------------------------------------------------

USERS = st.sampled_from([HOST, "g0", "g1", "g2", "g3", "g4"])
SESSIONS = st.sampled_from([f"s{number}" for number in range(14)])


class AnyOrder(RuleBasedStateMachine):
    """Random rules; after each the log tells the same as the room, and the counts are right."""

    @initialize()
    def begin(self) -> None:
        self.room = new_room()
        self.log: list[Event] = list(self.room.events)
        self.rows: dict[str, str] = {}
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
        for session in room.closed:
            self.rows.pop(session, None)
        for session, user_id, _ in room.opened:
            if session not in room.closed:
                assert session not in self.rows, "a row is written twice"
                self.rows[session] = user_id
        if room.is_ended:
            self.rows.clear()
        self.log += room.events
        for written in (room.events, room.opened, room.closed, room.replaced, room.touched):
            written.clear()

    @rule(user=USERS)
    def joins(self, user: str) -> None:
        if user != HOST:
            self.ask(lambda: join(self.room, user))

    @rule(user=USERS, session=SESSIONS, returning=st.booleans())
    def connects(self, user: str, session: str, returning: bool) -> None:
        if self.rows.get(session, user) == user:
            self.ask(lambda: connect(self.room, user, session, returning=returning))

    @rule(user=USERS, session=SESSIONS)
    def disconnects(self, user: str, session: str) -> None:
        self.ask(lambda: disconnect(self.room, user, session))

    @rule(user=USERS, session=SESSIONS)
    def goes_away_and_returns_in_one_transaction(self, user: str, session: str) -> None:
        if self.rows.get(session, user) != user:
            return

        def both() -> None:
            disconnect(self.room, user, session)
            connect(self.room, user, session, returning=True)

        participant = self.room.participants.get(user)
        if participant is not None and session in participant.connections:
            self.ask(both)

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
        self.ask(lambda: leave_by_id(self.room, user, proven=proven, proof_required=required))

    @rule(user=USERS, proven=st.booleans())
    def asks_for_token(self, user: str, proven: bool) -> None:
        self.ask(lambda: ask_for_token(self.room, user, proven=proven))

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
            assert sorted(p.connections) == sorted(
                s for s, u in self.rows.items() if u == p.user_id
            )
            assert len(p.connections) <= rules.MAX_CONNECTIONS
            assert bool(p.connections) == (p.connection == "online")
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


AnyOrder.TestCase.settings = hypothesis_settings(
    max_examples=120, stateful_step_count=40, deadline=None
)
TestAnyOrder = AnyOrder.TestCase


# -- what a replay says of connections -----------------------------------------------------------


def test_an_event_says_whom_it_puts_out() -> None:
    room = new_room()
    for user_id in ("a", "b", "c"):
        join(room, user_id)
        connect(room, user_id, user_id)
    rules.leave(room, user_id="a")
    rules.remove(room, user_id="b")
    disconnect(room, "c", "c")
    room.now += GRACE
    rules.expire(room, user_id="c")
    rules.end(room, by=HOST, reason="ended")
    roster = replay(room.events[:1])

    departures = [roster.apply(event) for event in room.events[1:]]

    assert [d for d in departures if d] == [
        Departure("a", CloseCode.LEFT), Departure("b", CloseCode.REMOVED),
        Departure("c", CloseCode.LEFT), Departure(None, CloseCode.ENDED),
    ]  # fmt: skip

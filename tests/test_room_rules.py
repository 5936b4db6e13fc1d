"""The rules of a room, without a database: what each does, refuses, and leaves as it was."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from coordinator.domain import room_rules as rules
from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import (
    NotFound,
)
from coordinator.domain.room import Participant, Policy, Room, room_view
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


def mark_away(room: Room, user_id: str, session: str) -> None:
    rules.mark_away(room, POLICY, user_id=user_id, session_id=session)


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


def test_a_connection_that_goes_away_and_returns_in_one_batch_keeps_its_row() -> None:
    room = new_room()
    connect(room, HOST, "s1")
    room.forget_changes()

    mark_away(room, HOST, "s1")
    connect(room, HOST, "s1", returning=True)

    assert (room.opened, room.closed, room.marked, room.unmarked) == ([], [], [], [])
    assert [event.type for event in room.events] == ["participant_away", "participant_back"]


def test_a_marked_connection_counts_among_the_five_and_keeps_its_age() -> None:
    room = new_room()
    for number in range(5):
        connect(room, HOST, f"s{number}")
    room.forget_changes()
    mark_away(room, HOST, "s0")
    mark_away(room, HOST, "s1")
    room.forget_changes()
    connect(room, HOST, "s0", returning=True)

    connect(room, HOST, "s5")
    connect(room, HOST, "s6")

    assert room.replaced == ["s0", "s1"]
    assert room.participants[HOST].connections == [f"s{number}" for number in range(2, 7)]
    assert (room.closed, room.closed_marked, room.unmarked) == ([], ["s0", "s1"], [])
    assert room.events == []


def test_a_marked_connection_that_closes_changes_nothing_for_its_participant() -> None:
    room = new_room()
    connect(room, HOST, "s1")
    room.forget_changes()
    mark_away(room, HOST, "s1")
    leave_at = room.participants[HOST].leave_at
    room.forget_changes()
    room.now += timedelta(seconds=1)

    disconnect(room, HOST, "s1")

    assert room.closed_marked == ["s1"]
    assert room.events == []
    assert room.participants[HOST].leave_at == leave_at


def test_a_mark_that_outlived_its_participant_brings_nobody_back() -> None:
    """A node of the version before knows nothing of marks: it put somebody out and left one."""
    room = new_room()
    join(room)
    rules.leave(room, user_id="g")
    guest = room.participants["g"]
    guest.connections, guest.marked = ["s1"], {"s1"}
    room.forget_changes()

    with pytest.raises(NotFound):
        connect(room, "g", "s1", returning=True)
    assert not room.is_changed

    disconnect(room, "g", "s1")
    assert room.closed_marked == ["s1"]
    assert room.events == []


def test_who_is_marked_away_everywhere_leaves_at_the_deadline() -> None:
    room = new_room()
    join(room)
    connect(room, "g", "s1")
    room.forget_changes()
    mark_away(room, "g", "s1")
    room.forget_changes()
    room.now += GRACE

    assert rules.expire(room, user_id="g")
    assert room.closed_marked == ["s1"]
    assert room.participants["g"].connections == []


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


# -- after the end ---------------------------------------------------------------------------------


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

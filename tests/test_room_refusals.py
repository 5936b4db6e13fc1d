"""What the rules of a room refuse, and when rooms end by themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from coordinator.domain import room_rules as rules
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
from coordinator.domain.identity_claim import IdentityClaim
from coordinator.domain.room import Lifespan, Room
from tests.test_room_rules import HOST, connect, disconnect, join, new_room, types


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


NOTHING = IdentityClaim(is_presented=False, is_required=False)
REQUIRED = IdentityClaim(is_presented=False, is_required=True)
OWN = IdentityClaim(is_presented=True, is_required=False)
EXPIRED = IdentityClaim(is_presented=True, is_required=False, fault=TokenExpired())


def leave_by_id(room: Room, user_id: str = "g", claim: IdentityClaim = NOTHING) -> None:
    rules.leave_by_id(room, user_id=user_id, claim=claim)


def ask_for_token(room: Room, user_id: str = "g", claim: IdentityClaim = NOTHING) -> None:
    rules.admit_token_request(room, user_id=user_id, claim=claim)


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
    ("leave with a bad proof", with_proven, lambda r: leave_by_id(r, claim=EXPIRED),
     TokenExpired),
    ("leave where proof is required", lambda: (r := new_room(), join(r))[0],
     lambda r: leave_by_id(r, claim=REQUIRED), Unauthorized),
    ("a token in an ended room", ended, ask_for_token, RoomEnded),
    ("a token for a stranger", new_room, ask_for_token, Forbidden),
    ("a token for one removed", with_removed, ask_for_token, Forbidden),
    ("a token without the proof due", with_proven, ask_for_token, Unauthorized),
    ("a token by a bad proof", with_proven, lambda r: ask_for_token(r, claim=EXPIRED),
     TokenExpired),
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
    ask_for_token(room, claim=OWN)

    with pytest.raises(Unauthorized):
        leave_by_id(room)
    leave_by_id(room, claim=OWN)
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

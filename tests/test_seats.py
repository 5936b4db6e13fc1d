"""The people of a room and their JSON, kept by blocks: the same as a dict, encoded at once."""

from __future__ import annotations

import json
import random
import time

import msgspec
import pytest

from coordinator.domain.events import Event, FeedKey
from coordinator.domain.roster import Roster
from coordinator.domain.seats import BLOCK, Seats
from coordinator.live.frames import Welcome
from coordinator.live.snapshot import Snapshot, greeting
from tests.harness.patience import untraced


def view(user_id: str, connection: str = "none") -> dict[str, str]:
    return {"userId": user_id, "userName": f"李 {user_id} \"participants\":[]", "role": "guest",
            "joinedAt": "2026-01-01T00:00:00.000Z", "connection": connection}  # fmt: skip


def crowd(size: int) -> dict[str, dict[str, str]]:
    return {f"guest_{number:032d}": view(f"guest_{number:032d}") for number in range(size)}


def welcome(seq: int, snapshot: Snapshot) -> Welcome:
    return Welcome(
        room_id="r", seq=seq, epoch="e", resumed=False, room=snapshot.members["room"],
        participants=snapshot.members["participants"], identity={"userId": "u"}, session_id="s",
        ping_ms=1, grace_ms=1, now="",
    )  # fmt: skip


def told(pieces: list[bytes]) -> object:
    return json.loads(b"".join(pieces))


@pytest.mark.parametrize("size", [0, 1, 2, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_the_json_is_that_of_all_in_order(size: int) -> None:
    people = crowd(size)

    assert told(Seats(people).json_blocks(msgspec.json.encode)) == list(people.values())


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_it_is_what_a_dict_would_be(seed: int) -> None:
    chance = random.Random(seed)
    seats, model = Seats(), dict[str, dict[str, str]]()
    for _ in range(600):
        user_id = f"g{chance.randrange(200)}"
        match chance.randrange(4):
            case 0:
                assert seats.remove(user_id) == model.pop(user_id, None)
            case 1 if user_id in model:
                seats[user_id] = model[user_id] = view(user_id, chance.choice(("online", "away")))
            case 2:
                seats.remove(user_id)
                model.pop(user_id, None)
                seats[user_id] = model[user_id] = view(user_id)
            case 3 if chance.random() < 0.1:
                assert told(seats.json_blocks(msgspec.json.encode)) == list(model.values())
    assert seats == model
    assert list(seats) == list(model)
    assert told(seats.json_blocks(msgspec.json.encode)) == list(model.values())


def test_a_welcome_in_pieces_is_the_welcome_whatever_people_are_called() -> None:
    roster = Roster({"roomName": '"participants":[]'}, crowd(200))
    snapshot = Snapshot.of(roster)

    frame = b"".join(greeting(welcome(1, snapshot), snapshot))

    assert (frame[:2], int.from_bytes(frame[2:4], "big")) == (b"\x81\x7e", len(frame) - 4)
    decoded = json.loads(frame[4:])
    assert decoded["room"] == {"roomName": '"participants":[]'}
    assert decoded["participants"] == list(crowd(200).values())
    assert list(decoded)[:6] == ["type", "roomId", "seq", "epoch", "resumed", "room"]


def test_in_a_room_of_ten_thousand_a_connect_costs_less_than_a_millisecond() -> None:
    """Its own event changes the snapshot that it is sent."""
    roster = Roster({"roomName": "大会"}, crowd(10_000))
    ids = list(roster.participants)
    Snapshot.of(roster)
    connects = 200

    with untraced():
        began = time.process_time()
        for number, user_id in enumerate(ids[:connects], start=1):
            online = {"participant": {"userId": user_id}}
            roster.apply(Event(FeedKey("room", "r"), number, "participant_online", "", online))
            snapshot = Snapshot.of(roster)
            pieces = greeting(welcome(number, snapshot), snapshot)
        spent_ms = (time.process_time() - began) * 1000 / connects

    assert sum(map(len, pieces)) > 1_500_000
    assert spent_ms < 1, f"{spent_ms:.2f} ms of CPU"

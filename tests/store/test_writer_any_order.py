"""The writer in any order: whatever two nodes do to the same rooms, the truth is one."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from coordinator.domain.errors import CoordinatorError
from coordinator.domain.identity_claim import IdentityClaim
from coordinator.domain.ids import new_guest_id, new_session_id
from coordinator.store.database import Database
from coordinator.store.room_writer import room_cache
from coordinator.store.room_writer.commands import (
    Command,
    Connect,
    Disconnect,
    End,
    Expire,
    Join,
    Leave,
    LeaveById,
    MarkAway,
    Remove,
    Return,
)
from tests.store.lanes import WriterLane, created, is_consistent


def _anything(
    chance: random.Random, lane: WriterLane, room: str, sessions: list[Any]
) -> Command[Any]:
    user_id = f"guest_{chance.randrange(12)}"
    kind = chance.choices(
        (Return, Join, Connect, Disconnect, MarkAway, LeaveById, Leave, Remove, Expire, End),
        (25, 8, 25, 14, 14, 8, 8, 2, 3, 0.3),
    )[0]
    if kind is Join:
        return Join(room_id=room, user_id=new_guest_id(), user_name="n", identity=None)
    if kind is Return:
        return Return(room_id=room, user_id=user_id, user_name="n", identity=None)
    if kind is Connect:
        session = new_session_id()
        sessions.append((room, user_id, session))
        return Connect(room_id=room, user_id=user_id, session_id=session, node_epoch=lane.boot)
    if kind is Disconnect and sessions:
        its_room, its_user, session = sessions.pop(chance.randrange(len(sessions)))
        return Disconnect(room_id=its_room, user_id=its_user, session_id=session)
    if kind is MarkAway and sessions:
        its_room, its_user, session = chance.choice(sessions)
        if chance.random() < 0.5:
            return MarkAway(room_id=its_room, user_id=its_user, session_id=session)
        return Connect(
            room_id=its_room, user_id=its_user, session_id=session, node_epoch=lane.boot,
            returning=True,
        )  # fmt: skip
    if kind is LeaveById:
        own = IdentityClaim(is_presented=True, is_required=False)
        return LeaveById(room_id=room, user_id=user_id, claim=own)
    if kind is Remove:
        return Remove(room_id=room, user_id=user_id)
    if kind is Expire:
        return Expire(room_id=room, user_id=user_id)
    if kind is End:
        return End(room_id=room, by="user_001")
    return Leave(room_id=room, user_id=user_id)


@pytest.mark.parametrize("forgetful", [False, True])
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_two_nodes_do_to_the_same_rooms_the_truth_is_one(
    database: Database, lanes: tuple[WriterLane, WriterLane], seed: int, forgetful: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if forgetful:
        monkeypatch.setattr(room_cache, "MOST", 14)
        monkeypatch.setattr(room_cache, "MOST_PEOPLE", 4)
    chance = random.Random(seed)
    rooms = [await created(database) for _ in range(6)]
    sessions: list[Any] = []
    for _ in range(60):
        at_once = []
        for lane in chance.choice((lanes, lanes[:1], lanes[1:])):
            commands = [
                _anything(chance, lane, chance.choice(rooms), sessions)
                for _ in range(chance.randrange(1, 12))
            ]
            at_once.append(lane.does(*commands))
        for answers in await asyncio.gather(*at_once):
            for answer in answers:
                assert not isinstance(answer, Exception) or isinstance(answer, CoordinatorError)

    announced: dict[str, list[int]] = {room: [] for room in rooms}
    for lane in lanes:
        assert lane.writer._cache._size <= room_cache.MOST
        for event in lane.events:
            announced[event.feed.id].append(event.seq)
    for room in rooms:
        events = await is_consistent(database, room)
        assert sorted(announced[room]) == [event.seq for event in events[1:]], "each told once"

"""Who need not wait until the room is told: a join is answered in the turn of its COMMIT."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coordinator.domain.errors import RoomEnded
from coordinator.store.room_writer.commands import End, Join
from coordinator.store.room_writer.pending_command import CommandAnswer
from tests.store.lanes import WriterLane


@pytest.fixture(autouse=True)
def nothing_told_yet(lane: WriterLane, room: str) -> None:
    lane.events.clear()


def asks(lane: WriterLane, room: str, name: str) -> CommandAnswer[Any]:
    command = Join(room_id=room, user_id=f"guest_{name}", user_name=name, identity=None)
    answer = lane.writer.submit(command)
    assert isinstance(answer, CommandAnswer)
    return answer


async def test_it_is_called_once_and_before_the_events_are_told(
    lane: WriterLane, room: str
) -> None:
    called: list[tuple[str, int]] = []
    answers = [asks(lane, room, name) for name in ("first", "second")]
    answers[0].call_first(lambda done: called.append((done.result().user_name, len(lane.events))))

    await asyncio.gather(*answers)
    await asyncio.sleep(0)

    assert called == [("first", 0)]
    assert len(lane.events) == 2, "and whoever awaits an answer finds that the room has been told"


async def test_it_is_called_once_with_a_refusal(lane: WriterLane, room: str) -> None:
    await lane.does(End(room_id=room, by="user_001"))
    called: list[BaseException | None] = []
    answer = asks(lane, room, "late")
    answer.call_first(lambda done: called.append(done.exception()))

    await asyncio.wait([answer])
    await asyncio.sleep(0)

    assert [type(each) for each in called] == [RoomEnded]


async def test_one_that_fails_holds_up_nobody(lane: WriterLane, room: str) -> None:
    def fails(_done: object) -> None:
        raise ValueError("its client is gone")

    answers = [asks(lane, room, name) for name in ("first", "second")]
    answers[0].call_first(fails)

    await asyncio.gather(*answers)

    assert len(lane.events) == 2

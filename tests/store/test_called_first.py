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


async def test_a_small_room_hears_of_a_lone_event_before_its_caller_is_answered(
    lane: WriterLane, room: str
) -> None:
    called: list[tuple[int, int]] = []
    lane.told_alone.clear()
    answer = asks(lane, room, "lone")
    answer.call_first(lambda done: called.append((len(lane.told_alone), len(lane.events))))

    await answer

    assert called == [(1, 0)], "who listens here first, then the caller, then the other nodes"
    assert lane.told_alone == lane.events


async def test_many_callers_are_answered_before_their_rooms_are_told(
    lane: WriterLane, room: str
) -> None:
    lane.told_alone.clear()
    await asyncio.gather(*(asks(lane, room, name) for name in ("first", "second")))

    assert lane.told_alone == []
    assert len(lane.events) == 2


async def test_the_answer_can_be_made_while_postgres_works(lane: WriterLane, room: str) -> None:
    said: list[tuple[str, object]] = []
    answer = asks(lane, room, "new")
    answer.call_first(
        lambda done: said.append(("committed", done.result())),
        lambda result: said.append(("decided", result)),
    )

    await answer

    assert [what for what, _ in said] == ["decided", "committed"]
    assert said[0][1] is said[1][1]


async def test_an_answer_made_too_early_is_not_the_result(
    lanes: tuple[WriterLane, WriterLane], room: str
) -> None:
    lane, other = lanes
    said: list[Any] = []
    await other.joins(room, "faster")
    answer = asks(lane, room, "new")
    answer.call_first(lambda done: None, said.append)
    result = await answer

    assert [each.seq for each in said] == [result.seq - 1, result.seq], "from memory, then as read"
    assert result is not said[0]
    assert result is said[1]


async def test_an_answer_that_cannot_be_made_early_fails_nothing(
    lane: WriterLane, room: str
) -> None:
    def fails(_result: object) -> None:
        raise ValueError("cannot be encoded")

    called: list[str] = []
    answer = asks(lane, room, "new")
    answer.call_first(lambda done: called.append(done.result().user_name), fails)

    await answer

    assert called == ["new"]

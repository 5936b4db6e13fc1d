"""Callers who come back one by one share the next statement, and it waits for nobody else."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from coordinator.store.database import Database
from coordinator.store.room_writer import gathering as gathering_module
from coordinator.store.room_writer.commands import Join, Leave
from coordinator.store.room_writer.gathering import ENOUGH, MOST_SECONDS, Gathering
from coordinator.store.room_writer.pending_command import CommandAnswer
from coordinator.store.room_writer.telling import Telling
from tests.harness.patience import patient
from tests.store.lanes import WriterLane, created, is_consistent

CALLERS, ROUNDS = 8, 20


@pytest.fixture
def waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes long for eight turns of the loop."""
    monkeypatch.setattr(gathering_module, "LEAST_SECONDS", 5.0)


async def comes_and_goes(lane: WriterLane, room: str, number: int) -> None:
    """Asks one thing after the other; between the two so many turns of the loop go by."""
    who = f"guest_{number}"
    for _ in range(ROUNDS):
        await lane.does(Join(room_id=room, user_id=who, user_name=who, identity=None))
        for _ in range(number):
            await asyncio.sleep(0)
        await lane.does(Leave(room_id=room, user_id=who))
        for _ in range(number):
            await asyncio.sleep(0)


@pytest.mark.usefixtures("waits_long")
async def test_callers_who_come_back_one_by_one_share_a_statement(
    database: Database, lane: WriterLane
) -> None:
    """Without waiting the first of them has one alone, and the others the one after it."""
    rooms = [await created(database) for _ in range(CALLERS)]
    for room in rooms:
        await lane.learns(room)

    await asyncio.gather(*(comes_and_goes(lane, room, n) for n, room in enumerate(rooms, 1)))

    assert len(lane.database.queries) < 1.3 * 2 * ROUNDS
    for room in rooms:
        await is_consistent(database, room)


@pytest.mark.usefixtures("waits_long")
async def test_callers_called_first_are_answered_before_the_wait_and_all_is_told_after_it(
    lane: WriterLane, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering_module, "LEAST_SECONDS", 0.3)
    monkeypatch.setattr(gathering_module, "TURN_SECONDS", 1.0)
    await lane.learns(room)
    lane.events.clear()
    called: list[tuple[float, int]] = []

    def answered(_done: object) -> None:
        called.append((time.monotonic(), len(lane.events)))

    asked = [asks(lane, room, name) for name in "abcd"]
    for answer in asked:
        answer.call_first(answered)
    async with asyncio.timeout(patient(5)):
        while len(lane.events) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert [told for _, told in called] == [0] * 4
    assert time.monotonic() - called[0][0] >= 0.3, "nobody came back"


@pytest.mark.usefixtures("waits_long")
async def test_a_writer_that_ends_while_it_waits_has_told_all(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering_module, "TURN_SECONDS", 10.0)
    lane = WriterLane(database_url, "node_ends")
    task = asyncio.create_task(lane.writer.run())
    room = await created(database)
    await lane.learns(room)
    lane.events.clear()
    asked = [asks(lane, room, name) for name in "abcd"]
    done = asyncio.Event()
    for answer in asked:
        answer.call_first(lambda _: done.set())
    await done.wait()

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0)

    assert len(lane.events) == 4


def asks(lane: WriterLane, room: str, name: str) -> CommandAnswer[Any]:
    command = Join(room_id=room, user_id=f"guest_{name}", user_name=name, identity=None)
    answer = lane.writer.submit(command)
    assert isinstance(answer, CommandAnswer)
    return answer


# -- the rule ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answered", "waiting", "waits"),
    [(1, 0, False), (3, 0, False), (4, 0, True), (7, 1, True), (4, 4, False), (250, 8, False),
     (250, 7, True), (0, 0, False)],
)  # fmt: skip
def test_it_waits_where_less_than_half_are_there(answered: int, waiting: int, waits: bool) -> None:
    """A lone caller is never waited for, nor are `FEW`; and `ENOUGH` are enough."""
    gathering = Gathering()

    gathering.begin_round(answered=answered, waiting=waiting)

    assert (gathering.seconds > 0) is waits


@pytest.mark.parametrize(
    ("statement", "seconds"), [(0.0, 0.0003), (0.001, 0.0005), (0.2, MOST_SECONDS)]
)
def test_it_waits_a_part_of_a_statements_time(statement: float, seconds: float) -> None:
    gathering = Gathering()
    gathering.note_statement(statement)

    gathering.begin_round(answered=8, waiting=0)

    assert gathering.seconds == pytest.approx(seconds)


async def test_who_does_not_come_back_is_waited_for_more_and_more_seldom() -> None:
    gathering = Gathering()
    waited = []
    for number in range(1000):
        gathering.begin_round(answered=4, waiting=1)
        if gathering.seconds:
            waited.append(number)
            await gathering.wait("x")

    assert waited == [0, 2, 5, 10, 19, 36, 69, 134, 263, 520, 777]


async def test_who_has_come_back_is_waited_for_again() -> None:
    gathering = Gathering()
    for there in ("", "x" * ENOUGH, ""):
        gathering.begin_round(answered=ENOUGH, waiting=0)
        while not gathering.seconds:
            gathering.begin_round(answered=ENOUGH, waiting=0)
        await gathering.wait(there)

    skipped = 0
    gathering.begin_round(answered=ENOUGH, waiting=0)
    while not gathering.seconds:
        skipped += 1
        gathering.begin_round(answered=ENOUGH, waiting=0)
    assert skipped == 1


# -- telling -----------------------------------------------------------------------------------


class CommittedBatch:
    """A committed batch of four, all of whom are called first."""

    def __init__(self, name: str) -> None:
        self.answers = [None] * 4
        self.events, self.replaced = [name], ()

    def answer_first(self) -> bool:
        return True

    def answer(self, undo: object) -> None:
        """Nobody is left."""


async def test_batches_without_a_wait_in_between_are_told_in_order() -> None:
    told: list[Any] = []
    telling = Telling(lambda events, _replaced: told.extend(events), lambda _: None)
    for name in ("first", "second"):
        batch: Any = CommittedBatch(name)
        telling.committed(batch, waiting=0, may_gather=True)
    assert told == ["first"]

    await telling.gather([])
    await asyncio.sleep(0)

    assert told == ["first", "second"]

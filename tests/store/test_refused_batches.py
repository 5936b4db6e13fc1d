"""A batch of the writer that PostgreSQL refuses, or whose connection was given up."""

from __future__ import annotations

import asyncpg
import pytest

from coordinator.domain.ids import new_guest_id
from coordinator.store.database import Database
from coordinator.store.room_writer import queue
from coordinator.store.room_writer.commands import End, Join
from coordinator.store.room_writer.transaction import Transaction
from tests.store.lanes import WriterLane, created, is_consistent


async def test_what_postgres_refuses_fails_its_own_caller_alone(
    database: Database, lane: WriterLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No rule lets such a name through to here; whatever else it may be that Postgres refuses."""
    logged: list[str] = []
    monkeypatch.setattr(queue.log, "error", lambda event, **_: logged.append(event))
    rooms = [await created(database) for _ in range(3)]

    def joins(room: str, name: str) -> Join:
        return Join(room_id=room, user_id=new_guest_id(), user_name=name, identity=None)

    answers = await lane.does(
        joins(rooms[0], "before"), joins(rooms[1], "no\0name"), joins(rooms[2], "after"),
        joins(rooms[1], "of the same room"),
    )  # fmt: skip

    assert isinstance(answers[1], asyncpg.CharacterNotInRepertoireError)
    assert logged == ["batch_refused", "command_refused"]
    assert [answers[n].user_name for n in (0, 2, 3)] == ["before", "after", "of the same room"]
    for room in rooms:
        assert len(await is_consistent(database, room)) == 2
    assert (await lane.joins(rooms[1], "next")).seq == 3


async def test_a_connection_that_is_given_up_before_its_commit_is_an_outage(
    lane: WriterLane, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience ends in the very turn in which the last write is answered."""
    logged: list[str] = []
    monkeypatch.setattr(queue.log, "error", lambda event, **_: logged.append(event))
    write_locked = Transaction.write_locked

    async def writes(batch: Transaction) -> None:
        await write_locked(batch)
        monkeypatch.setattr(Transaction, "write_locked", write_locked)
        await lane.writer._disconnect()

    monkeypatch.setattr(Transaction, "write_locked", writes)
    await lane.does(End(room_id=room, by="user_001"))

    assert logged == []
    assert lane.events[-1].type == "room_ended"

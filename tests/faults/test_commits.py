"""Commits that take for ever, and commits whose answer is lost."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

import pytest

from coordinator.domain.errors import Unavailable
from coordinator.domain.room import Policy
from coordinator.standins.servers import EmbeddedPostgres
from coordinator.store.database import Database
from coordinator.store.room_writer.commands import Join
from coordinator.store.room_writer.queue import Writer
from tests.faults import GRACE
from tests.harness.observing import becomes, comes_true, kinds_of
from tests.harness.patience import patient
from tests.harness.people import (
    Api,
    Guest,
    Host,
    new_room,
)
from tests.harness.promises import answers_within
from tests.harness.tcp_proxy import TcpProxy


async def test_a_commit_that_takes_for_ever_is_answered_503_in_time(
    own: Database, pair: tuple[Api, Api], boss: Host
) -> None:
    """Reading works, writing does not: a disk that is full, or a replica that must confirm."""
    a, _ = pair
    room = await boss.creates()
    await _slow_commits(own, seconds=20)
    try:
        async with answers_within(5, a):
            for answer in await asyncio.gather(
                Guest(a).asks_to_join(room),
                boss.removes(room, "guest_nobody"),
                a.post("/api/interview/create-room", new_room(), boss.token),
            ):
                assert answer.status_code in (503, 404)
    finally:
        await _slow_commits(own, seconds=0)
    await becomes(a, "ready")
    await _until_nobody_is_in(own, room)


async def _until_nobody_is_in(own: Database, room: str) -> None:
    async def is_empty() -> bool:
        return not await _people(own, room)

    await comes_true(is_empty)


async def test_a_join_that_was_refused_and_happened_all_the_same_is_taken_back(
    own: Database, postgres: EmbeddedPostgres, pair: tuple[Api, Api], boss: Host
) -> None:
    """Its COMMIT arrives, the answer does not, and Postgres stays away for longer than we wait."""
    room = await boss.creates()
    assert postgres.port is not None
    cable = TcpProxy(postgres.port)
    await cable.start()
    database = Database(f"postgresql://postgres@127.0.0.1:{cable.port}/coordinator")
    writer = Writer(database, Policy(10, timedelta(seconds=GRACE)), lambda events, replaced: None)
    running = asyncio.create_task(writer.run())
    await _slow_commits(own, seconds=20, while_wanted=True)
    try:
        joining = writer.submit(
            Join(room_id=room, user_id="guest_lost", user_name="lost", identity=None)
        )
        await _commit_is_under_way(own, writer)
        cable.hang()
    finally:
        await _slow_commits(own, seconds=0)
    with pytest.raises(Unavailable):
        await joining
    await comes_true(partial(_people, own, room))
    assert await _people(own, room) == ["guest_lost"]
    await asyncio.sleep(4)  # Postgres is away for longer than any caller waits
    cable.mend()
    await _until_nobody_is_in(own, room)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await cable.close()
    assert kinds_of(await boss.log(room), "guest_lost") == ["joined", "left"]


async def _commit_is_under_way(own: Database, writer: Writer) -> None:
    """Returns when this writer's COMMIT waits for the trigger of `_slow_commits`."""
    sleeps = "SELECT true FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid = $1"
    async with asyncio.timeout(patient(5)):
        while writer._connection is None or not await own.fetchval(  # noqa: ASYNC110
            sleeps, writer._connection.get_server_pid()
        ):
            await asyncio.sleep(0.01)


async def _people(own: Database, room: str) -> list[str]:
    rows = await own.fetch(
        "SELECT user_id FROM interview_participants"
        " WHERE room_id = $1 AND left_at IS NULL AND role = 'guest'",
        room,
    )
    return [row["user_id"] for row in rows]


async def _slow_commits(own: Database, *, seconds: float, while_wanted: bool = False) -> None:
    """Lets Postgres take its time inside COMMIT, after everything has been written.

    Args:
        while_wanted: a commit under way ends, too, when commits are to be quick again.
    """
    await own.execute("CREATE TABLE IF NOT EXISTS slow_commits (step float, steps int)")
    await own.execute("DELETE FROM slow_commits")
    step = 0.02 if while_wanted else max(seconds, 1.0)
    await own.execute("INSERT INTO slow_commits VALUES ($1, $2)", step, int(seconds / step))
    await own.execute(
        "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE"
        " n int := 0; BEGIN WHILE n < (SELECT steps FROM slow_commits) LOOP"
        " PERFORM pg_sleep((SELECT step FROM slow_commits)); n := n + 1; END LOOP;"
        " RETURN NULL; END $$"
    )
    there = "SELECT true FROM pg_trigger WHERE tgname = 'slow'"
    if not await own.fetchval(there):
        await own.execute(
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON room_events"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()"
        )

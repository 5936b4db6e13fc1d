"""What is deleted after a while, in small steps that wait for nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio

from coordinator.domain.people import Staff
from coordinator.store import retention
from coordinator.store.database import Database
from coordinator.store.retention import Keep, Retention
from coordinator.store.rooms import Rooms
from tests.harness.people import new_room_id

FOREVER = Keep.days(events=0, participants=0, interviews=0, untold=30)
MONTH = Keep.days(events=30, participants=30, interviews=30, untold=30)


async def ended_room(database: Database, *, days_ago: int, events: int = 1) -> str:
    """A room of one host that ended so long ago, with a log of its own length."""
    room_id = new_room_id()
    host = Staff(1, "openid", "hr")
    await Rooms(database).create(room_id=room_id, room_name="n", host_name="h", host=host)
    await database.execute(
        "UPDATE interview_rooms SET status = 'ended', last_seq = $3,"
        " ended_at = clock_timestamp() - make_interval(days => $2) WHERE room_id = $1",
        room_id, days_ago, events,
    )  # fmt: skip
    await database.execute(
        "INSERT INTO room_events (room_id, seq, type, at, payload)"
        " SELECT $1, seq, 'test', now(), '{}' FROM generate_series(2, $2) AS seq",
        room_id, events,
    )  # fmt: skip
    return room_id


@pytest_asyncio.fixture(autouse=True)
async def no_old_rooms(database: Database) -> AsyncIterator[None]:
    """Other tests of this worker leave nothing that is old enough, and these neither."""
    yield
    await database.execute("DELETE FROM webhooks")
    await all_of(Retention(database, MONTH))


async def all_of(retention: Retention) -> int:
    steps = 0
    while await retention.step():
        steps += 1
    return steps


async def events_of(database: Database, room_id: str) -> int:
    count: int = await database.fetchval(
        "SELECT count(*) FROM room_events WHERE room_id = $1", room_id
    )
    return count


async def test_the_log_of_a_room_that_ended_long_ago_goes_and_its_last_seq_stays(
    database: Database,
) -> None:
    old = await ended_room(database, days_ago=31, events=5)
    recent = await ended_room(database, days_ago=29, events=5)

    await all_of(Retention(database, Keep.days(events=30, participants=0, interviews=0, untold=30)))

    assert (await events_of(database, old), await events_of(database, recent)) == (0, 5)
    assert await Rooms(database).head(old) == 5
    people = "SELECT count(*) FROM interview_participants WHERE room_id = $1"
    assert await database.fetchval(people, old) == 1


async def webhook(database: Database, *, disabled_days_ago: int | None = None) -> str:
    """A webhook that has been told nothing since long ago."""
    webhook_id = new_room_id()
    await database.execute(
        "INSERT INTO webhooks (id, name, url, secret, created_by, rooms_since, interviews_since,"
        " disabled_at) VALUES ($1, $1, 'https://example.com/', '', '', '2000-01-01', '2000-01-01',"
        " clock_timestamp() - make_interval(days => $2))",
        webhook_id, disabled_days_ago,
    )  # fmt: skip
    return webhook_id


async def forgotten(database: Database, webhook_id: str) -> None:
    await database.execute("DELETE FROM webhooks WHERE id = $1", webhook_id)


async def test_what_a_webhook_has_not_been_told_stays(database: Database) -> None:
    untold = await ended_room(database, days_ago=300)
    told = await ended_room(database, days_ago=300)
    behind = await webhook(database)
    await database.execute(
        "INSERT INTO webhook_feeds (webhook_id, kind, feed_id, position)"
        " VALUES ($1, 'room', $2, 1)",
        behind, told,
    )  # fmt: skip

    await all_of(Retention(database, MONTH))
    kept = await events_of(database, untold), await events_of(database, told)
    await forgotten(database, behind)
    await all_of(Retention(database, MONTH))

    assert kept == (1, 0)
    assert await events_of(database, untold) == 0


async def test_a_disabled_webhook_keeps_a_log_for_so_long_and_no_longer(
    database: Database,
) -> None:
    old = await ended_room(database, days_ago=300)
    lately = await webhook(database, disabled_days_ago=29)
    await all_of(Retention(database, MONTH))
    assert await events_of(database, old) == 1

    await forgotten(database, lately)
    await webhook(database, disabled_days_ago=31)
    await all_of(Retention(database, MONTH))

    assert await events_of(database, old) == 0


async def test_a_parked_log_is_kept_for_so_long_and_no_longer(database: Database) -> None:
    old = await ended_room(database, days_ago=300)
    parked = await webhook(database)
    await database.execute(
        "INSERT INTO webhook_feeds (webhook_id, kind, feed_id, position, parked_at)"
        " VALUES ($1, 'room', $2, 0, clock_timestamp() - interval '31 days')",
        parked, old,
    )  # fmt: skip

    await all_of(Retention(database, MONTH))

    assert await events_of(database, old) == 0
    await forgotten(database, parked)


async def test_zero_days_are_for_ever(database: Database) -> None:
    old = await ended_room(database, days_ago=3000)

    assert not await Retention(database, FOREVER).step()

    assert await events_of(database, old) == 1


async def test_people_go_and_how_many_they_were_stays(database: Database) -> None:
    old = await ended_room(database, days_ago=31)

    await all_of(Retention(database, MONTH))

    row = await database.fetchrow(
        "SELECT attended, (SELECT count(*) FROM interview_participants p"
        " WHERE p.room_id = r.room_id) AS left FROM interview_rooms r WHERE room_id = $1", old,
    )  # fmt: skip
    assert dict(row) == {"attended": 1, "left": 0}


async def test_a_step_deletes_500_rows_at_most_and_makes_progress(
    database: Database,
) -> None:
    old = await ended_room(database, days_ago=31, events=2_500)
    purging = Retention(database, Keep.days(events=30, participants=0, interviews=0, untold=30))

    left = []
    while await purging.step():
        left.append(await events_of(database, old))

    assert left[:5] == [2_000, 1_500, 1_000, 500, 0]


async def test_what_somebody_holds_is_skipped_and_the_rest_goes(
    database: Database, database_url: str
) -> None:
    held = await ended_room(database, days_ago=33, events=3)
    free = await ended_room(database, days_ago=32, events=3)
    other = await asyncpg.connect(database_url)
    await other.execute("BEGIN")
    await other.execute("SELECT FROM room_events WHERE room_id = $1 AND seq = 2 FOR UPDATE", held)
    try:
        await all_of(Retention(database, MONTH))
    finally:
        await other.close()

    assert (await events_of(database, held), await events_of(database, free)) == (1, 0)
    await all_of(Retention(database, MONTH))
    assert await events_of(database, held) == 0


async def test_one_node_at_a_time(database: Database, database_url: str) -> None:
    old = await ended_room(database, days_ago=31)
    other = await asyncpg.connect(database_url)
    await other.execute("BEGIN")
    await other.execute(f"SELECT pg_advisory_xact_lock({retention._LOCK})")
    try:
        assert not await Retention(database, MONTH).step()
    finally:
        await other.close()

    assert await events_of(database, old) == 1


async def final_interviews(database: Database) -> None:
    """One that is old enough, one that never ended, one of lately; each with an event."""
    await database.execute(
        "INSERT INTO enterprises (id, name) VALUES ('kept', 'n') ON CONFLICT DO NOTHING"
    )
    await database.execute(
        "INSERT INTO jobs (id, enterprise_id, title) VALUES ('kept', 'kept', 't')"
        " ON CONFLICT DO NOTHING"
    )
    await database.execute("DELETE FROM interviews WHERE id LIKE 'retention-%'")
    await database.execute("DELETE FROM interview_events WHERE interview_id LIKE 'retention-%'")
    for name, status, days in (("old", "COMPLETED", 31), ("open", "IN_PROGRESS", 31),
                               ("new", "CANCELLED", 29)):  # fmt: skip
        await database.execute(
            "INSERT INTO interviews (id, external_user_id, job_id, status, created_by, updated_by,"
            " fingerprint, created_at, updated_at, last_seq)"
            " SELECT $1, 'u', 'kept', $2, 'k', 'k', 'f', at, at, 1"
            " FROM (SELECT now() - make_interval(days => $3) AS at) AS before",
            f"retention-{name}", status, days,
        )  # fmt: skip
        await database.execute(
            "INSERT INTO interview_events (interview_id, seq, type, at, payload)"
            " VALUES ($1, 1, 'interview_created', now(), '{}')", f"retention-{name}",
        )  # fmt: skip


async def interviews_kept(database: Database) -> list[list[str]]:
    """The ids of those that are there, and of those whose events are."""
    kept = []
    for table, key in (("interviews", "id"), ("interview_events", "interview_id")):
        rows = await database.fetch(
            f"SELECT {key} AS id FROM {table} WHERE {key} LIKE 'retention-%' ORDER BY 1"
        )
        kept.append([row["id"] for row in rows])
    return kept


async def test_a_final_interview_goes_with_its_log(database: Database) -> None:
    await final_interviews(database)

    await all_of(Retention(database, MONTH))

    assert await interviews_kept(database) == [["retention-new", "retention-open"]] * 2


async def test_an_interview_whose_report_is_written_again_meanwhile_keeps_its_log(
    database: Database, database_url: str
) -> None:
    await final_interviews(database)
    writing = await asyncpg.connect(database_url)
    await writing.execute("BEGIN")
    await writing.execute(
        "UPDATE interviews SET updated_at = now(), last_seq = 2 WHERE id = 'retention-old'"
    )
    try:
        await all_of(Retention(database, MONTH))
        await writing.execute("COMMIT")
    finally:
        await writing.close()

    await all_of(Retention(database, MONTH))
    all_three = ["retention-new", "retention-old", "retention-open"]
    assert await interviews_kept(database) == [all_three] * 2

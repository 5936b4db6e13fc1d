"""What the judge reads every half second, it reads by an index, however much there is."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from coordinator.domain.room import Lifespan
from coordinator.standins.servers import EmbeddedPostgres
from coordinator.store.database import Database
from coordinator.store.migrations import migrate
from coordinator.store.nodes import (
    AWAY_ORPHANS,
    ORPHANS,
    OVERDUE,
    OWN_SESSIONS,
    Nodes,
    overdue_rooms_by,
)

ROOMS = 5_000
CONNECTIONS = 25_000
LIMIT_HOURS = 3_600
LIMIT = timedelta(hours=LIMIT_HOURS)
"""Rooms are 1, 2, 3 … hours old: the 3,600th and those after it have outlived this."""
LARGE = {"connections", "away_connections", "interview_rooms", "interview_participants",
         "room_events"}  # fmt: skip

FILL = (
    f"""
    INSERT INTO interview_rooms (room_id, room_name, host_id, host_name, status, created_at,
                                 host_absent_since, empty_since)
    SELECT 'room_' || n, 'name', 1, 'host', 'active', now() - n * interval '1 h',
           CASE WHEN n % 2 = 0 THEN now() - n * interval '1 h' END,
           CASE WHEN n % 3 = 0 THEN now() - n * interval '1 h' END
    FROM generate_series(1, {ROOMS}) AS n
    """,
    f"""
    INSERT INTO interview_participants (room_id, user_id, user_name, role, joined_at, joined_seq,
                                        connection, leave_at)
    SELECT 'room_' || n % {ROOMS}, 'guest_' || n, 'name', 'guest', now(), 1, 'online',
           CASE WHEN n % 100 = 0 THEN now() + n * interval '1 s' END
    FROM generate_series(1, {CONNECTIONS}) AS n
    """,
    f"""
    INSERT INTO connections (id, room_id, user_id, boot, connected_at)
    SELECT 's' || n, 'room_' || n % {ROOMS}, 'guest_' || n, 'node_' || n % 20, now()
    FROM generate_series(1, {CONNECTIONS}) AS n
    """,
    f"""
    INSERT INTO away_connections (id, room_id, user_id, boot, connected_at)
    SELECT 'a' || n, 'room_' || n % {ROOMS}, 'guest_' || n, 'node_' || n % 19, now()
    FROM generate_series(1, {CONNECTIONS}) AS n
    """,
    """
    INSERT INTO nodes (boot, name, lease_until, held_since)
    SELECT 'node_' || n, 'name', now() + interval '1 h', now() - interval '1 h'
    FROM generate_series(0, 18) AS n
    """,
    "ANALYZE",
)


SCANS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "orphans": (ORPHANS, (500,)),
    "orphans that are marked away": (AWAY_ORPHANS, (500,)),
    "deadlines": (OVERDUE, ("node_1", timedelta(seconds=30), 500)),
    "rooms without their host": (overdue_rooms_by("host_absent_since"), (LIMIT, 500)),
    "empty rooms": (overdue_rooms_by("empty_since"), (LIMIT, 500)),
    "old rooms": (overdue_rooms_by("created_at"), (LIMIT, 500)),
    "own connections": (OWN_SESSIONS, ("node_1", "", 2000)),
}  # fmt: skip


@pytest_asyncio.fixture(scope="module")
async def full() -> AsyncIterator[Database]:
    """A database of this module's own with much in it."""
    folder = Path(tempfile.mkdtemp(prefix="coordinator-scans-"))
    with EmbeddedPostgres(folder, options=("fsync=off",)) as server:
        database = Database(server.url)
        await migrate(database)
        await database.open()
        for statement in FILL:
            await database.execute(statement)
        yield database
        await database.close()
    shutil.rmtree(folder, ignore_errors=True)


def read_whole(plan: dict[str, Any]) -> set[str]:
    """The tables that a plan reads from end to end."""
    own = {plan["Relation Name"]} if plan["Node Type"] == "Seq Scan" else set()
    return own.union(*(read_whole(part) for part in plan.get("Plans", [])))


@pytest.mark.parametrize("scan", SCANS)
async def test_no_scan_reads_a_whole_table(full: Database, scan: str) -> None:
    sql, values = SCANS[scan]

    explained = json.loads(await full.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", *values))

    assert not read_whole(explained[0]["Plan"]) & LARGE, explained


async def test_the_connections_of_a_node_that_is_gone_are_found(full: Database) -> None:
    orphans = await Nodes(full).orphans(CONNECTIONS)

    assert len(orphans) == CONNECTIONS // 20
    owners = await full.fetch(
        "SELECT DISTINCT boot FROM connections WHERE id = ANY($1)",
        [orphan.session_id for orphan in orphans],
    )
    assert [row["boot"] for row in owners] == ["node_19"]


async def test_rooms_are_found_by_the_limits_that_are_set(full: Database) -> None:
    nodes = Nodes(full)
    absent = await nodes.overdue_rooms(Lifespan(LIMIT, None, None), ROOMS)
    empty = await nodes.overdue_rooms(Lifespan(None, LIMIT, None), ROOMS)

    assert len(absent) == len([n for n in range(LIMIT_HOURS, ROOMS + 1) if n % 2 == 0])
    assert len(empty) == len([n for n in range(LIMIT_HOURS, ROOMS + 1) if n % 3 == 0])
    assert await nodes.overdue_rooms(Lifespan(None, None, None), ROOMS) == []

"""Every statement of the background, explained on a full database: `python -m tests.scans`.

500,000 connections, 100,000 rooms and 5 million events are made in an embedded PostgreSQL of its
own (fsync off, tables unlogged; about 3 GB and five minutes) and thrown away. Then the product does
what its nodes do by themselves; each statement that it sends for it is explained (ANALYZE) some
times. Printed are the best time (the machine has other work), and which large tables were read from
end to end. Exit status 1: one was, or a statement took longer than `--most`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from coordinator.data_cipher import DataCipher
from coordinator.domain.events import ROOM, Head
from coordinator.domain.room import Lifespan
from coordinator.standins.servers import EmbeddedPostgres
from coordinator.store.database import Database
from coordinator.store.duties import Duties
from coordinator.store.migrations import migrate
from coordinator.store.node_reports import NodeReports
from coordinator.store.nodes import Nodes
from coordinator.store.people import People
from coordinator.store.qr_images import Images
from coordinator.store.retention import Keep, Retention
from coordinator.store.rooms import Rooms
from coordinator.store.sealing import Sealing
from coordinator.store.webhook_feeds import WebhookFeeds
from coordinator.store.webhooks import Endpoints, Wanted

LARGE = {"connections", "away_connections", "interview_rooms", "interview_participants",
         "room_events", "qr_images"}  # fmt: skip
NODES = 100
EVENTS_PER_ROOM = 50
CONNECTIONS_PER_ROOM = 10
"""Of the half of the rooms that have not ended."""
TIMES = 7
VERBS = {"SELECT", "WITH", "UPDATE", "DELETE", "INSERT"}
OF_THE_DRIVER = ("typeinfo_tree", "set_config('jit'", "current_setting('jit')")
"""asyncpg asks for types once a connection."""
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
KEYS = [bytes(32), bytes(range(32))]


def filling(rooms: int) -> Iterator[tuple[str, str]]:
    """What makes the database full, with a name for each step."""
    active, connections = rooms // 2, rooms // 2 * CONNECTIONS_PER_ROOM
    for table in sorted(LARGE):
        yield f"{table} unlogged", f"ALTER TABLE {table} SET UNLOGGED"
    yield "rooms", f"""
        INSERT INTO interview_rooms (room_id, room_name, host_id, host_name, status, created_at,
            ended_at, last_seq, last_at, present, guests, online, host_absent_since, empty_since)
        SELECT 'room_' || n, 'name', 1, 'host', CASE WHEN n <= {active} THEN 'active' ELSE 'ended'
            END, now() - n * interval '1 s',
            CASE WHEN n > {active} THEN now() - n * interval '1 min' END, {EVENTS_PER_ROOM},
            date_trunc('milliseconds', now() - n * interval '1 s'), 10, 9, 10,
            CASE WHEN n % 2 = 0 AND n <= {active} THEN now() - n * interval '1 s' END,
            CASE WHEN n % 3 = 0 AND n <= {active} THEN now() - n * interval '1 s' END
        FROM generate_series(1, {rooms}) AS n"""
    yield "participants", f"""
        INSERT INTO interview_participants (room_id, user_id, user_name, role, joined_at,
                                            joined_seq, connection, leave_at)
        SELECT 'room_' || 1 + n % {active}, 'guest_' || n, 'name', 'guest', now(), 1, 'online',
            CASE WHEN n % 100 = 0 THEN now() + (n - 30000) * interval '1 s' END
        FROM generate_series(1, {connections}) AS n"""
    yield "connections", f"""
        INSERT INTO connections (id, room_id, user_id, boot, connected_at)
        SELECT 's' || n, 'room_' || 1 + n % {active}, 'guest_' || n, 'node_' || n % {NODES}, now()
        FROM generate_series(1, {connections}) AS n"""
    yield "connections marked away", """
        INSERT INTO away_connections (id, room_id, user_id, boot, connected_at)
        SELECT 'a' || id, room_id, user_id, boot, connected_at FROM connections"""
    yield "events", f"""
        INSERT INTO room_events (room_id, seq, type, at, payload, epoch)
        SELECT 'room_' || r, s, 'participant_joined',
            date_trunc('milliseconds', now() - r * interval '1 s'),
            '{{"participant": {{"userId": "guest_1", "userName": "name", "role": "guest"}}}}',
            (SELECT epoch FROM deployment)
        FROM generate_series(1, {rooms}) AS r, generate_series(1, {EVENTS_PER_ROOM}) AS s"""
    yield "pictures", f"""
        INSERT INTO qr_images (digest, name, image, asked_at)
        SELECT 'd' || n, 'n' || n, 'x', now() - n * interval '1 min'
        FROM generate_series(1, {rooms}) AS n"""
    yield "staff", "INSERT INTO users (openid) SELECT 'o' || n FROM generate_series(1, 1000) AS n"
    yield "nodes", f"""
        INSERT INTO nodes (boot, name, lease_until, held_since)
        SELECT 'node_' || n, 'name', now() + interval '1 h', now() - interval '1 h'
        FROM generate_series(0, {NODES - 2}) AS n"""
    yield "statistics", "VACUUM ANALYZE"


@dataclass(frozen=True, slots=True)
class Sent:
    """A statement that the product sent, and what it was doing."""

    doing: str
    sql: str
    values: tuple[Any, ...]


class RecordingDatabase(Database):
    """Notes what is sent while `doing` says what it is for; its transactions are taken back."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.doing = ""
        self.sent: dict[tuple[str, str], Sent] = {}

    async def _begin_session(self, connection: Any) -> None:
        await super()._begin_session(connection)
        connection.add_query_logger(self._note_query)

    def _note_query(self, query: Any) -> None:
        verb, values = query.query.split(None, 1)[0].upper(), query.args
        if isinstance(values, list):  # of many rows: the first
            values = values[0] if values else None
        is_asked = verb in VERBS and not any(part in query.query for part in OF_THE_DRIVER)
        if self.doing and is_asked and values is not None:
            key = self.doing, query.query
            self.sent.setdefault(key, Sent(*key, tuple(values)))

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self.connection() as connection:
            await connection.execute("BEGIN")
            try:
                yield connection
            finally:
                await connection.execute("ROLLBACK")


async def the_work(database: RecordingDatabase) -> dict[str, Callable[[], Awaitable[Any]]]:
    """What nodes do by themselves, by the words for it."""
    nodes, duties, rooms = Nodes(database), Duties(database), Rooms(database)
    people = People(database, DataCipher(KEYS))
    endpoints, feeds = Endpoints(database), WebhookFeeds(database)
    await endpoints.add(
        endpoint_id="w", name="w", url="https://example.org", enterprise_id=None, secret="s",
        by="k", wanted=Wanted(events=None, rooms=True, interviews=True),
    )  # fmt: skip
    endpoint = await endpoints.take("w", "node_1", HOUR)
    assert endpoint is not None
    known = [
        (row["room_id"], Head(row["last_seq"], row["epoch"], _told(row["last_at"])))
        for row in await database.fetch(
            "SELECT room_id, last_seq, last_at, (SELECT epoch FROM deployment) AS epoch"
            " FROM interview_rooms WHERE status = 'active' ORDER BY id LIMIT 1000"
        )
    ]
    lease, limits = timedelta(seconds=8), Lifespan(HOUR, HOUR, HOUR)
    distant = Lifespan(1000 * DAY, 1000 * DAY, 1000 * DAY)
    keep = Keep.days(events=20, participants=20, interviews=20, untold=30)
    return {
        "lease: enter": lambda: nodes.enter("node_me", "me", lease),
        "lease: renew": lambda: nodes.renew("node_1", lease),
        "bus: who holds a lease": nodes.holders,
        "judge: duty": lambda: duties.hold("reap", "node_1", lease),
        "judge: is the duty free": lambda: duties.is_free("reap", "node_2"),
        "judge: is somebody deaf": lambda: nodes.is_somebody_deaf(lease),
        "judge: dead nodes": lambda: nodes.reap_dead("node_1", lease),
        "judge: what they left, 500": lambda: nodes.orphans(500),
        "judge: deadlines, 500": lambda: nodes.overdue("node_1", lease, 500),
        "judge: rooms past their limits, 500": lambda: nodes.overdue_rooms(limits, 500),
        "judge: rooms past their limits, none": lambda: nodes.overdue_rooms(distant, 500),
        "node: its own connections": lambda: nodes.sessions("node_1"),
        "node: which of 100 are not marked": lambda: nodes.unmarked(
            "node_1", [f"as{n}01" for n in range(100)]
        ),
        "node: 1,000 open feeds, nothing moved": lambda: rooms.moved(known),
        "node: 200 open feeds, after a new epoch": lambda: rooms.vanished(known[:200]),
        "node: a feed is opened": lambda: rooms.load("room_1"),
        "node: a log is read": lambda: rooms.events_after("room_1", 20, 500),
        "node: 1,000 staff": lambda: people.standings([(n, "") for n in range(1, 1001)]),
        "node: report": lambda: NodeReports(database).write("node_1", "n", "{}", "[]"),
        "webhooks: which there are": endpoints.enabled,
        "webhooks: due": lambda: feeds.due(endpoint, 100),
        "webhooks: active rooms": lambda: feeds.scan_active_rooms(endpoint, None),
        "webhooks: rooms that just ended": lambda: feeds.scan_lately_ended_rooms(endpoint),
        "webhooks: all rooms": lambda: feeds.scan_all(endpoint, ROOM, None),
        "purge: logs, people, interviews": Retention(database, keep).step,
        "purge: pictures": Images(database).step,
        "purge: sealing": Sealing(database, DataCipher(KEYS)).step,
    }


def _told(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_whole(plan: dict[str, Any]) -> set[str]:
    """The large tables that a plan reads from end to end."""
    is_whole = plan["Node Type"] == "Seq Scan" and plan["Relation Name"] in LARGE
    own = {plan["Relation Name"]} if is_whole and plan["Actual Loops"] else set()
    return own.union(*(read_whole(part) for part in plan.get("Plans", [])))


async def explained(database: Database, sent: Sent) -> tuple[float, set[str]]:
    """Milliseconds (the best), and large tables that were read as a whole."""
    times, whole = [], set[str]()
    for _ in range(TIMES):
        async with database.transaction() as connection:
            sql = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sent.sql}"
            (found,) = json.loads(await connection.fetchval(sql, *sent.values))
        times.append(found["Execution Time"])
        whole |= read_whole(found["Plan"])
    return min(times), whole


async def run(console: Console, *, rooms: int, most: float) -> bool:
    """True where every statement read by index, within `most` milliseconds."""
    folder = Path(tempfile.mkdtemp(prefix="coordinator-scans-"))
    options = ("fsync=off", "full_page_writes=off", "max_wal_size=2GB", "autovacuum=off")
    try:
        with EmbeddedPostgres(folder, options=options) as server:
            database = RecordingDatabase(server.url)
            await migrate(database)
            await database.open()
            try:
                await fill(database, console, rooms)
                return await show(database, console, most)
            finally:
                await database.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def fill(database: Database, console: Console, rooms: int) -> None:
    connection = await database.connect_plainly()
    for name, statement in filling(rooms):
        began = time.monotonic()
        await connection.execute(statement)
        console.print(f"{name}: {time.monotonic() - began:.1f} s", highlight=False)
    await connection.close()


async def show(database: RecordingDatabase, console: Console, most: float) -> bool:
    for doing, work in (await the_work(database)).items():
        database.doing = doing
        await work()
        await asyncio.sleep(0)  # asyncpg tells of queries in the next turn
    database.doing = ""
    table, is_well = Table("what for", "statement", "ms", "read as a whole"), True
    for sent in database.sent.values():
        milliseconds, whole = await explained(database, sent)
        is_well &= milliseconds <= most and not whole
        start = " ".join(sent.sql.split())[:60]
        table.add_row(sent.doing, start, f"{milliseconds:.2f}", ", ".join(sorted(whole)))
    console.print(table)
    return is_well


def main() -> int:
    one = argparse.ArgumentParser(prog="python -m tests.scans", description=__doc__)
    one.add_argument("--rooms", type=int, default=100_000)
    one.add_argument("--most", type=float, default=5.0, help="milliseconds of a statement")
    arguments = one.parse_args()
    console = Console(width=140)
    return int(not asyncio.run(run(console, rooms=arguments.rooms, most=arguments.most)))


if __name__ == "__main__":
    sys.exit(main())

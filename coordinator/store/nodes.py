"""Nodes and what they own: leases, the connections of dead nodes, deadlines that have passed.

One clock decides, Postgres's. What is read here are candidates only: whoever acts on them does it
through the writer, where the rule decides again under the room's lock.

SQL by hand is what Piccolo cannot say: an upsert whose values are expressions, SKIP LOCKED inside a
DELETE, a recursive walk through an index, lists of pairs, a list as one value; and where a partial
index is to be used, whose condition must stand in the statement as a literal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from piccolo.querystring import QueryString

from coordinator.domain.room import Lifespan
from coordinator.store.database import Database
from coordinator.store.engine import NOW
from coordinator.store.tables import DeploymentTable, NodesTable

SPEAKS = 2
"""What this version says on the bus; 1 = JSON without a signature."""

_IS_WATCHING = """
    EXISTS (SELECT 1 FROM nodes me WHERE me.boot = $1 AND me.lease_until > clock_timestamp()
            AND me.held_since < clock_timestamp() - $2::interval)
"""
"""True for a node whose lease is good and has been for so long without a break: it judges only what
happened while it was watching. Without this, an outage of Postgres puts people out who are
connected."""


def orphans_in(table: str) -> str:
    """SQL: at most `$1` connections of a table whose node is gone.

    One step of an index for each node that owns connections, not one row for each connection.
    """
    return f"""
    WITH RECURSIVE owners AS (
        (SELECT boot FROM {table} ORDER BY boot LIMIT 1)
        UNION ALL
        SELECT (SELECT c.boot FROM {table} c WHERE c.boot > o.boot ORDER BY c.boot LIMIT 1)
        FROM owners o WHERE o.boot IS NOT NULL
    ), gone AS (
        SELECT o.boot FROM owners o
        WHERE o.boot IS NOT NULL AND NOT EXISTS (SELECT FROM nodes n WHERE n.boot = o.boot)
    )
    SELECT c.id, c.room_id, c.user_id FROM gone
    CROSS JOIN LATERAL (
        SELECT id, room_id, user_id FROM {table} WHERE boot = gone.boot LIMIT $1
    ) c
    LIMIT $1
    """


ORPHANS = orphans_in("connections")
AWAY_ORPHANS = orphans_in("away_connections")

# `(SELECT clock_timestamp())`, here and wherever an index is walked: the function alone is asked
# for each row, and where it says no to all of them the whole index is read.
OVERDUE = f"""
    SELECT room_id, user_id FROM interview_participants
    WHERE leave_at <= (SELECT clock_timestamp()) AND {_IS_WATCHING}
    ORDER BY leave_at LIMIT $3
"""

PAGE = 2000
"""Of a node's sessions, in one statement."""

# One value: a row for each of 17,000 sessions, every 5 s, is what a node would spend its time on.
OWN_SESSIONS = """
    SELECT array_agg(id ORDER BY id) FROM (
        SELECT id FROM connections WHERE boot = $1 AND id > $2
        UNION ALL
        SELECT id FROM away_connections WHERE boot = $1 AND id > $2
        ORDER BY id LIMIT $3
    ) own
"""


@dataclass(frozen=True, slots=True)
class StoredConnection:
    """A row of `connections` or `away_connections`: a session of a participant in a room."""

    session_id: str
    room_id: str
    user_id: str


class Holder(NamedTuple):
    """What a node that holds a lease says on the bus, and over how many channels."""

    speaks: int
    channels: int


class Nodes:
    """Reads and writes leases. Every method raises `Unavailable` where Postgres is away."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._epochs = database.epochs
        self._lease = database.line(is_vital=True)
        self._judge = database.line()

    async def enter(
        self, node_epoch: str, name: str, lease: timedelta, *, channels: int = 1
    ) -> None:
        """A run of a node begins; its lease is good from now on.

        Args:
            channels: over how many of the bus it spreads feeds; the others are told by this.
        """
        await self._lease.execute(
            """
            INSERT INTO nodes (boot, name, lease_until, held_since, speaks, channels)
            VALUES ($1, $2, clock_timestamp() + $3::interval, clock_timestamp(), $4, $5)
            ON CONFLICT (boot) DO UPDATE SET lease_until = excluded.lease_until
            """,
            node_epoch, name[:100], lease, SPEAKS, channels,
        )  # fmt: skip

    async def renew(
        self, node_epoch: str, lease: timedelta, deaf_for: timedelta | None = None
    ) -> bool:
        """Renews the lease; False where the node has been declared dead.

        One that had run out is held anew from now: the node missed what happened meanwhile. It also
        looks whether the database is still in the epoch that is known (`Epochs.on_change`).
        """
        row = await self._lease.fetchrow(
            """
            UPDATE nodes SET
                held_since = CASE WHEN lease_until < clock_timestamp()
                    THEN clock_timestamp() ELSE least(held_since, clock_timestamp()) END,
                lease_until = clock_timestamp() + $2::interval,
                deaf_since = clock_timestamp() - $3::interval
            WHERE boot = $1
            RETURNING (SELECT epoch FROM deployment) AS epoch
            """,
            node_epoch, lease, deaf_for,
        )  # fmt: skip
        if row is not None and (self.database.is_pooled or row["epoch"] != self._epochs.current):
            await self._epochs.check()
        return row is not None

    async def leave(self, node_epoch: str) -> None:
        """A run of a node ends in order."""
        await self._lease.run(NodesTable.delete().where(NodesTable.boot == node_epoch))

    async def holders(self) -> dict[str, Holder]:
        """The nodes whose lease is good, and how each uses the bus."""
        holding = NodesTable.select(NodesTable.boot, NodesTable.speaks, NodesTable.channels)
        rows = await self._lease.run(holding.where(NodesTable.lease_until > NOW))
        return {row["boot"]: Holder(row["speaks"], row["channels"]) for row in rows}

    async def is_somebody_deaf(self, seconds: timedelta) -> bool:
        """True where a node with a good lease has not heard the judge for so long."""
        since = QueryString("clock_timestamp() - {}::interval", seconds)
        deaf = (NodesTable.lease_until > NOW) & (NodesTable.deaf_since < since)
        return bool(await self._judge.run(NodesTable.exists().where(deaf)))

    async def channels(self) -> int:
        """Over how many channels of the bus the feeds of this deployment are spread."""
        rows = await self._judge.run(DeploymentTable.select(DeploymentTable.channels))
        return int(rows[0]["channels"])

    async def reap_dead(self, node_epoch: str, lease: timedelta) -> list[str]:
        """Deletes the rows of nodes whose lease ran out while this one was watching.

        A lease that lies further ahead than one can be taken (Postgres's clock was set back) is cut
        to what it may be: else a node that is dead would count as alive for as long.
        """
        await self._judge.execute(
            """
            UPDATE nodes SET lease_until = clock_timestamp() + $1::interval,
                held_since = least(held_since, clock_timestamp())
            WHERE lease_until > clock_timestamp() + $1::interval + interval '1 second'
            """,
            lease,
        )
        rows = await self._judge.fetch(
            f"""
            DELETE FROM nodes WHERE boot IN (
                SELECT boot FROM nodes WHERE lease_until < clock_timestamp() AND boot <> $1
                FOR UPDATE SKIP LOCKED)
            AND {_IS_WATCHING}
            RETURNING boot
            """,
            node_epoch, lease,
        )  # fmt: skip
        return [row["boot"] for row in rows]

    async def orphans(self, limit: int) -> list[StoredConnection]:
        """Connections whose node holds no lease any more: its row is gone."""
        rows = await self._judge.fetch(ORPHANS, limit)
        if len(rows) < limit:
            rows += await self._judge.fetch(AWAY_ORPHANS, limit - len(rows))
        return _connections(rows)

    async def sessions(self, node_epoch: str) -> set[str]:
        """The sessions of this run of a node that have a row; all that have it all the while."""
        found: set[str] = set()
        after = ""
        while page := await self._judge.fetchval(OWN_SESSIONS, node_epoch, after, PAGE):
            found.update(page)
            after = page[-1]
            if len(page) < PAGE:
                break
        return found

    async def stored(self, node_epoch: str, sessions: list[str]) -> list[StoredConnection]:
        """Of these sessions of a run of a node, the rows that are there."""
        rows = await self._judge.fetch(
            """
            SELECT id, room_id, user_id FROM connections WHERE boot = $1 AND id = ANY($2)
            UNION ALL
            SELECT id, room_id, user_id FROM away_connections WHERE boot = $1 AND id = ANY($2)
            """,
            node_epoch, sessions,
        )  # fmt: skip
        return _connections(rows)

    async def unmarked(self, node_epoch: str, sessions: list[str]) -> list[StoredConnection]:
        """Of these sessions of a run of a node, the rows that are not marked away."""
        rows = await self._judge.fetch(
            "SELECT id, room_id, user_id FROM connections WHERE boot = $1 AND id = ANY($2)",
            node_epoch, sessions,
        )  # fmt: skip
        return _connections(rows)

    async def crowded(self, people: list[tuple[str, str]], most: int) -> set[tuple[str, str]]:
        """Of participants (room, user), those with `most` connections or more."""
        rooms, users = zip(*people, strict=True)
        rows = await self._judge.fetch(
            """
            WITH people AS (SELECT * FROM unnest($1::varchar[], $2::varchar[]))
            SELECT room_id, user_id FROM (
                SELECT room_id, user_id FROM connections
                WHERE (room_id, user_id) IN (SELECT * FROM people)
                UNION ALL
                SELECT room_id, user_id FROM away_connections
                WHERE (room_id, user_id) IN (SELECT * FROM people)
            ) open
            GROUP BY room_id, user_id HAVING count(*) >= $3
            """,
            rooms, users, most,
        )  # fmt: skip
        return {(row["room_id"], row["user_id"]) for row in rows}

    async def overdue(self, node_epoch: str, grace: timedelta, limit: int) -> list[tuple[str, str]]:
        """(room, user) whose deadline has passed, if this node has watched for a whole grace."""
        rows = await self._judge.fetch(OVERDUE, node_epoch, grace, limit)
        return [(row["room_id"], row["user_id"]) for row in rows]

    async def overdue_rooms(self, lifespan: Lifespan, limit: int) -> list[str]:
        """Active rooms that may have passed a limit of their life, at most `limit` for each."""
        limits = {
            "host_absent_since": lifespan.host_absent,
            "empty_since": lifespan.empty,
            "created_at": lifespan.age,
        }
        found: set[str] = set()
        for since, most in limits.items():
            if most is not None:
                rows = await self._judge.fetch(overdue_rooms_by(since), most, limit)
                found |= {row["room_id"] for row in rows}
        return sorted(found)


def overdue_rooms_by(since: str) -> str:
    """SQL: the active rooms of which `since` is too long ago, the longest first; by an index."""
    return f"""
        SELECT room_id FROM interview_rooms
        WHERE status = 'active' AND {since} < (SELECT clock_timestamp()) - $1::interval
        ORDER BY {since} LIMIT $2
    """


def _connections(rows: list[Any]) -> list[StoredConnection]:
    return [StoredConnection(row["id"], row["room_id"], row["user_id"]) for row in rows]

"""How far each log has been told to a webhook: the table `webhook_feeds`, and what is to be told.

A log's events commit in the order of their seq, since each writer holds the row of the room or the
interview: a position per log can miss none, however late a transaction commits. Logs that are
behind are found by a look at their heads: at those that a hint names, and, in case a hint was lost,
at all of them, so many at a time (`scan_…`).

SQL by hand: what senders read and write for every event, and walks by rows of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from coordinator.domain.events import INTERVIEW, ROOM, Event, FeedKey, timestamp
from coordinator.domain.webhook import interview_told_as
from coordinator.store.database import Database
from coordinator.store.webhooks import Endpoint, EndpointLeaseLost

SCANNED_AT_ONCE = 1000
SOON_SECONDS = 15.0
"""Logs whose next try is further away than this are left in the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """A log with events that a webhook lacks.

    Attributes:
        position: the last seq that was taken, or is not to be told.
        head: the log's last seq.
        retry_at, failing_since: the next event has failed `attempts` times.
    """

    feed: FeedKey
    position: int
    head: int
    attempts: int
    retry_at: datetime | None
    failing_since: datetime | None


@dataclass(frozen=True, slots=True)
class Scan:
    """What a look at some logs has found.

    Attributes:
        until: where the next look goes on; None = that was the last of them.
    """

    behind: list[Behind]
    until: Any


@dataclass(frozen=True, slots=True)
class TellableEvent:
    """An event of a log, under the name that webhooks know."""

    event: Event
    at: datetime
    told_as: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a sender notes of one log: how far it is, and what the next event has met with."""

    feed: FeedKey
    position: int
    attempts: int
    retry_at: datetime | None
    failing_since: datetime | None
    parked_at: datetime | None
    last_answer: str | None


_HEADS = {
    ROOM: """
        SELECT r.room_id AS feed_id, r.last_seq, r.last_at, NULL::varchar AS enterprise_id, {cursor}
        FROM interview_rooms r
    """,
    INTERVIEW: """
        SELECT r.id AS feed_id, r.last_seq, r.updated_at AS last_at, r.enterprise_id, {cursor}
        FROM interviews r
    """,
}
_EVENTS = {ROOM: ("room_events", "room_id"), INTERVIEW: ("interview_events", "interview_id")}


_LEASE = """
    (SELECT generation FROM webhooks WHERE id = $1) AS generation,
    (SELECT epoch FROM deployment) AS history
"""


def _behind(kind: str, scanned: str, cursor: str = "NULL::text AS cursor") -> str:
    """A statement that looks at some heads: $1 webhook, $2 since, $3 tenant, then the look's own.

    The position of a log that has none yet is the last event before `since`.
    """
    events, key = _EVENTS[kind]
    return f"""
        WITH scanned AS MATERIALIZED (
            {_HEADS[kind].format(cursor=cursor)} {scanned}
        ), behind AS (
            SELECT s.feed_id, s.last_seq, w.attempts, w.retry_at, w.failing_since,
                coalesce(w.position, (
                    SELECT e.seq FROM {events} e WHERE e.{key} = s.feed_id AND e.at < $2
                    ORDER BY e.seq DESC LIMIT 1), 0) AS position
            FROM scanned s LEFT JOIN webhook_feeds w
                ON w.webhook_id = $1 AND w.kind = '{kind}' AND w.feed_id = s.feed_id
            WHERE (w.position <> s.last_seq OR (w.position IS NULL AND s.last_at >= $2))
                AND w.parked_at IS NULL
                AND coalesce(w.retry_at < clock_timestamp()
                             + interval '{SOON_SECONDS} seconds', true)
                AND ($3::varchar IS NULL OR s.enterprise_id = $3)
        )
        SELECT looked.count, looked.until, {_LEASE}, b.*
        FROM (SELECT count(*), max(cursor) AS until FROM scanned) AS looked
        LEFT JOIN behind b ON true
    """


_NAMED = {
    ROOM: _behind(ROOM, "WHERE r.room_id = ANY($4::varchar[])"),
    INTERVIEW: _behind(INTERVIEW, "WHERE r.id = ANY($4::varchar[])"),
}
_DUE = {
    kind: _behind(
        kind,
        f"""
        WHERE r.{key} IN (
            SELECT d.feed_id FROM webhook_feeds d
            WHERE d.webhook_id = $1 AND d.kind = '{kind}'
                AND d.retry_at < (SELECT clock_timestamp()) + interval '{SOON_SECONDS} seconds'
            ORDER BY d.retry_at LIMIT $4)
        """,
    )
    for kind, key in ((ROOM, "room_id"), (INTERVIEW, "id"))
}
_ALL = {
    ROOM: _behind(
        ROOM, "WHERE r.id > coalesce($4::bigint, 0) ORDER BY r.id LIMIT $5", "r.id AS cursor"
    ),
    INTERVIEW: _behind(
        INTERVIEW,
        "WHERE r.number > coalesce($4::bigint, 0) ORDER BY r.number LIMIT $5",
        "r.number AS cursor",
    ),
}
_ACTIVE_ROOMS = _behind(
    ROOM,
    """
    WHERE r.status = 'active' AND r.created_at > coalesce($4::timestamptz, '-infinity')
    ORDER BY r.created_at LIMIT $5
    """,
    "r.created_at AS cursor",
)
_LATELY_ENDED_ROOMS = _behind(
    ROOM,
    """
    WHERE r.status = 'ended' AND r.ended_at > (SELECT clock_timestamp()) - interval '1 minute'
    ORDER BY r.ended_at LIMIT $4
    """,
)

# One row at least, which tells the lease that counts. $1 webhook, $2 ids, $3 positions, $4 limit.
_EVENTS_AFTER = f"""
    SELECT lease.*, found.* FROM (SELECT {_LEASE}) AS lease
    LEFT JOIN (
        SELECT known.id, e.* FROM unnest($2::varchar[], $3::bigint[]) AS known (id, position)
        CROSS JOIN LATERAL ({{events}}) AS e
    ) AS found ON true
"""
_ROOM_EVENTS = _EVENTS_AFTER.format(
    events="""
        SELECT e.seq, e.type, e.at, e.payload, e.epoch FROM room_events e
        WHERE e.room_id = known.id AND e.seq > known.position ORDER BY e.seq LIMIT $4
    """
)
_INTERVIEW_EVENTS = _EVENTS_AFTER.format(
    events="""
        SELECT e.seq, e.type, e.at, e.payload, e.epoch, e.writes_report,
            (SELECT b.payload ->> 'status' FROM interview_events b
             WHERE b.interview_id = known.id AND b.seq = e.seq - 1) AS status_before
        FROM interview_events e
        WHERE e.interview_id = known.id AND e.seq > known.position ORDER BY e.seq LIMIT $4
    """
)

# The lease's row is held meanwhile: nobody takes the lease over between the look and the write.
_NOTE = """
    WITH mine AS MATERIALIZED (
        SELECT FROM webhooks WHERE id = $1 AND generation = $2
            AND (SELECT epoch FROM deployment) = $3 FOR SHARE
    ), noted AS (
        INSERT INTO webhook_feeds (webhook_id, kind, feed_id, position, attempts, retry_at,
                                   failing_since, parked_at, last_answer)
        SELECT $1, n.* FROM unnest($4::varchar[], $5::varchar[], $6::bigint[], $7::int[],
            $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::varchar[]) AS n
        WHERE EXISTS (SELECT FROM mine)
        ON CONFLICT (webhook_id, kind, feed_id) DO UPDATE SET position = excluded.position,
            attempts = excluded.attempts, retry_at = excluded.retry_at,
            failing_since = excluded.failing_since, parked_at = excluded.parked_at,
            last_answer = excluded.last_answer
    )
    SELECT count(*) FROM mine
"""


class WebhookFeeds:
    """Reads and writes positions, for whoever holds the endpoint's lease.

    Every method raises `Unavailable` where Postgres is away, and those that read raise
    `EndpointLeaseLost` where the lease is not the one that counts, or the database has become
    another history: a position in the one says nothing of the other.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    async def named(self, endpoint: Endpoint, feeds: Sequence[FeedKey]) -> list[Behind]:
        """Of the logs given, those that are behind, and not only for a try that is far away."""
        found: list[Behind] = []
        for kind, since in _wanted(endpoint):
            ids = [feed.id for feed in feeds if feed.kind == kind]
            if ids:
                found += (await self._look(_NAMED[kind], endpoint, kind, since, ids)).behind
        return found

    async def due(self, endpoint: Endpoint, limit: int) -> list[Behind]:
        """Logs whose next try is due soon."""
        found: list[Behind] = []
        for kind, since in _wanted(endpoint):
            found += (await self._look(_DUE[kind], endpoint, kind, since, limit)).behind
        return found

    async def scan_all(self, endpoint: Endpoint, kind: str, after: Any) -> Scan:
        """Looks at the next logs of a kind; `after` is None at first, then `Scan.until`."""
        since = dict(_wanted(endpoint)).get(kind)
        if since is None:
            return Scan([], None)
        return await self._look(_ALL[kind], endpoint, kind, since, after, SCANNED_AT_ONCE)

    async def scan_active_rooms(self, endpoint: Endpoint, after: Any) -> Scan:
        """Looks at the next rooms that have not ended, as `scan_all` does."""
        since = endpoint.rooms_since
        if since is None:
            return Scan([], None)
        return await self._look(_ACTIVE_ROOMS, endpoint, ROOM, since, after, SCANNED_AT_ONCE)

    async def scan_lately_ended_rooms(self, endpoint: Endpoint) -> list[Behind]:
        """Looks at the rooms that ended in the last minute."""
        since = endpoint.rooms_since
        if since is None:
            return []
        sql = _LATELY_ENDED_ROOMS
        return (await self._look(sql, endpoint, ROOM, since, SCANNED_AT_ONCE)).behind

    async def _look(
        self, sql: str, endpoint: Endpoint, kind: str, since: datetime, *values: Any
    ) -> Scan:
        rows = await self.database.fetch_told(
            sql, endpoint.id, since, endpoint.enterprise_id, *values, key="count"
        )
        _require_lease(rows[0], endpoint)
        behind = [_behind_of(kind, row) for row in rows if row["feed_id"] is not None]
        return Scan(behind, rows[0]["until"] if rows[0]["count"] == SCANNED_AT_ONCE else None)

    async def events_after(
        self, endpoint: Endpoint, positions: Sequence[tuple[FeedKey, int]], limit: int
    ) -> dict[FeedKey, list[TellableEvent]]:
        """Of each log given the next events after its position, at most `limit`, oldest first."""
        found: dict[FeedKey, list[TellableEvent]] = {feed: [] for feed, _ in positions}
        for kind, sql in ((ROOM, _ROOM_EVENTS), (INTERVIEW, _INTERVIEW_EVENTS)):
            asked = [(feed.id, position) for feed, position in positions if feed.kind == kind]
            if asked:
                ids, seqs = zip(*asked, strict=True)
                rows = await self.database.fetch_told(
                    sql, endpoint.id, ids, seqs, limit, key="generation"
                )
                if not rows:
                    raise EndpointLeaseLost
                _require_lease(rows[0], endpoint)
                for row in rows:
                    if row["id"] is not None:
                        found[FeedKey(kind, row["id"])].append(_tellable(kind, row))
        for events in found.values():
            events.sort(key=lambda each: each.event.seq)
        return found

    async def note(self, endpoint: Endpoint, notes: Sequence[Note]) -> bool:
        """Writes positions; False, and nothing, where the lease is another's by now, or the
        database has become another history.
        """
        columns = zip(
            *(
                (*n.feed, n.position, n.attempts, n.retry_at, n.failing_since, n.parked_at,
                 n.last_answer)
                for n in notes
            ),
            strict=True,
        )  # fmt: skip
        return bool(
            await self.database.fetchval(
                _NOTE, endpoint.id, endpoint.generation, endpoint.epoch, *columns
            )
        )

    async def oldest_failure(self, endpoint_id: str) -> datetime | None:
        """Since when the log has failed that has failed longest; parked logs do not count."""
        oldest: datetime | None = await self.database.fetchval(
            """
            SELECT failing_since FROM webhook_feeds
            WHERE webhook_id = $1 AND failing_since IS NOT NULL AND parked_at IS NULL
            ORDER BY failing_since LIMIT 1
            """,
            endpoint_id,
        )
        return oldest


def _require_lease(row: Any, endpoint: Endpoint) -> None:
    if (row["generation"], row["history"]) != (endpoint.generation, endpoint.epoch):
        raise EndpointLeaseLost


def _wanted(endpoint: Endpoint) -> list[tuple[str, datetime]]:
    """The kinds of log that a webhook is told, and since when."""
    kinds = ((ROOM, endpoint.rooms_since), (INTERVIEW, endpoint.interviews_since))
    return [(kind, since) for kind, since in kinds if since is not None]


def _behind_of(kind: str, row: Any) -> Behind:
    return Behind(
        feed=FeedKey(kind, row["feed_id"]), position=row["position"], head=row["last_seq"],
        attempts=row["attempts"] or 0, retry_at=row["retry_at"],
        failing_since=row["failing_since"],
    )  # fmt: skip


def _tellable(kind: str, row: Any) -> TellableEvent:
    data = msgspec.json.decode(row["payload"])
    told_as = row["type"]
    if kind == INTERVIEW:
        told_as = interview_told_as(
            told_as, status=data["status"], status_before=row["status_before"],
            writes_report=row["writes_report"],
        )  # fmt: skip
    at = row["at"]
    feed = FeedKey(kind, row["id"])
    event = Event(feed, row["seq"], row["type"], timestamp(at), data, row["epoch"])
    return TellableEvent(event, at, told_as)

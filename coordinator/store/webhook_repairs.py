"""What operators see and mend of a webhook's positions: what is parked, retry, replay.

Whoever moves positions holds the endpoint's lease meanwhile (`Endpoints.seize`), so that no sender
writes its own over them. Many rows are changed a few at a time.
SQL by hand: one CTE finds a step's rows, moves them and tells the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coordinator.domain.events import INTERVIEW, ROOM, FeedKey
from coordinator.store.database import Database
from coordinator.store.webhooks import Endpoint

STEP = 500
PARKED_SHOWN = 100

_LOGS = {
    ROOM: ("interview_rooms", "room_id", "last_at", "room_events", "room_id"),
    INTERVIEW: ("interviews", "id", "updated_at", "interview_events", "interview_id"),
}
_WELL = "attempts = 0, retry_at = NULL, failing_since = NULL, parked_at = NULL"


@dataclass(frozen=True, slots=True)
class Parked:
    """A log that is given up: the event after `position` is the one that nobody takes."""

    feed: FeedKey
    position: int
    parked_at: datetime
    last_answer: str | None


class WebhookRepairs:
    """Every method raises `Unavailable` where Postgres is away."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def parked(self, endpoint_id: str) -> list[Parked]:
        """The logs that are parked, the latest first, at most `PARKED_SHOWN`."""
        rows = await self.database.fetch(
            """
            SELECT kind, feed_id, position, parked_at, last_answer FROM webhook_feeds
            WHERE webhook_id = $1 AND failing_since IS NOT NULL AND parked_at IS NOT NULL
            ORDER BY parked_at DESC LIMIT $2
            """,
            endpoint_id, PARKED_SHOWN,
        )  # fmt: skip
        return [
            Parked(
                FeedKey(row["kind"], row["feed_id"]), row["position"], row["parked_at"],
                row["last_answer"],
            )
            for row in rows
        ]  # fmt: skip

    async def failing_and_parked(self) -> dict[str, tuple[int, int]]:
        """Of each webhook that has such: how many logs are being tried again, and how many parked.
        """
        rows = await self.database.fetch(
            """
            SELECT webhook_id, count(*) FILTER (WHERE parked_at IS NULL) AS failing,
                count(parked_at) AS parked
            FROM webhook_feeds WHERE failing_since IS NOT NULL GROUP BY webhook_id
            """
        )
        return {row["webhook_id"]: (row["failing"], row["parked"]) for row in rows}

    async def oldest_lacking(self, endpoint: Endpoint) -> datetime | None:
        """The time of the oldest event that it lacks; looks at all logs."""
        oldest = [
            await self.database.fetchval(_OLDEST[kind], endpoint.id, since, endpoint.enterprise_id)
            for kind, since in (
                (ROOM, endpoint.rooms_since),
                (INTERVIEW, endpoint.interviews_since),
            )
            if since is not None
        ]
        return min((moment for moment in oldest if moment is not None), default=None)

    async def feed_named(self, feed_id: str, *, enterprise: str | None) -> FeedKey | None:
        """The room or the interview of that id, or None; a tenant has no rooms."""
        row = await self.database.fetchrow(
            """
            SELECT 'room' AS kind FROM interview_rooms
            WHERE room_id = $1 AND $2::varchar IS NULL
            UNION ALL
            SELECT 'interview' FROM interviews i
            WHERE i.id = $1 AND ($2::varchar IS NULL OR i.enterprise_id = $2)
            LIMIT 1
            """,
            feed_id, enterprise,
        )  # fmt: skip
        return None if row is None else FeedKey(row["kind"], feed_id)

    async def replay_log(self, endpoint_id: str, feed: FeedKey) -> None:
        """A log is told anew from its first event; nothing where the webhook is removed."""
        await self.database.execute(
            f"""
            INSERT INTO webhook_feeds (webhook_id, kind, feed_id, position)
            SELECT id, $2, $3, 0 FROM webhooks WHERE id = $1 FOR SHARE
            ON CONFLICT (webhook_id, kind, feed_id) DO UPDATE SET position = 0, {_WELL}
            """,
            endpoint_id, *feed,
        )  # fmt: skip

    async def replay_from(self, endpoint_id: str, moment: datetime) -> None:
        """All logs are told anew from their first event since `moment` on."""
        await self.database.execute(
            """
            UPDATE webhooks SET rooms_since = least(rooms_since, $2),
                interviews_since = least(interviews_since, $2)
            WHERE id = $1
            """,
            endpoint_id, moment,
        )  # fmt: skip
        for sql in _REPLAY.values():
            await self._in_steps(sql, endpoint_id, moment)

    async def retry_log(self, endpoint_id: str, feed: FeedKey) -> bool:
        """A log that fails or is parked is tried at once; False where it does neither."""
        tag = await self.database.execute(
            f"""
            UPDATE webhook_feeds SET {_WELL}
            WHERE webhook_id = $1 AND kind = $2 AND feed_id = $3 AND failing_since IS NOT NULL
            """,
            endpoint_id, *feed,
        )  # fmt: skip
        return tag == "UPDATE 1"

    async def retry_failing(self, endpoint_id: str, *, parked_too: bool) -> int:
        """All logs that fail are tried at once; how many."""
        done = 0
        while True:
            tag = await self.database.execute(
                f"""
                UPDATE webhook_feeds SET {_WELL}
                WHERE webhook_id = $1 AND (kind, feed_id) IN (
                    SELECT kind, feed_id FROM webhook_feeds
                    WHERE webhook_id = $1 AND failing_since IS NOT NULL
                        AND (parked_at IS NULL OR $2)
                    LIMIT {STEP})
                """,
                endpoint_id, parked_too,
            )  # fmt: skip
            changed = int(tag.removeprefix("UPDATE "))
            done += changed
            if changed < STEP:
                return done

    async def forget(self, endpoint_id: str, kind: str) -> None:
        """Deletes the positions of a kind of log."""
        await self._in_steps(_FORGET, endpoint_id, kind)

    async def step_back(self, endpoint: Endpoint) -> None:
        """Positions go back to the last event that is of an epoch that the endpoint knows.

        What follows it was told of another history, if at all. Positions are of the same database
        as the logs, so this finds something only where the two were set back apart.
        """
        for sql in _STEP_BACK.values():
            await self._in_steps(sql, endpoint.id, list(endpoint.epochs))

    async def _in_steps(self, sql: str, endpoint_id: str, value: Any) -> None:
        """Runs a statement on `STEP` rows after the other; it tells the last of them."""
        after: str | None = ""
        while after is not None:
            after = await self.database.fetchval(sql, endpoint_id, value, after)


def _replay(kind: str) -> str:
    table, key, last_at, events, events_key = _LOGS[kind]
    return f"""
        WITH step AS MATERIALIZED (
            SELECT feed_id FROM webhook_feeds
            WHERE webhook_id = $1 AND kind = '{kind}' AND feed_id > $3
            ORDER BY feed_id LIMIT {STEP}
        ), moved AS (
            UPDATE webhook_feeds w SET {_WELL}, position = least(w.position, coalesce((
                SELECT e.seq FROM {events} e WHERE e.{events_key} = w.feed_id AND e.at < $2
                ORDER BY e.seq DESC LIMIT 1), 0))
            FROM step JOIN {table} r ON r.{key} = step.feed_id AND r.{last_at} >= $2
            WHERE w.webhook_id = $1 AND w.kind = '{kind}' AND w.feed_id = step.feed_id
        )
        SELECT max(feed_id) FROM step
    """


_REPLAY = {kind: _replay(kind) for kind in _LOGS}


def _step_back(kind: str) -> str:
    table, key, _, events, events_key = _LOGS[kind]
    return f"""
        WITH step AS MATERIALIZED (
            SELECT feed_id, position FROM webhook_feeds
            WHERE webhook_id = $1 AND kind = '{kind}' AND feed_id > $3
            ORDER BY feed_id LIMIT {STEP}
        ), other AS (
            SELECT step.feed_id, r.last_seq FROM step JOIN {table} r ON r.{key} = step.feed_id
            LEFT JOIN {events} e ON e.{events_key} = step.feed_id AND e.seq = step.position
            WHERE step.position > r.last_seq OR e.epoch <> ALL($2::varchar[] || ''::varchar)
        ), moved AS (
            UPDATE webhook_feeds w SET {_WELL}, position = coalesce(
                (SELECT e.seq FROM {events} e WHERE e.{events_key} = w.feed_id
                    AND e.seq <= w.position AND e.epoch = ANY($2)
                 ORDER BY e.seq DESC LIMIT 1),
                (SELECT e.seq - 1 FROM {events} e, webhooks h
                 WHERE e.{events_key} = w.feed_id AND e.seq <= w.position AND h.id = $1
                    AND e.at >= h.created_at AND e.epoch <> ''
                 ORDER BY e.seq LIMIT 1),
                least(w.position, other.last_seq))
            FROM other
            WHERE w.webhook_id = $1 AND w.kind = '{kind}' AND w.feed_id = other.feed_id
        )
        SELECT max(feed_id) FROM step
    """


_STEP_BACK = {kind: _step_back(kind) for kind in _LOGS}

_FORGET = f"""
    WITH step AS MATERIALIZED (
        SELECT feed_id FROM webhook_feeds
        WHERE webhook_id = $1 AND kind = $2 AND feed_id > $3 ORDER BY feed_id LIMIT {STEP}
    ), gone AS (
        DELETE FROM webhook_feeds w USING step
        WHERE w.webhook_id = $1 AND w.kind = $2 AND w.feed_id = step.feed_id
    )
    SELECT max(feed_id) FROM step
"""


def _oldest(kind: str) -> str:
    table, key, last_at, events, events_key = _LOGS[kind]
    # A room belongs to no tenant: where there is one, rooms have no `since`.
    tenant = "r.enterprise_id = $3" if kind == INTERVIEW else "false"
    return f"""
        SELECT min(next.at) FROM {table} r
        LEFT JOIN webhook_feeds w
            ON w.webhook_id = $1 AND w.kind = '{kind}' AND w.feed_id = r.{key}
        CROSS JOIN LATERAL (
            SELECT e.at FROM {events} e WHERE e.{events_key} = r.{key}
                AND e.seq > coalesce(w.position, 0) AND (w.position IS NOT NULL OR e.at >= $2)
            ORDER BY e.seq LIMIT 1
        ) AS next
        WHERE w.parked_at IS NULL
            AND (w.position < r.last_seq OR (w.position IS NULL AND r.{last_at} >= $2))
            AND ($3::varchar IS NULL OR {tenant})
    """


_OLDEST = {kind: _oldest(kind) for kind in _LOGS}

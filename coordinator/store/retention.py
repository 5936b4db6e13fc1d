"""What is deleted after a while: logs and people of ended rooms, final interviews.

    EVENTS_KEEP_DAYS         the events of a room, so long after it ended
    PARTICIPANTS_KEEP_DAYS   its people; how many attended is kept
    INTERVIEWS_KEEP_DAYS     a final interview with its log, so long after its last change

One step deletes at most `ROWS` rows in a transaction of its own, on one node at a time, and skips
what somebody holds: it waits for nobody, and nobody waits for it. Each kind walks through what is
old enough in order of age, a window at a time, so that a step reads little; what was skipped is
found by the next walk, after `WALK_SECONDS`.

Whoever still needs a log says so here: `ROOM_IS_NEEDED` and `INTERVIEW_IS_NEEDED` are conditions on
`r` (interview_rooms) and `i` (interviews), and while one is true nothing of it is deleted. Webhooks
need what they have not been told; where they are disabled, or the log is parked, for no longer than
WEBHOOK_KEEP_DAYS.

SQL by hand: the walks compare rows of values, and every DELETE skips what is locked.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from coordinator.store.database import Database

ROWS = 500
WINDOW = 50
WALK_SECONDS = 3600.0

_NEEDED_BY_WEBHOOK = """
    EXISTS (
        SELECT FROM webhooks h LEFT JOIN webhook_feeds w
            ON w.webhook_id = h.id AND w.kind = '{kind}' AND w.feed_id = {feed_id}
        WHERE {is_wanted}
            AND (w.position < {row}.last_seq OR (w.position IS NULL AND {last_at} >= h.{since}))
            AND coalesce(greatest(h.disabled_at, w.parked_at)
                         > clock_timestamp() - $4::interval, true))
"""
ROOM_IS_NEEDED = _NEEDED_BY_WEBHOOK.format(
    kind="room", row="r", feed_id="r.room_id", last_at="r.last_at", since="rooms_since",
    is_wanted="h.rooms_since IS NOT NULL",
)  # fmt: skip
INTERVIEW_IS_NEEDED = _NEEDED_BY_WEBHOOK.format(
    kind="interview", row="i", feed_id="i.id", last_at="i.updated_at", since="interviews_since",
    is_wanted="""
        h.interviews_since IS NOT NULL AND coalesce(h.enterprise_id = i.enterprise_id, true)
    """,
)  # fmt: skip

_LOCK = 7_238_115  # any constant: the advisory lock of "somebody deletes what is old"
_START = (datetime(1970, 1, 1, tzinfo=UTC), "")

# The window's rooms in order of age: the walk goes on after the last of them.
_OLD_ROOMS = f"""
    SELECT r.room_id AS id, r.ended_at AS aged_at, {ROOM_IS_NEEDED} AS is_needed
    FROM interview_rooms r
    WHERE r.status = 'ended' AND r.ended_at < (SELECT clock_timestamp()) - $1::interval
        AND (r.ended_at, r.room_id) > ($2::timestamptz, $3::varchar)
    ORDER BY r.ended_at, r.room_id LIMIT {WINDOW}
"""
# They are held: a report that is written again meanwhile makes its interview a young one.
_OLD_INTERVIEWS = f"""
    SELECT i.id, i.updated_at AS aged_at, {INTERVIEW_IS_NEEDED} AS is_needed FROM interviews i
    WHERE i.status <> 'IN_PROGRESS' AND i.updated_at < (SELECT clock_timestamp()) - $1::interval
        AND (i.updated_at, i.id) > ($2::timestamptz, $3::varchar)
    ORDER BY i.updated_at, i.id LIMIT {WINDOW} FOR NO KEY UPDATE OF i SKIP LOCKED
"""

_DELETE = """
    DELETE FROM {table} WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM {table} WHERE {key} = ANY($1::varchar[])
        LIMIT {rows} FOR UPDATE SKIP LOCKED))
"""
_DELETE_EVENTS = _DELETE.format(table="room_events", key="room_id", rows=ROWS)
_DELETE_PEOPLE = _DELETE.format(table="interview_participants", key="room_id", rows=ROWS)
_DELETE_TOLD = _DELETE.format(table="interview_events", key="interview_id", rows=ROWS)
_COUNT_ATTENDED = """
    UPDATE interview_rooms r SET attended = (
        SELECT count(*) FROM interview_participants p WHERE p.room_id = r.room_id)
    WHERE r.room_id IN (
        SELECT room_id FROM interview_rooms
        WHERE room_id = ANY($1::varchar[]) AND attended IS NULL
        FOR NO KEY UPDATE SKIP LOCKED)
"""
_ARE_COUNTED = """
    SELECT room_id FROM interview_rooms
    WHERE room_id = ANY($1::varchar[]) AND attended IS NOT NULL
"""
_FORGET_POSITIONS = """
    DELETE FROM webhook_feeds
    WHERE webhook_id IN (SELECT id FROM webhooks) AND kind = 'interview'
        AND feed_id = ANY($1::varchar[])
"""
_DELETE_INTERVIEWS = """
    DELETE FROM interviews WHERE id IN (
        SELECT id FROM interviews i WHERE id = ANY($1::varchar[])
            AND NOT EXISTS (SELECT FROM interview_events e WHERE e.interview_id = i.id)
        FOR UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True)
class Keep:
    """How long each kind is kept; None = for ever.

    Attributes:
        untold: how long a webhook that is disabled keeps what it has not been told.
    """

    events: timedelta | None
    participants: timedelta | None
    interviews: timedelta | None
    untold: timedelta

    @classmethod
    def days(
        cls, *, events: float, participants: float, interviews: float, untold: float
    ) -> Keep:
        """0 days = for ever; of `untold`: not at all."""

        def limit(number: float) -> timedelta | None:
            return timedelta(days=number) if number else None

        return cls(
            limit(events), limit(participants), limit(interviews), timedelta(days=untold)
        )


class _Walk(ABC):
    """One kind: where its walk is, and what it deletes of a window."""

    old: str

    def __init__(self, keep: timedelta, untold: timedelta) -> None:
        self._keep = keep
        self._untold = untold
        self._after = _START
        self._began_at = time.monotonic()

    async def step(self, connection: Any) -> bool:
        """Deletes a little; False where the walk has come to its end."""
        window = await connection.fetch(self.old, self._keep, *self._after, self._untold)
        if not window:
            if time.monotonic() - self._began_at > WALK_SECONDS:
                self._after, self._began_at = _START, time.monotonic()
            return False
        ids = [row["id"] for row in window if not row["is_needed"]]
        deleted = await self.delete(connection, ids)
        if deleted < ROWS:
            self._after = window[-1]["aged_at"], window[-1]["id"]
        return True

    @abstractmethod
    async def delete(self, connection: Any, ids: Sequence[str]) -> int:
        """At most `ROWS` rows of these; how many it were."""


class _Events(_Walk):
    old = _OLD_ROOMS

    async def delete(self, connection: Any, ids: Sequence[str]) -> int:
        return _count(await connection.execute(_DELETE_EVENTS, ids))


class _People(_Walk):
    old = _OLD_ROOMS

    async def delete(self, connection: Any, ids: Sequence[str]) -> int:
        await connection.execute(_COUNT_ATTENDED, ids)
        counted = [row["room_id"] for row in await connection.fetch(_ARE_COUNTED, ids)]
        return _count(await connection.execute(_DELETE_PEOPLE, counted))


class _Interviews(_Walk):
    old = _OLD_INTERVIEWS

    async def delete(self, connection: Any, ids: Sequence[str]) -> int:
        await connection.execute(_FORGET_POSITIONS, ids)
        deleted = _count(await connection.execute(_DELETE_TOLD, ids))
        await connection.execute(_DELETE_INTERVIEWS, ids)
        return deleted


class Retention:
    """Deletes what has been kept long enough, in small steps."""

    def __init__(self, database: Database, keep: Keep) -> None:
        self._database = database
        kinds: dict[type[_Walk], timedelta | None] = {
            _Events: keep.events, _People: keep.participants, _Interviews: keep.interviews
        }  # fmt: skip
        self._walks = [
            kind(limit, keep.untold) for kind, limit in kinds.items() if limit is not None
        ]

    async def step(self) -> bool:
        """One small step of each kind; True where there may be more to do at once.

        False, too, while another node is at it.

        Raises:
            Unavailable: Postgres is away.
        """
        is_more = False
        for walk in self._walks:
            async with self._database.transaction() as connection:
                if not await connection.fetchval(f"SELECT pg_try_advisory_xact_lock({_LOCK})"):
                    return False
                is_more |= await walk.step(connection)
        return is_more


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])

"""What the hub reads of a log: its events, its end, and whether both are as a node was told.

Rooms and interviews have logs of one shape (`LogTables`), so that this is written once. SQL by
hand: the polls and repairs of every open feed come here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from coordinator.domain.events import Event, FeedKey, Head, timestamp
from coordinator.store.database import Database


@dataclass(frozen=True, slots=True)
class Moved:
    """A feed whose log does not end where a node thought.

    Attributes:
        last_seq: the log's end; None where there is no such feed (any more).
        stands: the event that was told last is still in the log, so that the log went on after it.
            False: the database was set back, whatever `last_seq` says.
        erasures: how many times somebody was taken out of it (`store/erasure.py`): a node that
            knows of fewer holds what is to be forgotten.
    """

    feed_id: str
    last_seq: int | None
    stands: bool
    erasures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTables:
    """Where logs of one kind stand: in `interview_rooms` and `room_events`, for example.

    Attributes:
        rows: the table with a row for each log, which has its end (`last_seq`).
        id: the column of that table with the public id.
        last_at: the column with the time of the last event.
        events: the table of the events.
        event_id: its column with the public id.
    """

    rows: str
    id: str
    last_at: str
    events: str
    event_id: str

    def events_after(self) -> str:
        """SQL: of the log $1 the events after $2, at most $3."""
        return f"""
            SELECT seq, type, at, payload, epoch FROM {self.events}
            WHERE {self.event_id} = $1 AND seq > $2 ORDER BY seq LIMIT $3
        """

    def moved(self) -> str:
        """SQL: those of the told events that are not the end of their log.

        A log that has not moved costs its own row. OFFSET 0 keeps each look one step of an index:
        joined, a large table is read from end to end.
        """
        return f"""
            SELECT known.id, l.last_seq, e.seq IS NOT NULL AS stands, l.erasures
            FROM unnest(
                $1::varchar[], $2::bigint[], $3::varchar[], $4::timestamptz[], $5::integer[]
            ) AS known (id, seq, epoch, at, erasures)
            LEFT JOIN LATERAL (
                SELECT last_seq, {self.last_at} AS last_at, erasures FROM {self.rows} l
                WHERE l.{self.id} = known.id OFFSET 0
            ) l ON true
            LEFT JOIN LATERAL ({self._told_event()}) e ON true
            WHERE l.last_seq IS DISTINCT FROM known.seq
                OR date_trunc('milliseconds', l.last_at) IS DISTINCT FROM known.at
                OR l.erasures <> known.erasures
        """

    def standing(self) -> str:
        """SQL: those of the told events that are in their log."""
        return f"""
            SELECT known.id
            FROM unnest($1::varchar[], $2::bigint[], $3::varchar[], $4::timestamptz[])
                AS known (id, seq, epoch, at)
            CROSS JOIN LATERAL ({self._told_event()}) e
        """

    def _told_event(self) -> str:
        return f"""
            SELECT seq FROM {self.events} e
            WHERE e.{self.event_id} = known.id AND e.seq = known.seq AND e.epoch = known.epoch
                AND date_trunc('milliseconds', e.at) = known.at
            OFFSET 0
        """


class StoredLogs:
    """Reads logs of one kind. Every method raises `Unavailable` where Postgres is away."""

    def __init__(self, database: Database, kind: str, tables: LogTables) -> None:
        self.database = database
        self.kind = kind
        self._events_after = tables.events_after()
        self._moved = tables.moved()
        self._standing = tables.standing()
        self._epoch_at = (
            f"SELECT seq, epoch FROM {tables.events} WHERE {tables.event_id} = $1 AND seq = $2"
        )
        self._head = f"SELECT last_seq FROM {tables.rows} WHERE {tables.id} = $1"

    async def events_after(self, feed_id: str, seq: int, limit: int) -> list[Event]:
        """The log after `seq`, oldest first, at most `limit` events."""
        rows = await self.database.fetch_told(self._events_after, feed_id, seq, limit, key="seq")
        feed = FeedKey(self.kind, feed_id)
        return [
            Event(
                feed, r["seq"], r["type"], timestamp(r["at"]), msgspec.json.decode(r["payload"]),
                r["epoch"],
            )
            for r in rows
        ]  # fmt: skip

    async def moved(
        self, known: Sequence[tuple[str, Head]], erasures: Sequence[int] = ()
    ) -> list[Moved]:
        """The poll: of logs given with the last event that was told, those whose end is another,
        and those from which somebody was erased since.

        Args:
            erasures: how many each of them is known to have had; () = they are not asked for.

        Up to 1,000 at once; each that has not moved costs the reading of its row.
        """
        columns = (*_columns(known), list(erasures))
        rows = await self.database.fetch_told(self._moved, *columns, key="id")
        return [
            Moved(row["id"], row["last_seq"], row["stands"], row["erasures"] or 0) for row in rows
        ]

    async def vanished(self, known: Sequence[tuple[str, Head]]) -> set[str]:
        """After a change of epoch: the logs that do not have the event that was told last.

        Compared by seq, epoch and time; up to 1,000 at once.
        """
        rows = await self.database.fetch_told(self._standing, *_columns(known), key="id")
        return {feed_id for feed_id, _ in known} - {row["id"] for row in rows}

    async def epoch_at(self, feed_id: str, seq: int) -> str | None:
        """The epoch of the event `seq`; None where the log does not have it.

        A client that resumes without an epoch is good only where this is the current one.
        """
        rows = await self.database.fetch_told(self._epoch_at, feed_id, seq, key="seq")
        return rows[0]["epoch"] if rows else None

    async def head(self, feed_id: str) -> int | None:
        """The log's last seq; None = there is no such log."""
        seq: int | None = await self.database.fetchval(self._head, feed_id)
        return seq


def _columns(known: Sequence[tuple[str, Head]]) -> tuple[list[Any], ...]:
    """What was told, as parameters: ids, seqs, epochs, times."""
    return (
        [feed_id for feed_id, _ in known],
        [head.seq for _, head in known],
        [head.epoch for _, head in known],
        [datetime.fromisoformat(head.at) for _, head in known],
    )

"""AI interviews and their log: the tables `interviews` and `interview_events`.

Writing happens inside a transaction of the caller (`Database.transaction`), who holds the row:
`StoredInterviews.locked` waits for it. `at` of an event is read from Postgres's clock after that
wait, and is at least a millisecond later than that of the one before, so `updatedAt` always moves
on. SQL by hand: what writes is a CTE (row and event in one statement), its reads are the feeds'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from coordinator.domain.errors import NotFound
from coordinator.domain.events import INTERVIEW, Event, FeedKey, Head, timestamp
from coordinator.domain.interview import (
    CREATED,
    IN_PROGRESS,
    UPDATED,
    Interview,
    InterviewState,
    JobBrief,
    Record,
)
from coordinator.domain.interview import progress as progress_of
from coordinator.domain.job import Enterprise
from coordinator.store.database import Database
from coordinator.store.logs import LogTables, StoredLogs

_COLUMNS = """
    i.id, i.external_user_id, i.job_id, i.status, i.outline, i.current_index, i.answers, i.report,
    i.resume_id, i.created_at, i.updated_at, i.last_seq,
    j.title, e.id AS enterprise_id, e.name AS enterprise_name
"""

_FROM = "interviews i JOIN jobs j ON j.id = i.job_id JOIN enterprises e ON e.id = i.enterprise_id"

_MINE = "($1::varchar IS NULL OR i.enterprise_id = $1)"

REPEAT_SECONDS = 120.0
"""How long a call to create counts as a repeat of an equal one."""

# The event is written by the statement that changes the row: its seq and its time are the row's.
_INSERT = """
    WITH job AS (
        SELECT enterprise_id AS id FROM jobs WHERE id = $3 AND enterprise_id = $16 FOR SHARE
    ), made AS (
        INSERT INTO interviews
            (id, external_user_id, job_id, status, outline, current_index, answers, report,
             resume_id, created_by, updated_by, fingerprint, idempotency_key, body_digest,
             created_at, updated_at, last_seq, enterprise_id)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11, $12, $13, now.at, now.at, 1, j.id
        FROM (SELECT clock_timestamp() AS at) AS now, job AS j
        RETURNING id, last_seq, updated_at
    )
    INSERT INTO interview_events (interview_id, seq, type, at, payload, epoch)
    SELECT id, last_seq, $14, updated_at, $15, (SELECT epoch FROM deployment) FROM made
    RETURNING seq, at, epoch
"""

_UPDATE = """
    WITH made AS (
        UPDATE interviews
        SET status = $2, outline = $3, current_index = $4, answers = $5, report = $6,
            updated_by = $7, last_seq = last_seq + 1,
            updated_at = greatest(clock_timestamp(), updated_at + interval '1 millisecond')
        WHERE id = $1
        RETURNING id, last_seq, updated_at
    )
    INSERT INTO interview_events (interview_id, seq, type, at, payload, epoch,
                                  writes_report)
    SELECT id, last_seq, $8, updated_at, $9, (SELECT epoch FROM deployment), $10 FROM made
    RETURNING seq, at, epoch
"""

_LOAD = f"""
    SELECT {_COLUMNS}, i.erasures, last.epoch AS last_epoch FROM {_FROM}
    LEFT JOIN interview_events last ON last.interview_id = i.id AND last.seq = i.last_seq
    WHERE i.id = $1
"""

_LOGS = LogTables(
    rows="interviews", id="id", last_at="updated_at", events="interview_events",
    event_id="interview_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call to create an interview, as its repeats are known by.

    Attributes:
        key_name: the name of the API key.
        fingerprint: a digest of what makes two calls the same.
        idempotency_key: the caller's own name for it, or None.
        body_digest: a digest of the whole body.
    """

    key_name: str
    fingerprint: str
    idempotency_key: str | None
    body_digest: str


class StoredInterviews(StoredLogs):
    """Reads and writes interviews. Raises `Unavailable` where Postgres is away.

    It is also the hub's source of the feeds of kind `interview`. `enterprise` is the tenant that
    asks: it sees the interviews of its own jobs alone; None sees all.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database, INTERVIEW, _LOGS)

    async def record(self, interview_id: str, *, enterprise: str | None) -> Record | None:
        """The interview, or None where there is none that the tenant may see."""
        one = f"SELECT {_COLUMNS} FROM {_FROM} WHERE {_MINE} AND i.id = $2"
        row = await self.database.fetchrow(one, enterprise, interview_id)
        return None if row is None else _record(row)

    # -- changing, inside a transaction of the caller -----------------------------------------

    async def locked(
        self, connection: Any, interview_id: str, *, enterprise: str | None
    ) -> Record | None:
        """Like `record`, and nobody else changes it until the transaction ends."""
        row = await connection.fetchrow(
            f"""
            SELECT {_COLUMNS} FROM {_FROM} WHERE {_MINE} AND i.id = $2
            FOR NO KEY UPDATE OF i
            """,
            enterprise, interview_id,
        )  # fmt: skip
        return None if row is None else _record(row)

    async def alone(self, connection: Any, call: Call) -> None:
        """Waits until no equal call is under way on any node; holds them off until the end."""
        name = call.idempotency_key if call.idempotency_key is not None else call.fingerprint
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"{call.key_name}\n{name}"
        )

    async def by_idempotency_key(
        self, connection: Any, call: Call
    ) -> tuple[Record, str | None] | None:
        """The interview that a call with this idempotency key made, and that call's body digest."""
        row = await connection.fetchrow(
            f"""
            SELECT {_COLUMNS}, i.body_digest FROM {_FROM}
            WHERE i.created_by = $1 AND i.idempotency_key = $2
            """,
            call.key_name, call.idempotency_key,
        )  # fmt: skip
        return None if row is None else (_record(row), row["body_digest"])

    async def by_equal_call(self, connection: Any, call: Call) -> Record | None:
        """The interview that an equal call made within `REPEAT_SECONDS`, while it is fresh
        (`Interview.is_fresh`): one that came without an idempotency key, as this call did, before
        one that bears another call's.
        """
        row = await connection.fetchrow(
            f"""
            SELECT {_COLUMNS} FROM {_FROM}
            WHERE i.fingerprint = $1 AND i.created_by = $2
                AND i.created_at > clock_timestamp() - make_interval(secs => $3)
                AND i.status = '{IN_PROGRESS}' AND json_array_length(i.answers) = 0
            ORDER BY i.idempotency_key IS NOT NULL, i.created_at DESC, i.number DESC LIMIT 1
            """,
            call.fingerprint, call.key_name, REPEAT_SECONDS,
        )  # fmt: skip
        return None if row is None else _record(row)

    async def add(
        self, connection: Any, interview_id: str, interview: Interview, job: JobBrief, call: Call
    ) -> tuple[Record, Event]:
        """Writes a new interview and its first event.

        Raises:
            NotFound: its job has gone to another enterprise meanwhile.
        """
        told = progress_of(interview)
        row = await connection.fetchrow(
            _INSERT,
            interview_id,
            interview.user_id,
            interview.job_id,
            interview.status,
            _json(interview.outline),
            interview.current_index,
            _json(interview.answers),
            _json(interview.report),
            interview.resume_id,
            call.key_name,
            call.fingerprint,
            call.idempotency_key,
            call.body_digest,
            CREATED,
            _json(told),
            job.enterprise.id,
        )
        if row is None:
            raise NotFound("岗位不存在")
        return (
            Record(interview_id, row["seq"], interview, job, row["at"], row["at"]),
            _event(interview_id, row, CREATED, told),
        )

    async def write(
        self, connection: Any, before: Record, interview: Interview, *, by: str,
        writes_report: bool,
    ) -> tuple[Record, Event]:  # fmt: skip
        """Writes the new state of a locked interview and the event that tells it.

        Args:
            by: the name of the key that changes it.
            writes_report: the change sets a member of the report.
        """
        told = progress_of(interview)
        row = await connection.fetchrow(
            _UPDATE,
            before.id,
            interview.status,
            _json(interview.outline),
            interview.current_index,
            _json(interview.answers),
            _json(interview.report),
            by,
            UPDATED,
            _json(told),
            writes_report,
        )
        return (
            Record(before.id, row["seq"], interview, before.job, before.created_at, row["at"]),
            _event(before.id, row, UPDATED, told),
        )

    # -- the hub's source ---------------------------------------------------------------------

    async def load(self, interview_id: str) -> tuple[Head, InterviewState] | None:
        """The feed's state and the event that it reflects, of one moment; None = there is none."""
        rows = await self.database.fetch_told(_LOAD, interview_id, key="id")
        if not rows:
            return None
        record = _record(rows[0])
        head = Head(record.seq, rows[0]["last_epoch"] or "", timestamp(record.updated_at))
        return head, InterviewState.of(record, erasures=rows[0]["erasures"])

    async def connections_at(self, interview_id: str, seq: int) -> dict[str, str]:
        """Nobody is in an interview."""
        return {}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _event(interview_id: str, row: Any, kind: str, told: dict[str, Any]) -> Event:
    feed = FeedKey(INTERVIEW, interview_id)
    return Event(feed, row["seq"], kind, timestamp(row["at"]), told, row["epoch"])


def brief_of(row: Any) -> JobBrief:
    """An interview's job, of a row that has it."""
    enterprise = Enterprise(row["enterprise_id"], row["enterprise_name"])
    return JobBrief(row["job_id"], row["title"], enterprise)


def _record(row: Any) -> Record:
    interview = Interview(
        user_id=row["external_user_id"],
        job_id=row["job_id"],
        status=row["status"],
        outline=tuple(msgspec.json.decode(row["outline"])),
        current_index=row["current_index"],
        answers=tuple(msgspec.json.decode(row["answers"])),
        report=msgspec.json.decode(row["report"]),
        resume_id=row["resume_id"],
    )
    return Record(
        row["id"], row["last_seq"], interview, brief_of(row), row["created_at"], row["updated_at"]
    )

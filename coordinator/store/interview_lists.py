"""Lists of interviews, in pages: where each stands, without what was said."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from coordinator.domain.interview import JobBrief
from coordinator.store.database import Database
from coordinator.store.interviews import brief_of
from coordinator.store.tables import InterviewsTable

_LISTED = (
    InterviewsTable.id, InterviewsTable.external_user_id, InterviewsTable.job_id,
    InterviewsTable.status, InterviewsTable.current_index, InterviewsTable.summary,
    InterviewsTable.created_at, InterviewsTable.updated_at, InterviewsTable.enterprise_id,
    InterviewsTable.job_id._.title.as_alias("title"),
    InterviewsTable.enterprise_id._.name.as_alias("enterprise_name"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of a list of interviews: where it stands, without what was said."""

    record_id: str
    user_id: str
    progress: dict[str, Any]
    recommendation: str | None
    job: JobBrief
    created_at: datetime
    updated_at: datetime


async def listed_interviews(
    database: Database,
    *,
    enterprise: str | None,
    user_id: str | None,
    job_id: str | None,
    status: str | None,
    limit: int,
    offset: int,
) -> tuple[int, list[Listed]]:
    """How many interviews match, and one page of them, newest first. None matches all."""
    filters = {
        InterviewsTable.enterprise_id: enterprise,
        InterviewsTable.external_user_id: user_id,
        InterviewsTable.job_id: job_id,
        InterviewsTable.status: status,
    }
    # Only what is asked for stands in the statement, so that its index is used.
    wanted = [column == value for column, value in filters.items() if value is not None]
    total = await database.run(InterviewsTable.count().where(*wanted))
    page = InterviewsTable.select(*_LISTED).where(*wanted).limit(limit).offset(offset)
    newest = (InterviewsTable.created_at, InterviewsTable.number)
    rows = await database.run(page.order_by(*newest, ascending=False))
    return total, [_listed(row) for row in rows]


def _listed(row: Any) -> Listed:
    summary = msgspec.json.decode(row["summary"])
    told = {
        "status": row["status"],
        "currentIndex": row["current_index"],
        "answeredCount": summary["answered"],
        "totalQuestions": summary["questions"],
    }
    told |= {name: summary[name] for name in ("totalScore", "grade") if name in summary}
    return Listed(
        row["id"], row["external_user_id"], told, summary.get("recommendation"), brief_of(row),
        row["created_at"], row["updated_at"],
    )  # fmt: skip

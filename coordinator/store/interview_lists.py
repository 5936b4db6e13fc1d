"""Lists of interviews, in pages: where each stands, without what was said."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from coordinator.domain.interview import JobBrief
from coordinator.store.database import Database
from coordinator.store.interviews import brief_of
from coordinator.store.lists import PagedList

_INTERVIEWS = PagedList(
    table="interviews",
    number="number",
    shown="""
        p.id, p.external_user_id, p.job_id, p.status, p.current_index, p.summary, p.created_at,
        p.updated_at, p.enterprise_id, j.title, e.name AS enterprise_name
    """,
    joins="LEFT JOIN jobs j ON j.id = p.job_id LEFT JOIN enterprises e ON e.id = p.enterprise_id",
)


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
        "enterprise_id = {}": enterprise,
        "external_user_id = {}": user_id,
        "job_id = {}": job_id,
        "status = {}": status,
    }
    wanted = {condition: value for condition, value in filters.items() if value is not None}
    total, rows = await _INTERVIEWS.page(database, wanted, limit=limit, offset=offset)
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

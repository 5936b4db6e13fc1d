"""What webhooks are told: the events of both kinds of log, by the names that back ends know.

An interview's log knows one type of change, `interview_updated`. A webhook hears the change that
completes or cancels the interview under a name of its own, and so a report that is written again
afterwards; these three carry the record.
"""

from __future__ import annotations

from collections.abc import Collection

from coordinator.domain.events import INTERVIEW, ROOM
from coordinator.domain.interview import CANCELLED, COMPLETED, CREATED, UPDATED

ROOM_TYPES = (
    "room_created",
    "participant_joined",
    "participant_online",
    "participant_away",
    "participant_back",
    "participant_left",
    "room_ended",
)
INTERVIEW_COMPLETED = "interview_completed"
INTERVIEW_CANCELLED = "interview_cancelled"
INTERVIEW_REPORT = "interview_report"
WITH_RECORD = (INTERVIEW_COMPLETED, INTERVIEW_CANCELLED, INTERVIEW_REPORT)
INTERVIEW_TYPES = (CREATED, UPDATED, *WITH_RECORD)
TYPES = (*ROOM_TYPES, *INTERVIEW_TYPES)
PING = "ping"

_ENDS = {COMPLETED: INTERVIEW_COMPLETED, CANCELLED: INTERVIEW_CANCELLED}


def interview_told_as(
    kind: str, *, status: str, status_before: str | None, writes_report: bool
) -> str:
    """The name under which an event of an interview's log is told.

    Args:
        status: the interview's, after the event; `status_before`: before it.
        writes_report: the change set a member of the report.
    """
    if kind != UPDATED:
        return kind
    if status != status_before and status in _ENDS:
        return _ENDS[status]
    if status == COMPLETED and writes_report:
        return INTERVIEW_REPORT
    return UPDATED


def wanted_kinds(types: Collection[str] | None, *, tenant: str | None) -> tuple[str, ...]:
    """The kinds of log that hold what is asked for; rooms belong to no tenant."""
    wanted = TYPES if types is None else types
    kinds = []
    if tenant is None and any(name in ROOM_TYPES for name in wanted):
        kinds.append(ROOM)
    if any(name in INTERVIEW_TYPES for name in wanted):
        kinds.append(INTERVIEW)
    return tuple(kinds)

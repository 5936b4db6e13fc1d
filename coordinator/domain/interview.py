"""Rules of an AI interview: how it begins, what may change it, what its log tells.

A workflow on Coze makes the interview, asks its questions and writes its report; we keep the
record. Changes come as the members of a PATCH, and the rules are checked on the record as it would
be afterwards, so a refused change leaves nothing behind:

    IN_PROGRESS ──► COMPLETED     both are final for `status`; the report of a completed one
         └────────► CANCELLED     may be written again, a cancelled one has none

List items are JSON objects kept as they came, members that we do not know included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from coordinator.domain.errors import InvalidParams
from coordinator.domain.events import Event, timestamp
from coordinator.domain.job import Enterprise

IN_PROGRESS = "IN_PROGRESS"
COMPLETED = "COMPLETED"
CANCELLED = "CANCELLED"

CREATED = "interview_created"
UPDATED = "interview_updated"

REPORT = (
    "totalScore",
    "dimensions",
    "highlights",
    "improvements",
    "suggestions",
    "grade",
    "recommendation",
)
"""The members that make up the report, in the order in which they are shown."""

MAX_ANSWERS = 200
"""Answers come one by one and add up; other lists are bounded where a call is read."""

_LISTS_THAT_EMPTY_MEANS_ABSENT = ("outline", "answers", "dimensions", "highlights", "improvements")

Item = Mapping[str, Any]
Given = Mapping[str, Any]
"""Members of a call, by their public names: `{"currentIndex": 1, "answers": [{…}]}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interview:
    """What the rules are about.

    Attributes:
        user_id: the candidate, opaque: Coze's `sys_uuid`.
        answers: in the order of their `questionIndex`, one for each.
        report: the members of `REPORT` that are set.
    """

    user_id: str
    job_id: str
    status: str = IN_PROGRESS
    outline: tuple[Item, ...] = ()
    current_index: int = 0
    answers: tuple[Item, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    resume_id: str | None = None

    @property
    def is_fresh(self) -> bool:
        """True while nothing would be lost if the caller's repeat got this very record."""
        return self.status == IN_PROGRESS and not self.answers

    @property
    def has_report(self) -> bool:
        return any(name in self.report for name in ("totalScore", "dimensions", "suggestions"))


@dataclass(frozen=True, slots=True)
class JobBrief:
    """The job as an interview's record names it."""

    id: str
    title: str
    enterprise: Enterprise


@dataclass(frozen=True, slots=True)
class Record:
    """An interview as it is stored.

    Attributes:
        seq: the number of its last event.
    """

    id: str
    seq: int
    interview: Interview
    job: JobBrief
    created_at: datetime
    updated_at: datetime


def begun(given: Given) -> Interview:
    """The interview that a call to create one asks for.

    Raises:
        InvalidParams: it is to begin in another state than in progress, or breaks a rule.
    """
    if given.get("status", IN_PROGRESS) != IN_PROGRESS:
        raise InvalidParams.wrong("status", "新建面试只能是 IN_PROGRESS")
    interview = Interview(
        user_id=given["userId"],
        job_id=given["jobId"],
        outline=tuple(given.get("outline", ())),
        current_index=given.get("currentIndex", 0),
        answers=merged((), given.get("answers", ())),
        resume_id=given.get("resumeId"),
    )
    check(interview)
    return interview


def effective(given: Given) -> Given:
    """The members of a PATCH that say something: empty lists are Coze's zero values."""
    silent = [name for name in _LISTS_THAT_EMPTY_MEANS_ABSENT if given.get(name) == []]
    return {name: value for name, value in given.items() if name not in silent}


def writes_report(given: Given) -> bool:
    """True for a PATCH that sets a member of the report."""
    return any(name in REPORT for name in effective(given))


def changed(interview: Interview, given: Given) -> Interview:
    """The interview after a PATCH; the same object where that says nothing.

    Raises:
        InvalidParams: an illegal move of `status`, or the record would break a rule.
    """
    given = effective(given)
    report = {name: given[name] for name in REPORT if name in given}
    after = replace(
        interview,
        status=_moved(interview.status, given.get("status", interview.status)),
        outline=tuple(given.get("outline", interview.outline)),
        current_index=given.get("currentIndex", interview.current_index),
        answers=merged(interview.answers, given.get("answers", ())),
        report={**interview.report, **report},
    )
    if report and after.status == CANCELLED:
        raise InvalidParams("面试已取消，不能写入报告")
    check(after)
    return after if given else interview


def _moved(status: str, to: str) -> str:
    if to != status and status != IN_PROGRESS:
        raise InvalidParams.wrong("status", f"面试状态为 {status}，不能改为 {to}")
    return to


def merged(old: Iterable[Item], new: Iterable[Item]) -> tuple[Item, ...]:
    """Answers by `questionIndex`, in its order: new ones replace or add, others stay."""
    by_index = {item["questionIndex"]: item for item in (*old, *new)}
    return tuple(by_index[index] for index in sorted(by_index))


def check(interview: Interview) -> None:
    """The rules that tie members together.

    Raises:
        InvalidParams: naming the member that breaks one.
    """
    if len(interview.answers) > MAX_ANSWERS:
        raise InvalidParams.wrong("answers", f"不能超过{MAX_ANSWERS}项")
    seen: set[str] = set()
    for place, item in enumerate(interview.outline):
        if item["id"] in seen:
            raise InvalidParams.wrong(f"outline[{place}].id", f"{item['id']} 重复")
        seen.add(item["id"])
    if interview.outline and not 0 <= interview.current_index <= len(interview.outline):
        raise InvalidParams.wrong("currentIndex", f"应在 0 到 {len(interview.outline)} 之间")
    for place, item in enumerate(interview.report.get("dimensions", ())):
        if "maxScore" in item and item["score"] > item["maxScore"]:
            raise InvalidParams.wrong(f"dimensions[{place}].score", "不能大于 maxScore")


def progress(interview: Interview) -> dict[str, Any]:
    """What an event of its log tells: where the interview stands, never what was said."""
    told = {
        "status": interview.status,
        "currentIndex": interview.current_index,
        "answeredCount": len(interview.answers),
        "totalQuestions": len(interview.outline),
    }
    return told | {k: interview.report[k] for k in ("totalScore", "grade") if k in interview.report}


def shown(record: Record) -> dict[str, Any]:
    """The whole record as clients see it; what is not set is left out."""
    interview = record.interview
    resume = {"resumeId": interview.resume_id} if interview.resume_id is not None else {}
    return {
        "id": record.id,
        "userId": interview.user_id,
        "jobId": interview.job_id,
        "status": interview.status,
        **resume,
        "outline": list(interview.outline),
        "currentIndex": interview.current_index,
        "answers": list(interview.answers),
        **{name: interview.report[name] for name in REPORT if name in interview.report},
        "job": shown_job(record.job),
        "createdAt": timestamp(record.created_at),
        "updatedAt": timestamp(record.updated_at),
    }


def shown_job(job: JobBrief) -> dict[str, Any]:
    """`{"id": …, "title": …, "enterprise": {"id": …, "name": …}}`."""
    enterprise = {"id": job.enterprise.id, "name": job.enterprise.name}
    return {"id": job.id, "title": job.title, "enterprise": enterprise}


def shown_live(record: Record) -> dict[str, Any]:
    """The record for those who watch it: without what the candidate said.

    Answers keep their index and time alone, highlights lose the quoted answer.
    """
    members = shown(record)
    members["answers"] = [
        {name: item[name] for name in ("questionIndex", "timestamp") if name in item}
        for item in members["answers"]
    ]
    if "highlights" in members:
        members["highlights"] = [
            {name: value for name, value in item.items() if name != "answer"}
            for item in members["highlights"]
        ]
    return members


@dataclass(slots=True)
class InterviewState:
    """An interview as its live feed holds it: `shown_live`, kept current by its events.

    Events tell where an interview stands, not all of its members: whoever starts to watch is shown
    the record as it was just read (`live/interview_viewer.py`).
    """

    members: dict[str, Any]
    erasures: int = 0

    @classmethod
    def of(cls, record: Record, *, erasures: int = 0) -> InterviewState:
        """The state that a stored record is."""
        return cls(shown_live(record), erasures=erasures)

    def apply(self, event: Event) -> None:
        """Takes the next event in; no event of an interview ends a connection."""
        shown_by_event = ("status", "currentIndex", "totalScore", "grade")
        told = {name: event.data[name] for name in shown_by_event if name in event.data}
        self.members = {**self.members, **told, "updatedAt": event.at}

    def admits(self, user_id: str | None) -> bool:
        """True: whoever may watch an interview may do so to its end and after."""
        return True

    def counts(self) -> None:
        """Nobody is in an interview."""

    def snapshot(self) -> dict[str, Any]:
        """The members of a `welcome` that tell this state."""
        return {"interview": self.members}

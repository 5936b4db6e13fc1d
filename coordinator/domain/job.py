"""Jobs: what an interview is about. They come from `coordinator import-jobs`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_RECORD_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


def is_record_id(text: str) -> bool:
    """True where `text` can be the id of a job, an enterprise or an interview at all."""
    return _RECORD_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Enterprise:
    """Who offers a job; also the tenant that a key of the open API can be bound to."""

    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the Coze document shows it. Salaries are CNY per month; None is not stated."""

    id: str
    title: str
    enterprise: Enterprise
    description: str | None = None
    requirements: str | None = None
    skills: tuple[str, ...] = ()
    salary_min: int | None = None
    salary_max: int | None = None
    location: str | None = None

    def shown(self) -> dict[str, Any]:
        """The job as clients see it; what is not stated is left out."""
        members = {
            "id": self.id,
            "title": self.title,
            "description": self.description,
            "requirements": self.requirements,
            "skills": list(self.skills),
            "salaryMin": self.salary_min,
            "salaryMax": self.salary_max,
            "location": self.location,
            "enterprise": {"id": self.enterprise.id, "name": self.enterprise.name},
        }
        return {name: value for name, value in members.items() if value is not None}

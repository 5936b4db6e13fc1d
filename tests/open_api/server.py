"""The open API alone, as a node serves it, and what it hands to the bus."""

from __future__ import annotations

import secrets
from typing import Any, cast

import httpx
from litestar import Litestar
from litestar.datastructures import State

from coordinator.domain.events import Event
from coordinator.redis import fail_fast_redis
from coordinator.services.access import Access
from coordinator.services.api_keys import ApiKeys
from coordinator.services.interviews import Interviews
from coordinator.settings import ApiKey, Settings
from coordinator.store.database import Database
from coordinator.store.interviews import StoredInterviews
from coordinator.store.jobs import Jobs
from coordinator.store.people import People
from coordinator.web import open_api
from coordinator.web.dependencies import injected
from coordinator.web.errors import EXCEPTION_HANDLERS
from coordinator.web.guards import GUARDED
from coordinator.web.limits import Limits
from tests.open_api import (
    KEY,
    KEYS,
)

SECRET = "s" * 32
REPORT: dict[str, Any] = {
    "status": "COMPLETED",
    "totalScore": 72,
    "dimensions": [
        {"name": "专业知识", "score": 38, "maxScore": 50},
        {"name": "表达能力", "score": 18, "maxScore": 25},
        {"name": "逻辑思维", "score": 16, "maxScore": 25},
    ],
    "highlights": [{"question": "题目1", "answer": "...", "score": 8, "comment": "回答很完整"}],
    "improvements": [{"area": "技术深度", "suggestion": "建议加强..."}],
    "suggestions": "整体建议：该候选人基础扎实，但需要加强...",
    "grade": "B",
    "recommendation": "待定",
}


def keys() -> tuple[ApiKey, ...]:
    environ = {
        "OPEN_API_KEYS": KEYS, "DATABASE_URL": "postgresql:///x", "REDIS_URL": "redis://x",
        "JWT_SECRET": "x" * 32,
    }  # fmt: skip
    return Settings.from_env(environ).open_api_keys


class Published(list[Event]):
    """What the service handed to the bus, in order."""

    def __call__(self, events: list[Event]) -> None:
        self.extend(events)

    def of(self, interview: dict[str, Any]) -> list[dict[str, Any]]:
        return [event.body() for event in self if event.feed.id == interview["id"]]


def app_with(
    database: Database,
    redis_url: str,
    publish: Any,
    *,
    rate: str = "",
    key_rate: str = "",
    api_keys: Any = None,
) -> Litestar:
    """The open API alone, as a node serves it."""
    jobs = Jobs(database)
    rates = {"open": rate, "key": key_rate}
    limits = Limits(rates, fail_fast_redis(redis_url), secrets.token_hex(4), (), nodes=lambda: 1)
    people = People(database)
    services = {
        "base_url": "https://interviews.example.com",
        "interviews": Interviews(StoredInterviews(database), jobs, publish),
        "jobs": jobs,
        "api_keys": ApiKeys(keys() if api_keys is None else api_keys),
        "limits": limits,
        "people": people,
        "access": Access((SECRET,), people),
    }
    return Litestar(
        open_api.HANDLERS,
        dependencies=injected(services) | GUARDED,
        state=State(services),
        exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=None,
    )


def calling(app: Litestar, headers: dict[str, str] = KEY) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(cast(Any, app)), base_url="http://node", headers=headers
    )

"""AI interviews: created once however often the call comes, changed whole or not at all.

Each change is one transaction that holds the interview's row: load, decide, write the row and its
event, commit. Only then the event is published. Killed before the commit nothing has happened;
killed after it the event is in the log, where every node finds it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from coordinator.domain.errors import InvalidParams, NotFound
from coordinator.domain.events import Event
from coordinator.domain.ids import new_record_id
from coordinator.domain.interview import (
    Given,
    Interview,
    JobBrief,
    Record,
    begun,
    changed,
    writes_report,
)
from coordinator.domain.report import as_json, as_markdown, require_report
from coordinator.settings import ApiKey
from coordinator.store.interview_lists import Listed, listed_interviews
from coordinator.store.interviews import Call, StoredInterviews
from coordinator.store.jobs import Jobs

MAX_RECORD_BYTES = 1024 * 1024
"""Calls come one by one and add up: beyond this nobody could read the record any more."""


class Interviews:
    """The stories of the open API. Safe to use from many tasks and many nodes at once.

    Args:
        publish: takes the events of one commit, after it; must not block.
    """

    def __init__(
        self, stored: StoredInterviews, jobs: Jobs, publish: Callable[[list[Event]], None]
    ) -> None:
        self._stored = stored
        self._jobs = jobs
        self._publish = publish
        self._reporting = asyncio.Semaphore(1)

    async def create(
        self, key: ApiKey, given: Given, *, idempotency_key: str | None = None
    ) -> Record:
        """The interview that this call makes, or that an equal one made before.

        Args:
            given: the members of the call, checked for their types.

        Raises:
            InvalidParams: a rule is broken, or the idempotency key came with another body before.
            NotFound: there is no such job for this key.
        """
        interview = begun(given)
        _check_size(interview, given)
        call = Call(
            key_name=key.name,
            fingerprint=_digest([interview.user_id, interview.job_id, interview.outline]),
            idempotency_key=idempotency_key,
            body_digest=_digest(given),
        )
        job = await self._jobs.job(interview.job_id, enterprise=key.enterprise_id)
        if job is None:
            raise NotFound("岗位不存在")
        brief = JobBrief(job.id, job.title, job.enterprise)
        record_id = new_record_id()

        async def make(connection: Any) -> tuple[Record, Event | None]:
            await self._stored.alone(connection, call)
            before = await self._made_before(connection, call, interview)
            if before is not None:
                return before, None
            return await self._stored.add(connection, record_id, interview, brief, call)

        return await self._carried_out(make)

    async def _carried_out(
        self, work: Callable[[Any], Awaitable[tuple[Record, Event | None]]]
    ) -> Record:
        """Does the work in a transaction; its event, where there is one, is told after it."""
        record, event = await self._stored.database.in_transaction(work)
        if event is not None:
            self._publish([event])
        return record

    async def _made_before(
        self, connection: Any, call: Call, interview: Interview
    ) -> Record | None:
        """What this call made the first time, where it is a repeat."""
        if call.idempotency_key is not None:
            found = await self._stored.by_idempotency_key(connection, call)
            if found is None:
                return None
            record, body_digest = found
            if body_digest != call.body_digest:
                raise InvalidParams("同一个 Idempotency-Key 不能用于不同的请求")
            return record
        if not interview.is_fresh:
            return None  # it brings answers: the other record would not hold them
        return await self._stored.by_equal_call(connection, call)

    async def change(self, key: ApiKey, interview_id: str, given: Given) -> Record:
        """Changes members of an interview; a call that says nothing gives it as it is.

        Raises:
            NotFound: there is none that this key may see.
            InvalidParams: a rule is broken; nothing has changed then.
        """


        async def write(connection: Any) -> tuple[Record, Event | None]:
            before = await self._stored.locked(
                connection, interview_id, enterprise=key.enterprise_id
            )
            if before is None:
                raise NotFound("面试记录不存在")
            after = changed(before.interview, given)
            if after is before.interview:
                return before, None
            _check_size(after, given)
            return await self._stored.write(
                connection, before, after, by=key.name, writes_report=writes_report(given)
            )

        return await self._carried_out(write)

    async def record(self, key: ApiKey, interview_id: str) -> Record:
        """The interview as it stands.

        Raises:
            NotFound: there is none that this key may see.
        """
        record = await self._stored.record(interview_id, enterprise=key.enterprise_id)
        if record is None:
            raise NotFound("面试记录不存在")
        return record

    async def report(self, key: ApiKey, interview_id: str) -> dict[str, str]:
        """The report as Markdown and as JSON text, with its verdict.

        It is written in a thread, one at a time: a mebibyte of text takes a while, and the event
        loop has its turns meanwhile.

        Raises:
            NotFound: there is none that this key may see.
            InvalidParams: it has no report yet.
        """
        record = await self.record(key, interview_id)
        require_report(record.interview)
        async with self._reporting:
            return await asyncio.to_thread(_report, record)

    async def listed(
        self,
        key: ApiKey,
        *,
        user_id: str | None,
        job_id: str | None,
        status: str | None,
        limit: int,
        offset: int,
    ) -> tuple[int, list[Listed]]:
        """How many match, and one page of them, newest first; None matches all."""
        return await listed_interviews(
            self._stored.database,
            enterprise=key.enterprise_id, user_id=user_id, job_id=job_id, status=status,
            limit=limit, offset=offset,
        )  # fmt: skip


def _report(record: Record) -> dict[str, str]:
    report = record.interview.report
    verdict = {name: report[name] for name in ("grade", "recommendation") if name in report}
    return {"reportMarkdown": as_markdown(record), "reportJson": as_json(record), **verdict}


def _check_size(after: Interview, given: Given) -> None:
    """A record grows up to `MAX_RECORD_BYTES`.

    Raises:
        InvalidParams: naming the member of the call that is the largest.
    """
    if len(msgspec.json.encode(after)) > MAX_RECORD_BYTES:
        largest = max(given, key=lambda name: len(msgspec.json.encode(given[name])))
        limit = f"面试记录不能超过{MAX_RECORD_BYTES // 1024}KiB"
        raise InvalidParams.wrong(largest, limit)


def _digest(value: list[Any] | Mapping[str, Any]) -> str:
    """The same for equal JSON, in whatever order its members come."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()

"""A page of jobs. Their texts may be long: a large page is read and sent a portion at a time.

So no page holds the event loop up, and none is in memory as a whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from litestar import MediaType, Response
from litestar.response import Stream

from coordinator.domain.job import Job
from coordinator.store.jobs import Jobs
from coordinator.web.pages import Page


async def job_list(jobs: Jobs, page: Page, *, enterprise: str | None) -> Response[Any]:
    """The answer of the open API, `{total, page, pageSize, list}`, newest first.

    Raises:
        Unavailable: Postgres is away; once sending has begun the connection ends by it.
    """
    total, portions = await jobs.portions(
        enterprise=enterprise, limit=page.size, offset=page.offset
    )
    first = await jobs.some(portions[0]) if portions else []
    if len(portions) < 2:
        return Response(_answer(page.of(total, [job.shown() for job in first])))
    frame = msgspec.json.encode(_answer(page.of(total, [])))
    return Stream(
        _pieces(frame.removesuffix(_END), jobs, first, portions[1:]), media_type=MediaType.JSON
    )


_END = b"]}}"
"""Of an answer, whose last member is the list."""


def _answer(data: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "data": data}


async def _pieces(
    head: bytes, jobs: Jobs, first: Sequence[Job], rest: Sequence[Sequence[str]]
) -> AsyncIterator[bytes]:
    yield head
    separator = b""  # none before the first job, in whichever portion it stands
    for ids in (None, *rest):
        for job in first if ids is None else await jobs.some(ids):
            yield separator + msgspec.json.encode(job.shown())
            separator = b","
    yield _END

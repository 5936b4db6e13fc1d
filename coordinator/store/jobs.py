"""Jobs and enterprises: the tables `jobs` and `enterprises`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from piccolo.columns.combination import WhereRaw

from coordinator.domain.job import Enterprise, Job
from coordinator.store.database import Database
from coordinator.store.lists import PagedList
from coordinator.store.tables import Enterprises

# SQL by hand: agents ask for jobs in each of their talks, and Piccolo costs more than PostgreSQL.
_SHOWN = """
    SELECT j.id, j.title, j.description, j.requirements, j.skills, j.salary_min, j.salary_max,
        j.location, j.enterprise_id, e.name AS enterprise_name
    FROM jobs j JOIN enterprises e ON e.id = j.enterprise_id
"""
_SIZES = PagedList(
    table="jobs",
    number="number",
    # How long the texts are is told without reading them.
    shown="""
        p.id, coalesce(octet_length(p.description), 0) + coalesce(octet_length(p.requirements), 0)
            + octet_length(p.skills::text) AS size
    """,
)

PORTION_BYTES = 256 * 1024


class JobMoved(Exception):
    """Jobs that have interviews cannot go to another enterprise.

    Attributes:
        enterprises: the enterprise that each has, by the job's id.
    """

    def __init__(self, enterprises: Mapping[str, str]) -> None:
        self.enterprises = enterprises
        super().__init__(f"jobs with interviews would move: {', '.join(enterprises)}")


class Jobs:
    """Reads and writes jobs. Raises `Unavailable` where Postgres is away.

    `enterprise` is the tenant that asks: it sees its own jobs alone; None sees all.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    async def job(self, job_id: str, *, enterprise: str | None) -> Job | None:
        """The job, or None where there is none that the tenant may see."""
        row = await self.database.fetchrow(
            f"{_SHOWN} WHERE j.id = $1 AND ($2::varchar IS NULL OR j.enterprise_id = $2)",
            job_id, enterprise,
        )  # fmt: skip
        return _job(row) if row is not None else None

    async def enterprises(self, ids: Sequence[str]) -> set[str]:
        """Which of these enterprises there are."""
        known = Enterprises.select(Enterprises.id).where(WhereRaw("id = ANY({})", ids))
        rows = await self.database.run(known)
        return {row["id"] for row in rows}

    async def portions(
        self, *, enterprise: str | None, limit: int, offset: int
    ) -> tuple[int, list[list[str]]]:
        """How many jobs there are, and the ids of one page of them, newest first.

        They come in portions that can be read and shown at once (`some`): of at most
        `PORTION_BYTES`, or of one job that is larger.
        """
        wanted = {} if enterprise is None else {"enterprise_id = {}": enterprise}
        total, rows = await _SIZES.page(self.database, wanted, limit=limit, offset=offset)
        return total, _in_portions([(row["id"], row["size"]) for row in rows])

    async def some(self, ids: Sequence[str]) -> list[Job]:
        """The jobs of these ids, in this order."""
        rows = await self.database.fetch(f"{_SHOWN} WHERE j.id = ANY($1)", ids)
        found = {row["id"]: _job(row) for row in rows}
        return [found[job_id] for job_id in ids if job_id in found]


def _in_portions(sizes: Sequence[tuple[str, int]]) -> list[list[str]]:
    portions: list[list[str]] = []
    room = 0
    for job_id, size in sizes:
        if size > room:
            portions.append([])
            room = PORTION_BYTES
        portions[-1].append(job_id)
        room -= size
    return portions


async def write_jobs(connection: Any, jobs: Sequence[Job]) -> None:
    """Adds jobs with their enterprises, or brings them to what is given; no id comes twice.

    Runs inside a transaction. Jobs are numbered in the order given. SQL by hand: any number of jobs
    is one statement (`unnest`), and Piccolo's inserts would set the times by the node's clock.

    Raises:
        JobMoved: a job with interviews would go to another enterprise.
    """
    await _refuse_moves(connection, jobs)
    names = {job.enterprise.id: job.enterprise.name for job in jobs}
    await connection.execute(
        """
        INSERT INTO enterprises (id, name)
        SELECT * FROM unnest($1::varchar[], $2::varchar[]) AS given (id, name) ORDER BY id
        ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name
        """,
        list(names), list(names.values()),
    )  # fmt: skip
    await connection.execute(
        """
        INSERT INTO jobs AS j
            (id, enterprise_id, title, description, requirements, skills, salary_min, salary_max,
             location)
        SELECT id, enterprise_id, title, description, requirements, skills::json, salary_min,
            salary_max, location
        FROM unnest($1::varchar[], $2::varchar[], $3::varchar[], $4::text[], $5::text[],
            $6::text[], $7::bigint[], $8::bigint[], $9::varchar[]) WITH ORDINALITY AS given
            (id, enterprise_id, title, description, requirements, skills, salary_min, salary_max,
             location, place)
        ORDER BY place
        ON CONFLICT (id) DO UPDATE SET
            enterprise_id = EXCLUDED.enterprise_id, title = EXCLUDED.title,
            description = EXCLUDED.description, requirements = EXCLUDED.requirements,
            skills = EXCLUDED.skills, salary_min = EXCLUDED.salary_min,
            salary_max = EXCLUDED.salary_max, location = EXCLUDED.location,
            updated_at = clock_timestamp()
        """,
        [job.id for job in jobs],
        [job.enterprise.id for job in jobs],
        [job.title for job in jobs],
        [job.description for job in jobs],
        [job.requirements for job in jobs],
        [msgspec.json.encode(job.skills).decode() for job in jobs],
        [job.salary_min for job in jobs],
        [job.salary_max for job in jobs],
        [job.location for job in jobs],
    )


async def _refuse_moves(connection: Any, jobs: Sequence[Job]) -> None:
    """An interview belongs to one enterprise for ever, and its job with it.

    The jobs' rows stay locked: an interview that is made meanwhile waits (`interviews.py`).
    """
    moved = await connection.fetch(
        """
        SELECT j.id, j.enterprise_id
        FROM unnest($1::varchar[], $2::varchar[]) AS given (id, enterprise_id)
        JOIN jobs j USING (id)
        WHERE j.enterprise_id <> given.enterprise_id ORDER BY j.id FOR UPDATE OF j
        """,
        [job.id for job in jobs], [job.enterprise.id for job in jobs],
    )  # fmt: skip
    kept = await connection.fetch(
        """
        SELECT id FROM unnest($1::varchar[]) AS moved (id)
        WHERE EXISTS (SELECT FROM interviews WHERE job_id = moved.id) ORDER BY id
        """,
        [row["id"] for row in moved],
    )
    if kept:
        of = {row["id"]: row["enterprise_id"] for row in moved}
        raise JobMoved({row["id"]: of[row["id"]] for row in kept})


def _job(row: Any) -> Job:
    return Job(
        id=row["id"],
        title=row["title"],
        enterprise=Enterprise(row["enterprise_id"], row["enterprise_name"]),
        description=row["description"],
        requirements=row["requirements"],
        skills=tuple(msgspec.json.decode(row["skills"])),
        salary_min=row["salary_min"],
        salary_max=row["salary_max"],
        location=row["location"],
    )

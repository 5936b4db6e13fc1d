"""Files of jobs, as `coordinator import-jobs` takes them, and the Coze document's test data.

    [{"id": "cmm…", "title": "…", "enterprise": {"id": "ent_…", "name": "…"}, "skills": ["…"],
      "description": "…", "requirements": "…", "salaryMin": 10000, "salaryMax": 20000,
      "location": "…"}, …]

A CSV file has the same members as columns, `enterpriseId` and `enterpriseName` in place of the
object, and skills separated by `;`. `id`, `title` and the enterprise are required. What is there
already under an id is brought to what the file says.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from coordinator.domain.job import Enterprise, Job, is_record_id
from coordinator.store.database import Database
from coordinator.store.jobs import JobMoved, write_jobs

CHUNK = 500
MAX_SALARY = 2**53 - 1
MAX_SKILLS = 200
MAX_PROBLEMS = 50

_NUMBER = re.compile(r"\d{1,16}")
_FORBIDDEN = re.compile(r"[\x00\ud800-\udfff]")
_COLUMNS = ("id", "title", "description", "requirements", "skills", "salaryMin", "salaryMax",
            "location", "enterpriseId", "enterpriseName")  # fmt: skip


class ImportRefused(Exception):
    """A file that is not imported, not even in part.

    Attributes:
        problems: one sentence for each bad row, naming its line.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


async def import_jobs(database: Database, path: Path, progress: Callable[[int, int], None]) -> int:
    """Imports a JSON or CSV file of jobs, whole or not at all; how many jobs it held.

    Args:
        progress: told how many jobs of how many are written.

    Raises:
        ImportRefused: the file cannot be read, or a row is bad; nothing has been imported.
        Unavailable: Postgres is away.
    """
    rows = read_jobs(path)
    jobs = [job for _, job in rows]
    try:
        async with database.transaction() as connection:
            for start in range(0, len(jobs), CHUNK):
                await write_jobs(connection, jobs[start : start + CHUNK])
                progress(min(start + CHUNK, len(jobs)), len(jobs))
    except JobMoved as moved:
        lines = {job.id: line for line, job in rows}
        raise ImportRefused(
            [
                f"line {lines[job_id]}: job {job_id!r} has interviews and stays with enterprise"
                f" {enterprise!r}"
                for job_id, enterprise in moved.enterprises.items()
            ]
        ) from moved
    return len(jobs)


def read_jobs(path: Path) -> list[tuple[int, Job]]:
    """The jobs of a file, checked, each with its line.

    Raises:
        ImportRefused: it lists what is wrong, by line.
    """
    text = _text(path)
    is_json = path.suffix.lower() == ".json" or text.lstrip()[:1] in ("[", "{")
    rows = list(_json_rows(text) if is_json else _csv_rows(text))
    jobs: list[tuple[int, Job]] = []
    problems: list[str] = []
    lines_of: dict[str, int] = {}
    names_of: dict[str, tuple[str, int]] = {}
    for line, row in rows:
        try:
            job = _job(row)
            _once(lines_of, job.id, line)
            _one_name(names_of, job.enterprise, line)
        except ValueError as error:
            problems.append(f"line {line}: {error}")
        else:
            jobs.append((line, job))
    if not rows:
        problems.append("line 1: the file holds no jobs")
    if problems:
        more = len(problems) - MAX_PROBLEMS
        raise ImportRefused(problems[:MAX_PROBLEMS] + ([f"… and {more} more"] if more > 0 else []))
    return jobs


def _text(path: Path) -> str:
    """The file's text: UTF-8, or what Chinese spreadsheets save (GB 18030)."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ImportRefused([f"{path}: {error.strerror}"]) from error
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ImportRefused([f"{path}: neither UTF-8 nor GB 18030 text"])


def _json_rows(text: str) -> Iterator[tuple[int, Any]]:
    """The objects of a JSON array (or of the array in `jobs`), each with its first line."""
    start = re.match(r"\s*(\{\s*\"jobs\"\s*:\s*)?\[", text)
    if start is None:
        line, found = 1, text.strip()[:20]
        raise ImportRefused([f"line {line}: expected a JSON array of jobs, found {found!r}"])
    decoder, place = json.JSONDecoder(), start.end()
    while True:
        place = _blank_end(text, place)
        if text[place : place + 1] == "]":
            break
        line = text.count("\n", 0, place) + 1
        try:
            row, place = decoder.raw_decode(text, place)
        except (json.JSONDecodeError, RecursionError, ValueError) as error:
            where = getattr(error, "lineno", line)
            told = getattr(error, "msg", "cannot be read")
            raise ImportRefused([f"line {where}: not JSON: {told}"]) from error
        yield line, row
        place = _blank_end(text, place)
        if text[place : place + 1] == ",":
            place += 1
        elif text[place : place + 1] != "]":
            line = text.count("\n", 0, place) + 1
            raise ImportRefused([f"line {line}: not JSON: expected , or ]"])
    if not re.fullmatch(r"\]\s*\}?\s*", text[place:]):
        line = text.count("\n", 0, place) + 1
        raise ImportRefused([f"line {line}: not JSON: more after the end of the array"])


def _blank_end(text: str, place: int) -> int:
    match = re.compile(r"[ \t\r\n]*").match(text, place)
    return match.end() if match else place


def _csv_rows(text: str) -> Iterator[tuple[int, Any]]:
    """The rows of a CSV file as objects, each with its last line; blank cells are absent."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        heads = [head.strip() for head in next(reader, [])]
        if missing := {"id", "title", "enterpriseId", "enterpriseName"} - set(heads):
            raise ImportRefused([_missing(heads, missing)])
        if unnamed := [str(place) for place, head in enumerate(heads, 1) if not head]:
            raise ImportRefused([f"line 1: columns without a heading: {', '.join(unnamed)}"])
        if twice := sorted(head for head, times in Counter(heads).items() if times > 1):
            raise ImportRefused([f"line 1: columns stand twice: {', '.join(twice)}"])
        if strange := set(heads) - set(_COLUMNS):
            raise ImportRefused([f"line 1: unknown columns: {', '.join(sorted(strange))}"])
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, _csv_row(heads, cells)
    except csv.Error as error:
        raise ImportRefused([f"line {reader.line_num}: not CSV: {error}"]) from error


def _missing(heads: Sequence[str], missing: set[str]) -> str:
    unnamed = [str(place) for place, head in enumerate(heads, 1) if not head]
    hint = f" (columns without a heading: {', '.join(unnamed)})" if unnamed else ""
    return f"line 1: columns are missing: {', '.join(sorted(missing))}{hint}"


def _csv_row(heads: list[str], cells: list[str]) -> Any:
    if len(cells) != len(heads):
        return f"{len(cells)} cells in place of {len(heads)}"
    row: dict[str, Any] = {h: c.strip() for h, c in zip(heads, cells, strict=True) if c.strip()}
    row["enterprise"] = {
        "id": row.pop("enterpriseId", ""), "name": row.pop("enterpriseName", "")
    }  # fmt: skip
    if "skills" in row:
        row["skills"] = [s.strip() for s in re.split(r"[;；]", row["skills"]) if s.strip()]
    for name in ("salaryMin", "salaryMax"):
        if _NUMBER.fullmatch(row.get(name, "")):
            row[name] = int(row[name])
    return row


def _job(row: Any) -> Job:
    """A row as a job; ValueError says what is wrong with it."""
    if not isinstance(row, dict):
        raise ValueError(f"expected a job, found {row!r:.60}")
    enterprise = row.get("enterprise")
    if not isinstance(enterprise, dict):
        raise ValueError("enterprise is missing (an object with id and name)")
    job = Job(
        id=_identity("id", row.get("id")),
        title=_required("title", row.get("title"), 200),
        enterprise=Enterprise(
            _identity("enterprise id", enterprise.get("id")),
            _required("enterprise name", enterprise.get("name"), 200),
        ),
        description=_optional("description", row.get("description"), 100_000),
        requirements=_optional("requirements", row.get("requirements"), 100_000),
        skills=_skills(row.get("skills")),
        salary_min=_salary("salaryMin", row.get("salaryMin")),
        salary_max=_salary("salaryMax", row.get("salaryMax")),
        location=_optional("location", row.get("location"), 200),
    )
    if None not in (job.salary_min, job.salary_max) and job.salary_min > job.salary_max:  # type: ignore[operator]  # neither is None
        raise ValueError("salaryMin is greater than salaryMax")
    return job


def _optional(name: str, value: Any, limit: int) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > limit or _FORBIDDEN.search(value):
        raise ValueError(f"{name} must be text of at most {limit} characters")
    return value.strip() or None


def _required(name: str, value: Any, limit: int) -> str:
    text = _optional(name, value, limit)
    if text is None:
        raise ValueError(f"{name} is missing")
    return text


def _identity(name: str, value: Any) -> str:
    text = _required(name, value, 64)
    if not is_record_id(text):
        raise ValueError(f"{name} {text!r} must be 1 to 64 letters, digits, _ or -")
    return text


def _skills(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | None) or len(value or ()) > MAX_SKILLS:
        raise ValueError(f"skills must be a list of at most {MAX_SKILLS} texts")
    return tuple(_required("a skill", skill, 100) for skill in value or ())


def _salary(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SALARY:
        raise ValueError(f"{name} must be a whole number of yuan, not {value!r:.40}")
    return value


def _once(lines_of: dict[str, int], job_id: str, line: int) -> None:
    if job_id in lines_of:
        raise ValueError(f"id {job_id!r} stands on line {lines_of[job_id]} already")
    lines_of[job_id] = line


def _one_name(names_of: dict[str, tuple[str, int]], enterprise: Enterprise, line: int) -> None:
    name, before = names_of.setdefault(enterprise.id, (enterprise.name, line))
    if name != enterprise.name:
        raise ValueError(f"enterprise {enterprise.id!r} is named {name!r} on line {before}")

"""Importing jobs: whole or not at all, with every bad row named by its line."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

import pytest
from litestar.response import Stream

from coordinator.cli.job_file import ImportRefused, import_jobs, read_jobs
from coordinator.domain.job import Job
from coordinator.store.database import Database
from coordinator.store.jobs import Jobs
from coordinator.web.job_list import job_list
from coordinator.web.pages import Page
from tests.harness.node import Deployment

ENTERPRISE = {"id": "ent_1", "name": "企业"}
HEADS = "id,title,description,requirements,skills,salaryMin,salaryMax,location"
HEADS += ",enterpriseId,enterpriseName"


def job(**members: Any) -> dict[str, Any]:
    return {"id": "job_1", "title": "工程师", "enterprise": ENTERPRISE, **members}


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(ImportRefused) as refused:
        read_jobs(path)
    return refused.value.problems


def test_a_json_file_of_the_documented_shape(tmp_path: Path) -> None:
    whole = job(
        description="职责", requirements="要求", skills=["Python"], salaryMin=1, salaryMax=2,
        location="武汉",
    )  # fmt: skip
    ((_, read),) = read_jobs(written(tmp_path, "jobs.json", json.dumps([whole])))
    assert read.shown() == whole


def test_the_array_may_stand_in_a_member_jobs(tmp_path: Path) -> None:
    path = written(tmp_path, "jobs.json", json.dumps({"jobs": [job(), job(id="job_2")]}))
    assert [j.id for _, j in read_jobs(path)] == ["job_1", "job_2"]


def test_a_csv_file_tells_the_same(tmp_path: Path) -> None:
    row = 'job_1,"前端, 高级","第一行\n第二行",,React; TypeScript；CSS,1,2,武汉,e,企业'
    text = f"{HEADS}\r\n{row}\r\n"
    ((_, read),) = read_jobs(written(tmp_path, "jobs.csv", text))
    assert read.shown() == {
        "id": "job_1",
        "title": "前端, 高级",
        "description": "第一行\n第二行",
        "skills": ["React", "TypeScript", "CSS"],
        "salaryMin": 1,
        "salaryMax": 2,
        "location": "武汉",
        "enterprise": {"id": "e", "name": "企业"},
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_csv_files_come_as_spreadsheets_save_them(tmp_path: Path, encoding: str) -> None:
    text = "enterpriseName,enterpriseId,title,id\n武汉企业,e,工程师,job_1\n\n"
    ((_, read),) = read_jobs(written(tmp_path, "jobs.csv", text.encode(encoding)))
    assert (read.title, read.enterprise.name) == ("工程师", "武汉企业")


def test_every_bad_row_of_a_json_file_is_named_by_its_line(tmp_path: Path) -> None:
    rows = [
        job(),
        {"id": "job_2"},
        job(id="job 3"),
        job(id="job_4", salaryMin=5, salaryMax=4),
        job(id="job_5", salaryMin="5"),
        job(id="job_6", skills="Python"),
        job(id="job_7", title="\x00"),
        job(),
        job(id="job_9", enterprise={"id": "ent_1", "name": "anders"}),
        job(id="job_10", skills=["x"] * 201),
        "text",
    ]
    text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]"
    found = problems(written(tmp_path, "jobs.json", text))
    assert [problem.split(":")[0] for problem in found] == [f"line {n}" for n in range(3, 13)]
    told = " ".join(found)
    for word in ("enterprise is missing", "'job 3'", "salaryMin is greater", "skills", "already"):
        assert word in told


def test_every_bad_row_of_a_csv_file_is_named_by_its_line(tmp_path: Path) -> None:
    rows = [
        HEADS,
        "job_1,工程师,,,,1,2,,e,企业",
        "job_2,,,,,,,,e,企业",
        "job_3,工程师",
        "job_4,工程师,,,,viel,,,e,企业",
        "job_1,工程师,,,,,,,e,企业",
    ]
    found = problems(written(tmp_path, "jobs.csv", "\n".join(rows)))
    assert [problem.split(":")[0] for problem in found] == ["line 3", "line 4", "line 5", "line 6"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("[]", 1),
        ('[\n{"id": 1},\n{"id" 2}]', 3),
        ("[\n{}\n{}]", 3),
        ("[{}] x", 1),
        ("[\n" * 100_000, 2),
        ('{"id": "job_1"}', 1),
        ("[" + "9" * 5000 + "]", 1),
    ],
)
def test_what_is_no_json_array_of_jobs_is_refused(tmp_path: Path, text: str, line: int) -> None:
    assert problems(written(tmp_path, "jobs.json", text))[0].startswith(f"line {line}: ")


@pytest.mark.parametrize(
    "text", ["id,title\na,b\n", "id,title,enterpriseId,enterpriseName,x\n", ""]
)
def test_a_csv_file_without_its_columns_is_refused(tmp_path: Path, text: str) -> None:
    assert problems(written(tmp_path, "jobs.csv", text))[0].startswith("line 1: ")


@pytest.mark.parametrize(
    ("heads", "named"),
    [
        ("id,title,,enterpriseId,enterpriseName", "columns without a heading: 3"),
        (",title, ,enterpriseId,enterpriseName",
         "columns are missing: id (columns without a heading: 1, 3)"),
        ("id,title,title,enterpriseId,enterpriseName", "columns stand twice: title"),
    ],
)  # fmt: skip
def test_columns_without_a_heading_are_named(tmp_path: Path, heads: str, named: str) -> None:
    text = f"{heads}\na,b,c,d,e\n"
    assert problems(written(tmp_path, "jobs.csv", text)) == [f"line 1: {named}"]


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "No such file" in problems(tmp_path / "none.json")[0]


async def test_many_jobs_are_imported_and_brought_up_to_date(
    database: Database, tmp_path: Path
) -> None:
    mark = secrets.token_hex(4)
    rows = [job(id=f"{mark}_{n}", enterprise={"id": mark, "name": "x"}) for n in range(1200)]
    shown: list[tuple[int, int]] = []
    path = written(tmp_path, "jobs.json", json.dumps(rows))
    assert await import_jobs(database, path, lambda *told: shown.append(told)) == 1200
    assert shown == [(500, 1200), (1000, 1200), (1200, 1200)]
    rows[7]["title"] = "新名称"
    path = written(tmp_path, "jobs.json", json.dumps(rows))
    await import_jobs(database, path, lambda *told: None)
    jobs = Jobs(database)
    total, portions = await jobs.portions(enterprise=mark, limit=3, offset=0)
    assert (total, portions) == (1200, [[f"{mark}_{n}" for n in (1199, 1198, 1197)]])
    changed = await jobs.job(f"{mark}_7", enterprise=mark)
    assert isinstance(changed, Job)
    assert changed.title == "新名称"


class Vanishing(Jobs):
    """The jobs of a page's first portion go before they are read."""

    async def portions(self, **asked: Any) -> tuple[int, list[list[str]]]:
        total, portions = await super().portions(**asked)
        await self.database.execute("DELETE FROM jobs WHERE id = ANY($1)", portions[0])
        return total, portions


async def test_a_list_whose_first_jobs_have_gone_meanwhile_is_whole(
    database: Database, tmp_path: Path
) -> None:
    mark = secrets.token_hex(4)
    large = {"description": "x" * 100_000, "requirements": "y" * 100_000}  # a portion of its own
    rows = [job(id=f"{mark}_{n}", **large, enterprise={"id": mark, "name": "x"}) for n in range(3)]
    path = written(tmp_path, "jobs.json", json.dumps(rows))
    await import_jobs(database, path, lambda *told: None)
    answer = await job_list(Vanishing(database), Page(1, 10), enterprise=mark)
    assert isinstance(answer, Stream)
    assert isinstance(answer.iterator, AsyncIterable)
    told = json.loads(b"".join([part async for part in answer.iterator]))  # type: ignore[misc]
    assert [each["id"] for each in told["data"]["list"]] == [f"{mark}_1", f"{mark}_0"]


async def test_of_a_file_with_a_bad_row_nothing_is_imported(
    deployment: Deployment, database: Database, tmp_path: Path
) -> None:
    mark = secrets.token_hex(4)
    path = written(tmp_path, "jobs.json", json.dumps([job(id=mark), job(id=f"{mark} ")]))
    result = deployment.run("import-jobs", str(path))
    assert result.returncode == 1
    assert "line 1: id" in result.stderr
    assert await Jobs(database).job(mark, enterprise=None) is None


async def test_the_command_says_how_many_it_imported(
    deployment: Deployment, database: Database, tmp_path: Path
) -> None:
    mark = secrets.token_hex(4)
    path = written(tmp_path, "jobs.json", json.dumps([job(id=mark), job(id=f"{mark}_2")]))
    result = deployment.run("import-jobs", str(path))
    assert (result.returncode, result.stdout) == (0, "2 jobs imported\n")
    assert await Jobs(database).job(mark, enterprise=None) is not None

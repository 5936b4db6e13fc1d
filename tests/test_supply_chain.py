"""What is installed is what was locked: every file by its hash, from wherever it comes."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.harness.patience import patient

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-test.lock")


def locked(name: str) -> dict[str, str]:
    """The pinned packages of a lock, each with its lines."""
    entries = re.split(r"\n(?=\S)", (ROOT / name).read_text().strip())
    found = {}
    for entry in entries:
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==\S+", entry)
        assert match, entry.splitlines()[0]
        found[re.sub(r"[._]", "-", match[1]).lower()] = entry
    return found


def wanted(*, with_tests: bool) -> set[str]:
    """The packages that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    if with_tests:
        lines += project["optional-dependencies"]["test"]
    return {re.sub(r"[._]", "-", re.match(r"[A-Za-z0-9._-]+", line)[0]).lower() for line in lines}  # type: ignore[index]  # each begins with a name


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_to_the_hashes_of_its_files(lock: str) -> None:
    entries = locked(lock)

    assert [name for name, entry in entries.items() if "--hash=sha256:" not in entry] == []
    assert wanted(with_tests="test" in lock) <= entries.keys()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_place_to_install_from(lock: str) -> None:
    text = (ROOT / lock).read_text()

    assert not re.search(r"://|--(extra-)?index-url|--find-links| @ ", text)


def test_production_runs_the_versions_that_were_tested() -> None:
    production, tested = locked(LOCKS[0]), locked(LOCKS[1])

    different = [name for name, entry in production.items() if tested.get(name) != entry]
    assert different == []
    assert "pytest" not in production


def finding(*advisories: str, **more: str) -> dict[str, Any]:
    vulns = [{"id": each, "fix_versions": ["2"]} for each in advisories]
    return {"name": "pkg", "version": "1", "vulns": vulns, **more}


@pytest.mark.parametrize(
    ("found", "status", "code", "said"),
    [
        ([finding()], 0, 0, "audit: 1 of 1 packages checked, 0 with advisories"),
        ([finding("GHSA-1")], 1, 1, "pkg 1: GHSA-1, fixed in ['2']"),
        ([finding(skip_reason="no answer")], 0, 0, "NOTHING WAS CHECKED"),
        (None, 1, 0, "NOTHING WAS CHECKED"),
    ],
    ids=["good", "an advisory", "nobody answers", "no report"],
)
def test_an_advisory_fails_the_audit_and_an_unreachable_service_is_told(
    tmp_path: Path, found: list[dict[str, Any]] | None, status: int, code: int, said: str
) -> None:
    """The advisory service is elsewhere: what pip-audit would report of it is given."""
    report = "" if found is None else json.dumps({"dependencies": found})
    tool = tmp_path / "pip-audit"
    tool.write_text(f"#!/bin/bash\nprintf %s '{report}' > \"${{@: -1}}\"\n"
                    f"exit {status}\n")  # fmt: skip
    tool.chmod(0o755)

    done = subprocess.run(
        [ROOT / ".ci" / "audit", tool, ROOT / LOCKS[0]], capture_output=True, text=True,
        timeout=patient(30), check=False,
    )  # fmt: skip

    assert done.returncode == code, done.stderr
    assert said in done.stdout

"""What is installed is what was locked: every file by its hash, from wherever it comes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

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

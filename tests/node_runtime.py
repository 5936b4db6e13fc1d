"""Node as the tests of the JavaScript client use it: packages installed once, programs run.

Where Node or npm is missing these tests are skipped with a line that says so; continuous
integration has them.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "client"
NODE = shutil.which("node")
NPM = shutil.which("npm")

needs_node = pytest.mark.skipif(
    NODE is None or NPM is None, reason="Node >= 18 with npm is not installed here"
)


def install_packages() -> None:
    """`npm ci` in `tests/client`, where its lock is newer than what is installed.

    Several workers may ask at once: one installs, the others wait.
    """
    lock = FOLDER / "package-lock.json"
    stamp = FOLDER / "node_modules" / ".installed"
    with (FOLDER / "package.json").open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if stamp.exists() and stamp.stat().st_mtime >= lock.stat().st_mtime:
            return
        subprocess.run(
            [str(NPM), "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=FOLDER, check=True, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        stamp.touch()


def run_tests(*names: str, timeout: float = 80, **about: Any) -> None:
    """Runs test files with Node's own runner; `about` is told to them as JSON (`ABOUT`)."""
    result = subprocess.run(
        [str(NODE), "--test", "--test-reporter=spec", *names],
        cwd=FOLDER, capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, "ABOUT": json.dumps(about), "FORCE_COLOR": "0"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


def run_program(name: str, *arguments: str, timeout: float = 80, **about: Any) -> str:
    """Runs a program of `tests/client` to its end; what it printed."""
    result = subprocess.run(
        [str(NODE), name, *arguments],
        cwd=FOLDER, capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, "ABOUT": json.dumps(about)},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-4000:]
    return result.stdout

"""`coordinator dev`, as far as it differs from `serve`."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from tests.harness.patience import patient


def test_a_folder_that_another_run_uses_is_left_alone(tmp_path: Path) -> None:
    """Its PostgreSQL would else be taken for one that outlived a killed run, and be ended."""
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, "-P", "-m", "coordinator.cli.main", "dev", "--data", str(tmp_path)],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=patient(30),
            check=False,
        )

    assert done.returncode == 1
    assert "another `coordinator dev` is using" in done.stderr
    assert not (tmp_path / "pgdata").exists()

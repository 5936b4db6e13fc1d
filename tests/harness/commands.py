"""The `coordinator` command, as operators type it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.harness.patience import patient


def command(
    *arguments: str, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs `coordinator …` with nothing in its environment but `env`."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "coordinator.cli.main", *arguments],
        env={"PATH": os.environ["PATH"], **env},
        cwd=cwd or tempfile.gettempdir(), capture_output=True, text=True, timeout=patient(60),
        check=False,
    )  # fmt: skip


async def at_once(*calls: Any) -> list[Any]:
    """Runs blocking calls side by side."""
    return list(await asyncio.gather(*(asyncio.to_thread(call) for call in calls)))

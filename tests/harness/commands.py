"""The `coordinator` command, as operators type it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.harness.node import run_command


def command(
    *arguments: str, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs `coordinator …` with nothing in its environment but `env`."""
    return run_command({"PATH": os.environ["PATH"], **env}, *arguments, cwd=cwd)


async def at_once(*calls: Any) -> list[Any]:
    """Runs blocking calls side by side."""
    return list(await asyncio.gather(*(asyncio.to_thread(call) for call in calls)))

"""Node as the tests of the JavaScript client use it: packages installed once, programs run.

Where Node or npm is missing these tests are skipped with a line that says so; continuous
integration has them.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness.patience import patient, slowness

FOLDER = Path(__file__).parent.parent / "client"
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
        result = subprocess.run(
            [str(NPM), "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=FOLDER, check=False, capture_output=True, text=True, timeout=patient(300),
        )  # fmt: skip
        if result.returncode != 0:
            pytest.skip(f"`npm ci` cannot install what these tests need: {result.stderr[-300:]}")
        stamp.touch()


def run_tests(*names: str, timeout: float = 80, **about: Any) -> None:
    """Runs test files with Node's own runner; `about` is told to them as JSON (`ABOUT`)."""
    _run("--test", "--test-reporter=spec", *names, timeout=timeout, about=about)


def run_program(name: str, *arguments: str, timeout: float = 80, **about: Any) -> str:
    """Runs a program of `tests/client` to its end; what it printed."""
    return _run(name, *arguments, timeout=timeout, about=about)


def _run(*arguments: str, timeout: float, about: dict[str, Any]) -> str:
    """Node to its end; what it started ends with it, also where it takes too long."""
    limit = patient(timeout)
    process = subprocess.Popen(
        [str(NODE), *arguments], cwd=FOLDER, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**_environment(about), "FORCE_COLOR": "0"},
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        said += f"\n(ended after {limit:.0f} s)"
    assert process.returncode == 0, said[-8000:]
    return said


def _environment(about: dict[str, Any]) -> dict[str, str]:
    """`SLOWNESS`: times a second of a quiet machine, as the programs wait for something."""
    return {**os.environ, "ABOUT": json.dumps(about), "SLOWNESS": f"{slowness():.2f}"}


class Follower:
    """One client that follows a room in a Node process and tells every state that it has.

    Attributes:
        last: the newest: `{"status": "live", "seq": 7, "epoch": "k3v9", …}`.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.last: dict[str, Any] = {}

    @classmethod
    async def start(cls, url: str, room_id: str, token: str) -> Follower:
        """`follow.mjs` as its own process."""
        about = {"url": url, "roomId": room_id, "token": token}
        process = await asyncio.create_subprocess_exec(
            str(NODE), "follow.mjs", cwd=FOLDER, stdout=asyncio.subprocess.PIPE,
            env=_environment(about), limit=1 << 24,
        )  # fmt: skip
        return cls(process)

    async def sees(self, holds: Callable[[dict[str, Any]], bool], patience: float = 30) -> None:
        """Waits until a state is told of which something is true."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(patient(patience)):
                while not (self.last and holds(self.last)):
                    self.last = json.loads(await self._process.stdout.readline())
        except TimeoutError:
            raise AssertionError(f"never came true; the last state was {self.last}") from None

    async def end(self) -> None:
        self._process.kill()
        await self._process.wait()

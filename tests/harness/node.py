"""The product as tests see it: real `coordinator` processes, and people who use them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from coordinator.data_cipher import DataCipher
from coordinator.standins.servers import free_port
from tests.harness.patience import patient

JWT_SECRET = "test-secret-test-secret-test-secret-test"
DATA_KEY = "a2V5LW9mLXRoZS10ZXN0cy1rZXktb2YtdGhlLXRlc3Q="
"""32 bytes in base64: `DATA_KEYS` of the tests' nodes."""

CIPHER = DataCipher([b64decode(DATA_KEY)])
START_SECONDS = 30.0
COORDINATOR = ("-P", "-m", "coordinator.cli.main")
"""The product's command, as Python starts it."""


class Node:
    """One `coordinator serve` process."""

    def __init__(
        self, env: dict[str, str], *arguments: str, program: Sequence[str] = COORDINATOR
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ws = f"ws://127.0.0.1:{self.port}"
        self.log = Path(tempfile.mkstemp(prefix="coordinator-node-", suffix=".log")[1])
        self._handle = self.log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, *program, "serve", "--host", "127.0.0.1",
             "--port", str(self.port), *arguments],
            env=env, stdout=self._handle, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            cwd=tempfile.gettempdir(),
        )  # fmt: skip

    def wait_ready(self) -> Self:
        """Returns when `/health/ready` answers 200."""
        deadline = time.monotonic() + patient(START_SECONDS)
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the node ended while starting:\n{self.logs()}")
            try:
                if httpx.get(f"{self.url}/health/ready", timeout=2).status_code == 200:
                    return self
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"the node was not ready in time:\n{self.logs()}")

    def logs(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait(5)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self.process.terminate()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.wake()
            self.process.terminate()
            try:
                self.process.wait(patient(40))
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        self._handle.close()
        return self.process.returncode


class Deployment:
    """Nodes that share one Postgres and one Redis."""

    def __init__(self, database_url: str, redis_url: str, **settings: str) -> None:
        self.database_url = database_url
        self.redis_url = redis_url
        self.settings = settings
        self.nodes: list[Node] = []
        self._shared: dict[str, Node] = {}

    def env(self, **settings: str) -> dict[str, str]:
        """The environment of a node."""
        return {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "JWT_SECRET": JWT_SECRET,
            "DATA_KEYS": DATA_KEY,
            "RATE_LIMITS": "off",
            "DRAIN_SECONDS": "1",
            "LOG_LEVEL": "info",
            **self.settings,
            **settings,
        }

    def node(self, *arguments: str, program: Sequence[str] = COORDINATOR, **settings: str) -> Node:
        """Starts a node and returns it when it is ready."""
        node = Node(self.env(**settings), *arguments, program=program)
        self.nodes.append(node)
        return node.wait_ready()

    def shared_node(self, name: str) -> Node:
        """A node that all tests of this worker share; nobody kills it."""
        if name not in self._shared:
            self._shared[name] = self.node()
        return self._shared[name]

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Runs a `coordinator` command to its end."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "coordinator.cli.main", *arguments],
            env=self.env(**settings), capture_output=True, text=True, timeout=patient(60),
            cwd=tempfile.gettempdir(), check=False,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in self.nodes:
            node.process.terminate() if node.process.poll() is None else None
        for node in self.nodes:
            node.stop()
            node.log.unlink(missing_ok=True)


def data(response: httpx.Response) -> Any:
    """The `data` of a successful answer."""
    assert response.status_code == 200, (response.status_code, response.text)
    body = response.json()
    assert body["success"] is True
    return body["data"]

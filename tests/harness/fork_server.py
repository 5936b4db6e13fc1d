"""The product's command at a tenth of the price: forked from a process that has imported it.

Python takes a second of a core to import a node's parts, and the tests start hundreds. One process
imports them once, and forks for each command that is asked for:

    client                                   fork server
      | {"arguments": ["serve", …], …} + fds -> |  fork, run coordinator.cli.main
      | <- the pid of the child                 |
      | <- its return code, once it has ended   |

`Popen` starts it elsewhere: under a profiler, in chaos runs, in load tests.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from struct import Struct
from types import FrameType
from typing import IO, Any, NoReturn

WHERE = "COORDINATOR_TESTS_FORK_SERVER"
"""The environment variable with the path of the server's socket."""

_IMPORTED_LATE = (
    "anyio._backends._asyncio", "uvicorn.lifespan.on", "uvicorn.loops.uvloop",
    "uvicorn.protocols.websockets.websockets_sansio_impl", "valkey.asyncio",
)  # fmt: skip
"""What a node imports only as it starts: half of the work of starting one."""
_NUMBER = Struct("!i")
_REQUEST_BYTES = 256 * 1024
_POLL_SECONDS = 0.005


class Forked:
    """A process that was forked for us: what tests use of `subprocess.Popen`."""

    def __init__(self, told: socket.socket, arguments: Sequence[str]) -> None:
        self.returncode: int | None = None
        self._told = told
        self._arguments = arguments
        self._lock = threading.Lock()
        self.pid = self._next_number()

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._told], [], [], 0)[0]:
                self.returncode = self._next_number()
                self._told.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its return code; minus the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        deadline = time.monotonic() + (math.inf if timeout is None else timeout)
        while (status := self.poll()) is None:  # nobody who polls meanwhile waits for this
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(list(self._arguments), timeout or 0)
            time.sleep(_POLL_SECONDS)
        return status

    def send_signal(self, number: int) -> None:
        """Nothing happens where the process has ended, as with `subprocess.Popen`."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ends now: we are told in a moment
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _next_number(self) -> int:
        told = self._told.recv(_NUMBER.size, socket.MSG_WAITALL)
        if len(told) < _NUMBER.size:
            raise RuntimeError("the fork server has ended")
        number: int = _NUMBER.unpack(told)[0]
        return number


def can_fork(env: dict[str, str]) -> bool:
    """True in a run of the tests, which starts a server at its beginning, for an environment that
    says nothing to Python itself: it reads that as it starts.
    """
    return WHERE in os.environ and not any(
        name.startswith(("PYTHON", "LC_", "LANG")) for name in env
    )


def fork(
    arguments: Sequence[str], *, env: dict[str, str], cwd: str | Path, stdout: IO[Any],
    stderr: IO[Any],
) -> Forked:  # fmt: skip
    """Starts `coordinator ARGUMENTS…`, with nothing to read."""
    request = {"arguments": list(arguments), "env": env, "cwd": str(cwd)}
    told = socket.socket(socket.AF_UNIX)
    told.connect(os.environ[WHERE])
    with Path(os.devnull).open() as stdin:
        fds = [stdin.fileno(), stdout.fileno(), stderr.fileno()]
        socket.send_fds(told, [json.dumps(request).encode()], fds)
        told.shutdown(socket.SHUT_WR)
        return Forked(told, arguments)


class ForkServer:
    """Starts the server; `close` ends it, and with it whatever it forked and still runs."""

    def __init__(self) -> None:
        short = "/tmp" if Path("/tmp").is_dir() else None  # a socket's path has 100 characters
        self._folder = Path(tempfile.mkdtemp(prefix="coordinator-fork-", dir=short))
        path = self._folder / "socket"
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(path)],
            env={"PATH": os.environ["PATH"]}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the fork server did not start")
        os.environ[WHERE] = str(path)

    def close(self) -> None:
        os.environ.pop(WHERE, None)
        self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)


class _ForkServer:
    """Runs in the process that forks; one thread, or forking would not be safe."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(128)
        self._children: dict[int, socket.socket] = {}
        self._ended, self._wake = socket.socketpair()
        for end in (self._ended, self._wake):
            end.setblocking(False)

    def run(self) -> None:
        """Until nobody holds its stdin any more."""
        signal.signal(signal.SIGCHLD, _nothing)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end us
        signal.set_wakeup_fd(self._wake.fileno())
        while True:
            waited_for: list[int | socket.socket] = [0, self._listener, self._ended]
            readable, _, _ = select.select(waited_for, [], [])
            if self._ended in readable:
                self._ended.recv(4096)
                self._reap()
            if self._listener in readable:
                self._fork(self._listener.accept()[0])
            if 0 in readable:
                break
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with closing(self._children.pop(pid)) as client:
                _send(client, os.waitstatus_to_exitcode(status))

    def _fork(self, client: socket.socket) -> None:
        asked, fds, _, _ = socket.recv_fds(client, _REQUEST_BYTES, 3)
        while more := client.recv(_REQUEST_BYTES):
            asked += more
        pid = os.fork()
        if pid == 0:
            self._become(json.loads(asked), fds)
        for fd in fds:
            os.close(fd)
        self._children[pid] = client
        _send(client, pid)

    def _become(self, request: dict[str, Any], fds: Sequence[int]) -> NoReturn:
        """In the child: what `python -P -m coordinator.cli.main ARGUMENTS…` is, and does."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        os.closerange(3, 1 + max(fds[-1], *(own.fileno() for own in self._sockets())))
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        sys.argv = ["coordinator", *request["arguments"]]
        os._exit(_status_of_main())

    def _sockets(self) -> list[socket.socket]:
        return [self._listener, self._ended, self._wake, *self._children.values()]


def _status_of_main() -> int:
    from coordinator.cli.main import main

    status: int | str | None = 0
    try:
        main()
    except SystemExit as end:
        status = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or 120  # as Python itself ends then
    return status if isinstance(status, int) else int(status is not None)


def _send(client: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # who asked is gone
        client.sendall(_NUMBER.pack(number))


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler there must be: the wakeup file is written only then."""


def _import_all() -> None:
    from importlib import import_module

    import httpx
    from litestar import Litestar

    from coordinator.cli.main import COMMANDS

    for module in dict.fromkeys(COMMANDS.values()):
        import_module(f"coordinator.cli.{module}")
    for module in _IMPORTED_LATE:
        with contextlib.suppress(ImportError):
            import_module(module)
    httpx.Client(verify=False).close()  # both import most of their parts as they are first used
    Litestar([])


if __name__ == "__main__":
    _import_all()
    gc.freeze()
    server = _ForkServer(sys.argv[1])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.run()

"""Several processes behind one listening socket: `serve --workers N`. Each worker is a node."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

from coordinator.cli.command import CommandFailed

RESTART_SECONDS = 1.0
AGAIN_SECONDS = 1.0
"""Signals closer together than this are one: to a process, and to the group that it is in."""
START_SECONDS = 5.0
"""A worker that ends with status 1 so soon after the start ends the server: trying again would not
help. One that ends later is replaced: Postgres may be away, and the other workers live on."""


def serve_with_workers(listener: socket.socket, workers: int, drain_seconds: float) -> int:
    """Starts the workers, replaces those that die, and ends them all with the first signal.

    Returns:
        0 after SIGTERM, SIGINT or SIGHUP; 1 where a worker cannot start at all.
    """
    supervisor = _Supervisor(listener, workers)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, supervisor.end)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # `nohup`
        signal.signal(signal.SIGHUP, supervisor.end)
    signal.signal(signal.SIGUSR1, supervisor.hand_on)
    return supervisor.run(drain_seconds)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket that children may inherit.

    Raises:
        CommandFailed: there is no such address here, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(4096)
    except OSError as error:
        listener.close()
        raise CommandFailed(f"cannot listen on {host}:{port}: {error.strerror}") from error
    listener.set_inheritable(True)
    return listener


class _Supervisor:
    def __init__(self, listener: socket.socket, workers: int) -> None:
        self.listener = listener
        self.workers = workers
        self.is_ending = False
        self.ending_since = 0.0
        self.processes: list[subprocess.Popen[bytes]] = []

    def end(self, _signal: int, _frame: FrameType | None) -> None:
        """The first signal drains the workers; another one, a second or more later, kills them."""
        now = time.monotonic()
        if self.is_ending and now - self.ending_since > AGAIN_SECONDS:
            for process in self.processes:
                process.kill()
        elif not self.is_ending:
            self.is_ending, self.ending_since = True, now

    def hand_on(self, number: int, _frame: FrameType | None) -> None:
        """Sends each worker the signal that the supervisor was sent (SIGUSR1: log what you do)."""
        for process in self.processes:
            process.send_signal(number)

    def run(self, drain_seconds: float) -> int:
        began = time.monotonic()
        self.processes = [self._start() for _ in range(self.workers)]
        while not self.is_ending:
            time.sleep(0.1)
            for position, process in enumerate(self.processes):
                if process.poll() is None or self.is_ending:
                    continue
                if process.returncode == 1 and time.monotonic() - began < START_SECONDS:
                    self._stop(drain_seconds)
                    return 1  # it refuses to start, and has said why
                time.sleep(RESTART_SECONDS)
                self.processes[position] = self._start()
        self._stop(drain_seconds)
        return 0

    def _start(self) -> subprocess.Popen[bytes]:
        fd = self.listener.fileno()
        command = [
            sys.executable, "-P", "-m", "coordinator.cli.main", "serve",
            "--fd", str(fd), "--parent", str(os.getpid()),
        ]  # fmt: skip
        return subprocess.Popen(command, pass_fds=[fd])

    def _stop(self, drain_seconds: float) -> None:
        for process in self.processes:
            process.terminate()
        deadline = time.monotonic() + max(drain_seconds, 2.0) + 3.5
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            process.kill()

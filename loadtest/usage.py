"""Who used how much CPU, which cores are whose, and therefore whose limit a figure is.

Times come from /proc, so only Linux knows them; elsewhere every figure's owner is `unknown`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

KNOWN = Path("/proc/self/schedstat").exists()
"""True where the system tells what other processes use: Linux."""

FULL = 0.9
"""A process, or a set of cores, that is busier than this is a limit."""


def cpu_seconds(pid: int) -> float:
    """What the threads of a process that live have used so far; 0 where nobody can say."""
    return _schedstat(pid, 0)


def waited_seconds(pid: int) -> float:
    """How long they were ready to run, but others had the core."""
    return _schedstat(pid, 1)


def _schedstat(pid: int, column: int) -> float:
    total = 0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                total += int((task / "schedstat").read_text().split()[column])
    return total / 1e9


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                todo += [int(p) for p in (task / "children").read_text().split()]
            found.append(one)
    return found


def memory_kib(pid: int) -> float:
    """Resident memory of a process and all below it; 0 where nobody can say."""
    total = 0.0
    for one in family(pid):
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
            total += float(next(line for line in lines if line.startswith("VmRSS")).split()[1])
    return total


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores are the servers' and which everybody else's; both empty = nobody is pinned."""

    server: frozenset[int] = frozenset()
    others: frozenset[int] = frozenset()

    @classmethod
    def split(cls) -> Cores:
        """The first core for the server, the rest for clients and Redis, where that can be done."""
        if not hasattr(os, "sched_getaffinity"):
            return cls()
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            return cls()
        return cls(frozenset(cores[:1]), frozenset(cores[1:]))

    @property
    def text(self) -> str:
        if not self.server:
            return "nothing is pinned to a core"
        return (
            f"the server has core {_listed(self.server)}, clients and Redis core"
            f" {_listed(self.others)}; PostgreSQL is free to move"
        )


def _listed(cores: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(cores)))


@dataclass(slots=True)
class Parties:
    """The processes whose time counts. A server elsewhere leaves `servers` empty."""

    servers: list[int] = field(default_factory=list)
    clients: list[int] = field(default_factory=list)
    redis: list[int] = field(default_factory=list)
    postgres: list[int] = field(default_factory=list)

    def now(self) -> Moment:
        groups = (self.servers, self.clients, self.redis, self.postgres)
        if not KNOWN:
            groups = ([], [], [], [])
        return Moment(
            time.monotonic(),
            [[sum(map(cpu_seconds, family(pid))) if group is self.postgres else cpu_seconds(pid)
              for pid in group] for group in groups],
            sum(map(waited_seconds, self.servers)),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Moment:
    """CPU seconds used so far: servers, clients, Redis, Postgres, process by process."""

    at: float
    used: list[list[float]]
    waited: float


@dataclass(frozen=True, slots=True)
class Usage:
    """How busy everybody was in a window, in cores (1.0 = one core all the time).

    Attributes:
        servers, clients: one number per process.
        waited: the servers wanted to run, but others had their core.
    """

    seconds: float
    servers: list[float]
    clients: list[float]
    redis: float
    postgres: float
    waited: float = 0.0

    @classmethod
    def between(cls, start: Moment, end: Moment) -> Usage:
        seconds = max(end.at - start.at, 1e-9)
        servers, clients, redis, postgres = (
            [max(0.0, b - a) / seconds for a, b in zip(before, after, strict=True)]
            for before, after in zip(start.used, end.used, strict=True)
        )
        waited = max(0.0, end.waited - start.waited) / seconds
        return cls(seconds, servers, clients, sum(redis), sum(postgres), waited)

    @property
    def server_seconds(self) -> float:
        return sum(self.servers) * self.seconds

    def whose(self, cores: Cores) -> str:
        """`server`, `client`, `machine` or `unknown`: who could not have gone faster.

        A server that is full was the limit, whoever else was full too. Else a client process that
        is full was, or the machine: the cores that clients share with Redis and PostgreSQL were
        full, or other work took the server's core. Where nobody was full, the figure is the one of
        this way of asking (for example one request at a time).
        """
        if self.servers and min(self.servers) >= FULL:
            return "server"
        if self.clients and max(self.clients) >= FULL:
            return "client"
        shared = sum(self.clients) + self.redis + self.postgres
        if cores.others and shared >= FULL * len(cores.others):
            return "machine"
        if self.servers and sum(self.servers) + self.waited >= FULL * len(self.servers):
            return "machine"
        return "unknown"

    def text(self) -> str:
        """For the page: who was how busy."""
        if not self.clients:
            return "who was how busy is only known on Linux"
        parts = [f"server {_percent(self.servers)}"] if self.servers else ["server elsewhere"]
        parts.append(f"client {_percent(self.clients)}")
        if self.redis or self.postgres:
            parts.append(f"Redis {self.redis:.0%}, PostgreSQL {self.postgres:.0%}")
        if self.waited > 0.02:
            parts.append(f"the server waited {self.waited:.0%} of the time for its core")
        return ", ".join(parts)


def _percent(shares: list[float]) -> str:
    return " + ".join(f"{share:.0%}" for share in shares) + (
        " of a core each" if shares[1:] else ""
    )


def machine() -> dict[str, str]:
    """What this ran on, in words."""
    return {
        "machine": f"{os.cpu_count()} cores {_processor()}, {_memory_gib():.0f} GiB, "
        f"{platform.system()} {platform.release()}",
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "versions": ", ".join(_versions()),
    }


def _processor() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).split(": ")[1]
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    with contextlib.suppress(ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return 0.0


def _versions() -> list[str]:
    found = [f"Python {sys.version.split()[0]}"]
    for package in ("coordinator", "uvicorn", "uvloop", "litestar", "redis", "asyncpg"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return found

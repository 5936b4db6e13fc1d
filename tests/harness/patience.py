"""How long a test waits for what must happen: as long as this machine needs today.

Bounds in tests are those of a quiet machine of 2025. `patient(8)` is 8 s there, and longer where
cores are slower or others use them, too: a test that waits for an event is then late, not wrong.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_SPIN_SECONDS = 0.02
_WORK_SECONDS = 0.0025
"""What `_work` takes on the machine for which the bounds were written."""


def _share() -> float:
    """How much of a core this process gets just now: 1.0 on a quiet machine."""
    began, used = time.perf_counter(), time.process_time()
    while time.process_time() - used < _SPIN_SECONDS:
        pass
    return _SPIN_SECONDS / (time.perf_counter() - began)


def _work() -> dict[int, int]:
    """What Python does all day: calls, integers, strings, a dict."""
    total: dict[int, int] = {}
    for number in range(20_000):
        total[number % 97] = total.get(number % 97, 0) + len(str(number))
    return total


def _cpu_seconds_of_work() -> float:
    began = time.process_time()
    _work()
    return time.process_time() - began


_SHARE_AT_START = _share()
_SLOWER_CORE = max(1.0, min(_cpu_seconds_of_work() for _ in range(3)) / _WORK_SECONDS)
"""How many times more CPU time work takes than on the machine of the bounds."""


def slowness() -> float:
    """How many times longer things take than on a quiet machine, roughly; at least 1."""
    queued = max(os.getloadavg()[0], _runnable()) / (os.cpu_count() or 1)
    return _SLOWER_CORE * max(1.0, 2 * queued, 1 / _SHARE_AT_START)


def _runnable() -> int:
    """How many threads want a core at this moment: the average of a minute knows it late."""
    try:
        return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    except (OSError, IndexError, ValueError):
        return 0


def patient(seconds: float) -> float:
    """A bound for a quiet machine, as a bound for this one."""
    return seconds * slowness()


def long_enough(seconds: float) -> float:
    """For a time of the product's that a test waits out, and within which its steps have to be
    done: a token's life, a grace. As `patient`, but four times as long at most.
    """
    return seconds * min(4.0, slowness())


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Within, coverage does not count lines: CPU time that is promised is the product's alone."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)

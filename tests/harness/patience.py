"""How long a test waits for what must happen: as long as this machine needs today.

Bounds in tests are those of a quiet machine. `patient(8)` is 8 s there, and longer where others use
the cores, too: a test that waits for an event is then late, not wrong.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator

_SPIN_SECONDS = 0.02


def _share() -> float:
    """How much of a core this process gets just now: 1.0 on a quiet machine."""
    began, used = time.perf_counter(), time.process_time()
    while time.process_time() - used < _SPIN_SECONDS:
        pass
    return _SPIN_SECONDS / (time.perf_counter() - began)


_SHARE_AT_START = _share()


def slowness() -> float:
    """How many times longer things take than on a quiet machine, roughly; at least 1."""
    queued = os.getloadavg()[0] / (os.cpu_count() or 1)
    return max(1.0, 2 * queued, 1 / _SHARE_AT_START)


def patient(seconds: float) -> float:
    """A bound for a quiet machine, as a bound for this one."""
    return seconds * slowness()


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Within, coverage does not count lines: CPU time that is promised is the product's alone."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)

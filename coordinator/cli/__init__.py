"""The command `coordinator`."""

import os
import signal
from typing import Any

if os.path.expanduser("~") == "~":  # noqa: PTH111  # a container's user: an id without a name
    os.environ["HOME"] = "/"  # as Docker sets it; packages look for their caches as they load


def _end(number: int, _: Any) -> None:
    os._exit(128 + number)  # at once, as for every other process


if os.getpid() == 1:  # of a container: what it has no handler for, the kernel keeps from it
    signal.signal(signal.SIGTERM, _end)  # until `serve` has its own: a second after the start

"""The command `coordinator`."""

import os
import signal
from typing import Any

if os.path.expanduser("~") == "~":  # noqa: PTH111  # a container's user: an id without a name
    os.environ["HOME"] = "/"  # as Docker sets it; packages look for their caches as they load


def _end(number: int, _: Any) -> None:
    os._exit(128 + number)  # at once, as for every other process


if os.getpid() == 1:  # a container's first process ignores each signal that it does not handle
    signal.signal(signal.SIGTERM, _end)  # `serve` puts its own in place a second later

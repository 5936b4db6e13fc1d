"""Ports for what tests start: none that the system gives to an outgoing connection meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import time

from tests.harness.patience import patient

_FIRST, _BLOCK, _BLOCKS = 10_000, 200, 50
"""Below those of outgoing connections (`ip_local_port_range`) and of `cluster.steady_ports`."""

_turns = itertools.count(random.randrange(_BLOCK))


def free_port() -> int:
    """A loopback port on which nobody listens; not given again until all of the block were.

    Each process has a block of its own, as far as there are enough.
    """
    block = _FIRST + os.getpid() % _BLOCKS * _BLOCK
    for turn in itertools.islice(_turns, _BLOCK):
        if _can_be_taken(port := block + turn % _BLOCK):
            return port
    raise OSError(f"no port from {block} to {block + _BLOCK} is free")


def wait_open(port: int) -> None:
    """Returns when somebody listens on a loopback port.

    Raises:
        TimeoutError: nobody does, after 20 s of a quiet machine.
    """
    deadline = time.monotonic() + patient(20)
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens on port {port}")


def _can_be_taken(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

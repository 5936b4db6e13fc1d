"""A `coordinator` whose essential task of the name in `LOSES` is killed by each SIGUSR2."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from coordinator.cli import main
from coordinator.node import Node

_start = Node.start


async def start(node: Node) -> None:
    await _start(node)

    def kill() -> None:
        task = node.tasks.task(os.environ["LOSES"])
        assert task is not None
        task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, kill)


if __name__ == "__main__":
    Node.start = start  # type: ignore[method-assign, assignment]
    main.main(sys.argv[1:])

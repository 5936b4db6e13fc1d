"""The drain: a node that is about to end sends its clients elsewhere, spread over time.

Each connection is told `bye` 4200 and closed, in an order by chance: a node's clients would
otherwise all arrive at the others at once. Their rows go with them, so that each is `away` with a
deadline, and nobody has left.
"""

from __future__ import annotations

import asyncio
import random

from coordinator.domain.close_codes import CloseCode
from coordinator.live.registry import ConnectionRegistry

GONE_SECONDS = 2.5
"""How long a drained connection may take to close, or to be aborted."""


async def drain_connections(registry: ConnectionRegistry, seconds: float) -> None:
    """Closes every connection with 4200, spread over `seconds`; returns when they are gone."""
    connections = registry.all()
    random.shuffle(connections)
    loop = asyncio.get_running_loop()
    start = loop.time()
    for position, connection in enumerate(connections):
        due = start + seconds * position / len(connections)
        if due > loop.time() + 0.02:
            await asyncio.sleep(due - loop.time())
        # The drain spreads the clients already: each may return almost at once.
        connection.say_bye(CloseCode.DRAINING, after_ms=random.randrange(500))
    told_at = loop.time()
    while registry.count() and loop.time() < told_at + GONE_SECONDS:  # noqa: ASYNC110
        await asyncio.sleep(0.02)  # until each peer has answered or been aborted

"""Asking windows that nodes count together, as `Limits` does."""

from __future__ import annotations

import asyncio

from coordinator.redis import AWAY
from coordinator.web.shared_windows import SharedWindows
from tests.harness.patience import patient

LIMIT = 60
MINUTE = 60.0


async def gets_in(
    node: SharedWindows,
    who: str = "a",
    limit: int = LIMIT,
    seconds: float = MINUTE,
    kind: str = "join",
) -> bool:
    """One request, as `Limits` asks about it."""
    decided = node.admit(kind, who, limit, seconds)
    if decided is False:
        try:
            decided = await node.ask(kind, who, limit, seconds)
        except AWAY:
            decided = node.admit_alone(kind, who, limit, seconds)
    return decided is None


async def has_told(node: SharedWindows) -> None:
    """Returns when Redis has heard of all that the node has admitted."""
    async with asyncio.timeout(patient(10)):
        while node._settling is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

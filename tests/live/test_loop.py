"""A loop of the background: since when its work goes well."""

from __future__ import annotations

import asyncio
import time

from coordinator.domain.errors import Unavailable
from coordinator.live.loop import Loop


async def test_work_is_calm_from_its_first_success_not_from_its_last_failure() -> None:
    """The pass that ends an outage may wait for long before it succeeds."""
    is_away = True

    async def work() -> None:
        if is_away:
            raise Unavailable
        await asyncio.sleep(0.2)
        assert not loop.was_calm(0.1), "in the pass that may end an outage it has not ended"

    loop = Loop(work, name="work", seconds=1)
    await loop.pass_once()
    assert not loop.was_calm(0)

    is_away = False
    began = time.monotonic()
    await loop.pass_once()

    assert loop.trouble is None
    assert not loop.was_calm(time.monotonic() - began), "it counts from the end of that pass"

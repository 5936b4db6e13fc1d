"""Strangers at work, on loopback and bounded: an honest room beside them does not notice.

What is promised under all attacks together (`siege.py`): an event is heard within a second,
`/health/live` answers within half a second, and memory returns. A machine that is slow before the
attacks is not slow because of them: the bounds grow with what was measured in peace. Here time in
which the node or this process had no core does not count; for `python -m tests.attacks` it does.
"""

from __future__ import annotations

import os
import time

import pytest

from coordinator.standins.seed import seed
from coordinator.store.database import Database
from tests.attacks.siege import besiege
from tests.harness.node import Deployment
from tests.harness.promises import starved_seconds
from tests.open_api import KEYS

SECONDS = 5.0


@pytest.mark.timeout(240)
async def test_an_honest_room_does_not_notice_an_attack(
    deployment: Deployment, database: Database
) -> None:
    await seed(database)
    node = deployment.node(OPEN_API_KEYS=KEYS, RATE_LIMITS="")

    def running() -> float:
        starved = starved_seconds(node.process.pid) + starved_seconds(os.getpid())
        return time.monotonic() - starved

    siege = await besiege(node, database, deployment.redis_url, SECONDS, clock=running)
    assert siege.is_held(), str(siege)
    assert "request_failed" not in node.logs()

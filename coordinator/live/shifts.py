"""Shifts: which duties of the deployment this node has now.

A duty is a lease in Postgres (`store/duties.py`). Each pass of its work renews it, so that a node
whose work is stuck loses the duty. Two nodes that believe to have it waste work and do no harm:
every decision is taken again under a lock.
"""

from __future__ import annotations

import random
import time
from datetime import timedelta

from coordinator.live.judge import Judge
from coordinator.live.lease import Lease
from coordinator.store.duties import Duties

DUTY = timedelta(seconds=1.5)
SILENT_SECONDS = 1.2
"""A judge that has not been heard for so long may be dead."""
ASK_SILENT_SECONDS = 0.4
ASK_SECONDS = 2.0
"""How often a node asks for a duty that another has: seldom, while it hears the judge."""


class Shifts:
    """One node's duties, by kind. `held`: those that it had when it last asked."""

    def __init__(self, duties: Duties, lease: Lease, judge: Judge) -> None:
        self._duties = duties
        self._lease = lease
        self._judge = judge
        self.held: set[str] = set()
        self._ask_at: dict[str, float] = {}

    async def is_held(self, kind: str) -> bool:
        """Takes the duty, or renews it; False where another node has it, or had it when this one
        last asked.

        Raises:
            Unavailable: Postgres is away.
        """
        now = time.monotonic()
        if kind not in self.held:
            if now < self._ask_at.get(kind, 0.0):
                return False
            if not await self._duties.is_free(kind, self._lease.node_epoch):
                is_silent = self._judge.is_silent(SILENT_SECONDS)
                pause = ASK_SILENT_SECONDS if is_silent else ASK_SECONDS
                self._ask_at[kind] = now + pause * random.uniform(0.8, 1.2)
                return False
        generation = await self._duties.hold(kind, self._lease.node_epoch, DUTY)
        if generation is None:
            self.held.discard(kind)
        else:
            self.held.add(kind)
        return generation is not None

    async def let_go(self) -> None:
        """Gives all duties back, so that another node need not wait for them to run out.

        Raises:
            Unavailable: Postgres is away; they run out by themselves.
        """
        if self.held:
            self.held.clear()
            await self._duties.let_go(self._lease.node_epoch)

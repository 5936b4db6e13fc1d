"""How long nodes waited for a core that others had: the machine's fault, not the product's."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import defaultdict

from tests.harness.cluster import Cluster
from tests.harness.promises import starved_seconds

SAMPLE_SECONDS = 0.25


class Starvation:
    """The kernel counts it per thread (Linux's `schedstat`); where it does not, nobody starved."""

    def __init__(self) -> None:
        self._samples: dict[int, list[tuple[float, float]]] = defaultdict(list)

    async def watch(self, cluster: Cluster) -> None:
        """Samples every node's main thread, until cancelled."""
        waited: dict[tuple[int, int], float] = {}
        total: dict[int, float] = defaultdict(float)
        while True:
            for node in cluster.nodes:
                if node.is_running:
                    key = (node.number, node.process.pid)
                    seconds = starved_seconds(node.process.pid)
                    total[node.number] += seconds - waited.get(key, 0.0)
                    waited[key] = seconds
                    self.note(node.number, time.time(), total[node.number])
            await asyncio.sleep(SAMPLE_SECONDS)

    def note(self, node: int, at: float, seconds: float) -> None:
        """Up to this moment (wall clock) the node had waited so long in all."""
        self._samples[node].append((at, seconds))

    def seconds(self, node: int, since: float, until: float) -> float:
        """How long a node was ready to run and had no core, between two moments."""
        samples = self._samples[node]
        if not samples:
            return 0.0
        first = max(0, bisect_left(samples, (since, 0.0)) - 1)
        last = min(len(samples) - 1, bisect_left(samples, (until, 0.0)))
        return samples[last][1] - samples[first][1]

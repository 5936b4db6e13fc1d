"""Distributions of latencies."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import log2

from hdrh.histogram import HdrHistogram

LONGEST_NS = 3_600_000_000_000
"""What takes longer than an hour counts as an hour."""
BARS_PER_OCTAVE = 4


class Histogram:
    """Durations, right to three digits (HdrHistogram). It travels to other processes encoded."""

    def __init__(self, encoded: bytes | None = None) -> None:
        self._hdr = HdrHistogram.decode(encoded) if encoded else HdrHistogram(1, LONGEST_NS, 3)

    def __reduce__(self) -> tuple[type[Histogram], tuple[bytes]]:
        return Histogram, (self._hdr.encode(),)

    def add(self, nanoseconds: int, times: int = 1) -> None:
        self._hdr.record_value(min(max(nanoseconds, 1), LONGEST_NS), times)

    def merge(self, other: Histogram) -> None:
        self._hdr.add(other._hdr)

    @property
    def total(self) -> int:
        """How many in all."""
        count: int = self._hdr.get_total_count()
        return count

    def percentile(self, share: float) -> float:
        """Milliseconds that `share` (0..1) of all do not exceed; 0 where there are none."""
        nanoseconds: int = self._hdr.get_value_at_percentile(share * 100) if self.total else 0
        return nanoseconds / 1e6

    def bars(self) -> list[tuple[float, float, int]]:
        """(from ms, to ms, how many), four per octave, without holes between the shortest and the
        longest.
        """
        wide: Counter[int] = Counter()
        for one in self._hdr.get_recorded_iterator():
            wide[int(log2(one.value_iterated_to) * BARS_PER_OCTAVE)] += (
                one.count_added_in_this_iter_step
            )
        if not wide:
            return []
        edges = [2 ** (i / BARS_PER_OCTAVE) / 1e6 for i in range(min(wide), max(wide) + 2)]
        return [(*edge, wide[min(wide) + i]) for i, edge in enumerate(pairwise(edges))]

    def summary(self) -> dict[str, float]:
        """p50, p99, p99.9 and max in milliseconds, as `--json` shows them."""
        shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
        told = {name: round(self.percentile(share), 3) for name, share in shares.items()}
        return {"count": self.total, **told}

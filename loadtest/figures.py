"""Figures: latencies as histograms, numbers with their unit and owner, and the result of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from math import log2
from statistics import median as middle
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Figure:
    """One number.

    Attributes:
        whose: `server` where the server was the limit; `client`, `machine` or `unknown` where it
        was not, and the number is then only a lower bound; empty where limits do not matter.
        note: what the number means, for somebody who was not there.
    """

    name: str
    value: float
    unit: str
    whose: str = ""
    note: str = ""

    @property
    def text(self) -> str:
        """`12,345 /s`; with `≥` where it is not the server's own limit."""
        number = f"{self.value:,.0f}" if abs(self.value) >= 100 else f"{self.value:,.3g}"
        return f"{'≥ ' if self.whose not in ('', 'server') else ''}{number} {self.unit}".strip()


@dataclass(slots=True)
class Result:
    """What a scenario hands over to the table, the JSON file and the page.

    Attributes:
        name, about: the scenario, and in a sentence or two what was done.
        what: parameters of the run.
        where: machine, versions, date, what ran where.
        timelines: name -> (seconds since the start, value).
        broken: promises of the server that did not hold; empty = all held.
        table: rows of a table of the scenario's own (the first one is its head).
    """

    name: str
    about: str
    what: dict[str, Any] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    latencies: dict[str, Histogram] = field(default_factory=dict)
    timelines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    checked: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, *, whose: str = "", note: str = "") -> None:
        self.figures.append(Figure(name, value, unit, whose, note))

    def as_json(self) -> dict[str, Any]:
        """The same for machines: times in milliseconds."""
        shown = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return shown | {
            "figures": [asdict(f) | {"value": round(f.value, 4)} for f in self.figures],
            "latencies": {name: found.summary() for name, found in self.latencies.items()},
        }


def rates(moments: dict[int, int], slot_ns: int) -> list[tuple[float, float]]:
    """Counts per time slot as a timeline: (seconds since the first slot, per second)."""
    if not moments:
        return []
    first, last = min(moments), max(moments)
    return [
        ((slot - first) * slot_ns / 1e9, moments.get(slot, 0) * 1e9 / slot_ns)
        for slot in range(first, last + 1)
    ]


def median(values: Iterable[float]) -> float:
    """The middle one; the mean of the middle two; 0 of none."""
    ordered = list(values)
    return middle(ordered) if ordered else 0.0

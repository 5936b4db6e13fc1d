"""Figures: latencies as histograms, numbers with their unit and owner, and the result of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

_STEPS = 64  # buckets per octave: a percentile is right to 1.1 %


@dataclass(slots=True)
class Histogram:
    """Durations in buckets that grow by 1.1 %; merges, and forgets nothing but that rounding.

    Attributes:
        counts: bucket -> how many.
        total: how many in all.
        longest: the longest one, exact, in nanoseconds.
    """

    counts: dict[int, int] = field(default_factory=dict)
    total: int = 0
    longest: int = 0

    def add(self, nanoseconds: int, times: int = 1) -> None:
        bucket = int(math.log2(nanoseconds) * _STEPS) if nanoseconds > 1 else 0
        self.counts[bucket] = self.counts.get(bucket, 0) + times
        self.total += times
        if nanoseconds > self.longest:
            self.longest = nanoseconds

    def merge(self, other: Histogram) -> None:
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += other.total
        self.longest = max(self.longest, other.longest)

    def percentile(self, share: float) -> float:
        """Milliseconds that `share` (0..1) of all do not exceed; 0 where there are none."""
        wanted = max(1, math.ceil(share * self.total))
        for bucket in sorted(self.counts):
            wanted -= self.counts[bucket]
            if wanted <= 0:
                return min(2 ** ((bucket + 0.5) / _STEPS), self.longest) / 1e6
        return 0.0

    def bars(self, per_octave: int = 4) -> list[tuple[float, float, int]]:
        """(from ms, to ms, how many), without holes between the shortest and the longest."""
        if not self.counts:
            return []
        width = _STEPS // per_octave
        wide: dict[int, int] = {}
        for bucket, count in self.counts.items():
            wide[bucket // width] = wide.get(bucket // width, 0) + count
        return [
            (2 ** (i / per_octave) / 1e6, 2 ** ((i + 1) / per_octave) / 1e6, wide.get(i, 0))
            for i in range(min(wide), max(wide) + 1)
        ]

    def summary(self) -> dict[str, float]:
        """p50, p99, p99.9 and max in milliseconds, as `--json` shows them."""
        return {
            "count": self.total,
            "p50": round(self.percentile(0.5), 3),
            "p99": round(self.percentile(0.99), 3),
            "p99.9": round(self.percentile(0.999), 3),
            "max": round(self.longest / 1e6, 3),
        }


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
        return {
            "name": self.name,
            "about": self.about,
            "what": self.what,
            "where": self.where,
            "figures": [
                {
                    "name": f.name,
                    "value": round(f.value, 4),
                    "unit": f.unit,
                    "whose": f.whose,
                    "note": f.note,
                }
                for f in self.figures
            ],
            "latencies": {name: found.summary() for name, found in self.latencies.items()},
            "timelines": self.timelines,
            "checked": self.checked,
            "broken": self.broken,
            "notes": self.notes,
            "table": self.table,
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
    ordered = sorted(values)
    if not ordered:
        return 0.0
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

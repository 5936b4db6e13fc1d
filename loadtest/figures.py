"""Figures: latencies as histograms, numbers with their unit and owner, and the result of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from statistics import median as middle
from typing import Any

from tests.harness.histogram import Histogram


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

    def latency_rows(self) -> list[list[str]]:
        """A table of the latencies in milliseconds; the first row is its head."""
        rows = [["milliseconds", "p50", "p99", "p99.9", "max", "of"]]
        for name, found in self.latencies.items():
            count, *shares = found.summary().values()
            rows.append([name, *(f"{share:,.2f}" for share in shares), f"{count:,}"])
        return rows

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

"""Metrics without locks are exposed as prometheus_client exposes its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.registry import Collector

from coordinator.metrics import PlainCounter, PlainCounterByLabel, PlainHistogram


def shown(*collectors: Collector) -> list[str]:
    """What `/metrics` says of them, without the times at which they were made."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    text = generate_latest(registry).decode()
    return [line for line in text.splitlines() if "_created" not in line]


@pytest.fixture
def made() -> Iterator[list[Collector]]:
    """Collectors that a test makes; they are forgotten after it."""
    collectors: list[Collector] = []
    yield collectors
    for collector in collectors:
        REGISTRY.unregister(collector)


def test_a_counter(made: list[Collector]) -> None:
    plain, usual = PlainCounter("x_total", "Things"), Counter("x_total", "Things", registry=None)
    made.append(plain)
    for amount in (1, 5):
        plain.inc(amount)
        usual.inc(amount)

    assert shown(plain) == shown(usual)


def test_a_counter_by_label(made: list[Collector]) -> None:
    plain = PlainCounterByLabel("y_total", "Things", "type")
    usual = Counter("y_total", "Things", ["type"], registry=None)
    made.append(plain)
    for kind in ("a", "b", "a"):
        plain.values[kind,] += 1
        usual.labels(kind).inc()

    assert shown(plain) == shown(usual)


def test_a_histogram(made: list[Collector]) -> None:
    buckets = (0.1, 1, 10)
    plain = PlainHistogram("z_seconds", "Time", buckets)
    usual = Histogram("z_seconds", "Time", buckets=buckets, registry=None)
    made.append(plain)
    for value in (0.05, 0.1, 0.5, 1.5, 100):
        plain.observe(value)
        usual.observe(value)

    assert shown(plain) == shown(usual)

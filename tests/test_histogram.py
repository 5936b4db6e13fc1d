"""Distributions of latencies, as load tests and chaos keep them."""

from __future__ import annotations

import pickle

import pytest

from tests.harness.histogram import Histogram


def test_percentiles_are_right_to_a_thousandth() -> None:
    found = Histogram()
    for milliseconds in range(1, 1001):
        found.add(milliseconds * 1_000_000)
    assert found.percentile(0.5) == pytest.approx(500, rel=0.001)
    assert found.percentile(0.99) == pytest.approx(990, rel=0.001)
    assert found.percentile(0.999) == pytest.approx(999, rel=0.001)


def test_the_longest_is_the_hundredth_percentile() -> None:
    found = Histogram()
    found.add(7_654_321)
    found.add(1_000)
    assert found.summary()["max"] == pytest.approx(7.654, rel=0.001)
    assert found.percentile(1.0) == pytest.approx(7.654, rel=0.001)


def test_two_merged_are_as_one_that_had_it_all() -> None:
    one, two, both = Histogram(), Histogram(), Histogram()
    for i in range(1, 200):
        (one if i % 2 else two).add(i * 10_000)
        both.add(i * 10_000)
    one.merge(two)
    assert (one.summary(), one.bars()) == (both.summary(), both.bars())


def test_it_travels_between_processes() -> None:
    here = Histogram()
    for nanoseconds in (900, 1_000_000, 5_000_000, 80_000_000):
        here.add(nanoseconds)
    there = pickle.loads(pickle.dumps(here))
    assert (there.summary(), there.bars()) == (here.summary(), here.bars())


def test_what_is_no_duration_counts_as_the_nearest_one() -> None:
    found = Histogram()
    for nanoseconds in (-5, 0, 10**18):
        found.add(nanoseconds)
    assert found.total == 3
    assert found.summary()["max"] == pytest.approx(3_600_000, rel=0.001)


def test_nothing_measured_is_zero_not_an_error() -> None:
    assert Histogram().summary() == {"count": 0, "p50": 0, "p99": 0, "p99.9": 0, "max": 0}
    assert Histogram().bars() == []


def test_bars_hold_every_measurement() -> None:
    found = Histogram()
    for nanoseconds in (900, 1_000_000, 5_000_000, 80_000_000):
        found.add(nanoseconds)
    assert sum(count for _, _, count in found.bars()) == 4

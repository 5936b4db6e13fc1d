"""A seeded part of what `python -m tests.attacks.parsers` does with 100,000 inputs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.parsers import attack_frames, attack_http
from tests.harness.patience import untraced

INPUTS = 300


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with untraced():
        yield


def test_no_request_raises_or_leaves_anything() -> None:
    counts: list[int] = []
    attack_http(INPUTS, counts.append)
    assert len(counts) >= INPUTS


def test_no_frame_raises_leaves_anything_or_goes_uncounted() -> None:
    counts: list[int] = []
    attack_frames(INPUTS, counts.append)
    assert len(counts) >= INPUTS

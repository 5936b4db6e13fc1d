"""The cores as a whole cluster in virtual time: no history of any seed breaks a promise.

Long runs: `python -m tests.simulation --histories 20000`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.patience import untraced
from tests.simulation import scale
from tests.simulation.bugs import BUGS, Plant, planted
from tests.simulation.world import history_of, quietly

PARTS, HISTORIES = 10, 100
MOST_HISTORIES_PER_BUG = 1000
FIRST_SEEDS = {
    "nobody_polls": 110,
    "what_was_announced_before_a_failover_is_told_after_it": 560,
    "who_returned_expires_all_the_same": 705,
}
"""Where to begin to look for what shows seldom; the others are found from seed 0 on."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with quietly(), untraced():
        yield


@pytest.mark.timeout(180)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_breaks_a_promise(part: int) -> None:
    events = 0
    for seed in range(part * HISTORIES, (part + 1) * HISTORIES):
        history = history_of(seed)
        assert history.broken == [], f"seed {seed}"
        events += history.events
    assert events > 10 * HISTORIES


def test_a_seed_is_one_history_to_the_letter() -> None:
    assert history_of(7) == history_of(7)
    assert history_of(7).trace != history_of(8).trace


@pytest.mark.timeout(180)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found(bug: Plant) -> None:
    with planted(bug):
        first = FIRST_SEEDS.get(bug.__name__, 0)
        assert any(
            history_of(seed).broken for seed in range(first, first + MOST_HISTORIES_PER_BUG)
        )


def test_a_node_hears_hardly_more_than_it_needs_and_pays_for_what_is_open() -> None:
    """At ten nodes a third of all rooms is open on each: hearing it all would be three times that.
    """
    small, ten = scale.counted(3), scale.counted(10)

    assert ten.needing <= ten.hearing < 0.95 * ten.layout.nodes
    assert ten.foreign_per_node < ten.layout.events_per_second / 3
    of_each = [scale.asked_per_second(one.layout)[0] for one in (small, ten)]
    assert of_each[1] < 1.5 * of_each[0], "what a node asks does not grow with the nodes"

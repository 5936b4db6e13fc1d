"""A short run of chaos, and the verdict itself: it must see what is broken.

Long runs: `python -m tests.chaos --seed 7 --minutes 5`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from tests.chaos.client import AnsweredJoin, Observations, Stay, ToldHistory
from tests.chaos.plan import Past, plan
from tests.chaos.run import chaos, outages, unserved
from tests.chaos.starvation import Starvation
from tests.chaos.verdict import NOTHING_WITHDRAWN, EndState, Withdrawn, ghosts, judge
from tests.harness.screen import Screen

HOST = {"userId": "user_001", "userName": "张经理", "role": "host"}
GUEST = {"userId": "guest_1", "userName": "李明", "role": "guest"}
ROOM = {"roomName": "n", "hostName": "h", "status": "active", "createdAt": "…"}


@pytest.mark.timeout(120)
async def test_nothing_is_lost_or_doubled_while_servers_and_nodes_die() -> None:
    report = await chaos(
        seed=2351, seconds=11, nodes=2, rooms=3, people=5, grace=3,
        screen=Screen(Console(file=io.StringIO())),
    )  # fmt: skip
    assert report.broken == []
    assert report.planned == 3
    assert report.events > 50
    assert report.told >= report.events


def test_the_plan_follows_from_the_seed_alone() -> None:
    assert plan(7, 120, 3) == plan(7, 120, 3)
    assert plan(7, 120, 3) != plan(8, 120, 3)


def test_a_plan_never_harms_one_thing_twice_at_a_time_and_ends_in_time() -> None:
    faults = plan(11, 600, 3)
    assert len(faults) > 60
    for number, one in enumerate(faults):
        assert one.end < 600
        for other in faults[:number]:
            assert other.end <= one.at or not other.victims & one.victims


# -- the verdict -----------------------------------------------------------------------------------


def event(seq: int, kind: str, who: dict[str, Any], second: float, **more: Any) -> dict[str, Any]:
    return {
        "type": kind, "roomId": "r", "seq": seq, "at": f"2026-01-01T00:00:{second:06.3f}Z",
        "participant": who, **more,
    }  # fmt: skip


def log_of_a_return() -> list[dict[str, Any]]:
    """The guest was away for a second, with a grace of five, and came back."""
    away = {"leaveAt": "2026-01-01T00:00:08.000Z"}
    return [
        event(1, "room_created", {**HOST, "connection": "none"}, 0, room=ROOM),
        event(2, "participant_joined", {**GUEST, "connection": "none"}, 1),
        event(3, "participant_online", GUEST, 2),
        event(4, "participant_away", GUEST, 3, **away),
        event(5, "participant_back", GUEST, 4),
    ]


def end_of(log: list[dict[str, Any]], connection: str = "online") -> EndState:
    people = [{**HOST, "connection": "none"}, {**GUEST, "connection": connection}]
    view = {"status": "active", "participants": people}
    return EndState("r", log, [view], {GUEST["userId"]}, [(GUEST["userId"], len(log))])


def judged(
    state: EndState,
    observed: Observations | None = None,
    outages: list[tuple[float, float]] | None = None,
    blurred: Sequence[tuple[float, float]] = (),
    withdrawn: Withdrawn = NOTHING_WITHDRAWN,
) -> list[str]:
    """Node 0 was well all the time, other nodes never."""
    seen = observed or Observations()

    def was_well(node: int, since: float, until: float) -> bool:
        return node == 0

    return judge([state], seen, 5.0, was_well, outages or [], blurred, withdrawn)


def test_a_whole_history_is_not_complained_about() -> None:
    log = log_of_a_return()
    observed = Observations(
        histories={"r": [ToldHistory(2, None, log[2:])]},
        joins=[AnsweredJoin("r", "guest_1", "李明", 2)],
    )
    assert judged(end_of(log), observed) == []


@pytest.mark.parametrize("missing", [2, 3, 4])
def test_a_hole_in_the_log_is_seen(missing: int) -> None:
    log = log_of_a_return()
    del log[missing - 1]
    assert any("has holes" in sentence for sentence in judged(end_of(log)))


def test_a_client_that_was_told_something_else_is_seen() -> None:
    log = log_of_a_return()
    for told in (log[3:], [log[2], log[2]], [*log[2:], event(6, "participant_away", GUEST, 5)]):
        observed = Observations(histories={"r": [ToldHistory(2, None, told)]})
        assert any("was told" in sentence for sentence in judged(end_of(log), observed))


def test_a_snapshot_that_is_not_its_log_is_seen() -> None:
    snapshot = {"room": ROOM, "participants": [{**HOST, "connection": "online"}]}
    observed = Observations(histories={"r": [ToldHistory(1, snapshot, [])]})
    assert any("the snapshot of seq 1" in s for s in judged(end_of(log_of_a_return()), observed))


def test_a_ghost_is_seen() -> None:
    state = end_of(log_of_a_return())
    state.connected = set()
    assert judged(state) == ["r: guest_1 is online without a connection"]


def test_a_roster_that_is_not_the_replay_is_seen() -> None:
    assert any("the log says" in s for s in judged(end_of(log_of_a_return(), "away")))


def test_a_change_that_cannot_be_is_seen() -> None:
    log = [*log_of_a_return(), event(6, "participant_online", GUEST, 5)]
    assert any("participant_online 6" in sentence for sentence in judged(end_of(log)))


def test_a_departure_before_its_deadline_or_in_spite_of_a_return_is_seen() -> None:
    log = log_of_a_return()[:4]
    early = [*log, event(5, "participant_left", GUEST, 7, reason="disconnected")]
    late = [*log, event(5, "participant_left", GUEST, 8.1, reason="disconnected")]
    midnight = 1767225600.0
    stay = Stay("guest_1", node=0, welcomed=midnight + 5)
    assert any("before its deadline" in s for s in judged(end_of(early)))
    assert not any("deadline" in s for s in judged(end_of(late)))
    assert any("welcomed" in s for s in judged(end_of(late), Observations(stays={"r": [stay]})))


def test_a_departure_right_after_an_outage_is_seen() -> None:
    midnight = 1767225600.0
    log = [
        *log_of_a_return()[:4],
        event(5, "participant_left", GUEST, 10, reason="disconnected"),
    ]
    outage = (midnight + 4, midnight + 9)
    assert any("outage" in s for s in judged(end_of(log), outages=[outage]))
    assert not any("outage" in s for s in judged(end_of(log), outages=[(midnight, midnight + 3)]))


@pytest.mark.parametrize(("node", "is_seen"), [(0, True), (1, False)])
def test_an_absence_of_somebody_connected_is_seen_where_its_node_was_well(
    node: int, is_seen: bool
) -> None:
    midnight = 1767225600.0
    stay = Stay("guest_1", node, welcomed=midnight + 2, ended=midnight + 9)
    found = judged(end_of(log_of_a_return()), Observations(stays={"r": [stay]}))
    assert any("who was connected" in sentence for sentence in found) is is_seen


MIDNIGHT = 1767225600.0
FAILOVER = Withdrawn("new", ((MIDNIGHT + 5, MIDNIGHT + 7),))


@pytest.mark.parametrize(
    ("epoch", "second", "is_seen"), [("old", 6, False), ("new", 6, True), ("old", 4.5, True)]
)
def test_what_a_failover_took_is_withdrawn_by_an_epoch_alone(
    epoch: str, second: float, is_seen: bool
) -> None:
    """It may be gone only where it was written right before, and nobody went on from it."""
    lost = event(6, "participant_away", GUEST, second)
    told = ToldHistory(2, None, [*log_of_a_return()[2:], lost], epoch=epoch)
    observed = Observations(histories={"r": [told]})
    found = judged(end_of(log_of_a_return()), observed, withdrawn=FAILOVER)
    assert any("was told" in sentence for sentence in found) is is_seen


@pytest.mark.parametrize(("second", "is_seen"), [(6, False), (8, True)])
def test_an_answer_may_be_lost_by_a_failover_alone(second: float, is_seen: bool) -> None:
    observed = Observations(
        joins=[AnsweredJoin("r", "guest_2", "王", 6, MIDNIGHT + second)],
        made={"r": MIDNIGHT, "gone": MIDNIGHT + second},
    )
    found = judged(end_of(log_of_a_return()), observed, withdrawn=FAILOVER)
    assert any("guest_2" in sentence for sentence in found) is is_seen
    assert ("gone was made, and is not there" in found) is is_seen


def test_a_connection_that_was_not_told_the_epoch_is_seen() -> None:
    state = end_of(log_of_a_return())
    state.stale = ["guest_1"]
    assert judged(state) == ["r: a connection of guest_1 was not told the epoch"]


def test_times_of_a_wrong_clock_are_compared_with_no_other() -> None:
    log = [*log_of_a_return()[:4], event(5, "participant_left", GUEST, 8.1, reason="disconnected")]
    observed = Observations(stays={"r": [Stay("guest_1", node=0, welcomed=MIDNIGHT + 5)]})
    wrong = [(MIDNIGHT + 2, MIDNIGHT + 4)]
    assert any("welcomed" in s for s in judged(end_of(log), observed))
    assert not any("welcomed" in s for s in judged(end_of(log), observed, blurred=wrong))


def silent(promoted: float, past: list[Past], *, starved: float = 0.0) -> list[str]:
    """What is said of two nodes after a promotion; one of them was without a core for so long."""
    starvation = Starvation()
    for node, seconds in ((0, starved), (1, starved + 1)):
        starvation.note(node, promoted, 0.0)
        starvation.note(node, promoted + 7, seconds)
    late = event(5, "participant_left", GUEST, 12.0, reason="left")
    states = [end_of([*log_of_a_return()[:4], late])]
    return list(unserved(states, [promoted], past, MIDNIGHT, 2, starvation))


def test_a_promotion_that_no_event_follows_in_time_is_seen() -> None:
    promoted = MIDNIGHT + 4.5
    frozen = Past("node frozen", 1, MIDNIGHT + 4, MIDNIGHT + 6)
    killed = Past("node killed", 0, MIDNIGHT + 5, MIDNIGHT + 9)
    again = Past("primary killed", -1, promoted + 3, promoted + 5)

    assert silent(MIDNIGHT + 1.5, []) == []
    (sentence,) = silent(promoted, [frozen])
    assert sentence == (
        "the first event came 7.5 s after a promotion at 4.5 s (0.0 s without a core);"
        " meanwhile: node frozen at 4.0 s"
    )
    assert silent(promoted, [frozen, again]) == []
    assert silent(promoted, [frozen, killed]) == []
    assert silent(promoted, [frozen], starved=2.0) == []


def test_an_outage_is_over_with_the_promotion_though_a_new_standby_takes_longer() -> None:
    fault = Past("primary killed", -1, 100.0, 112.0)
    assert outages([fault], [104.0]) == [(100.0, 104.0)]
    assert outages([fault], [101.0]) == []
    assert outages([fault], []) == [(100.0, 112.0)]


def test_an_answered_join_that_is_not_in_the_log_is_seen() -> None:
    observed = Observations(joins=[AnsweredJoin("r", "guest_2", "王", 3)])
    assert any("guest_2" in sentence for sentence in judged(end_of(log_of_a_return()), observed))


def test_a_refused_join_that_is_in_the_room_is_seen_unless_its_node_was_killed() -> None:
    observed = Observations(refused=[("r", "李明", 0, 1000.0)])
    states = [end_of(log_of_a_return())]
    assert len(ghosts(states, observed, {0: []})[0]) == 1
    assert ghosts(states, observed, {0: [1005.0]}) == ([], 1)


def test_what_a_node_waited_for_a_core_is_known_of_each_moment() -> None:
    starvation = Starvation()
    for at, seconds in ((0.0, 0.0), (1.0, 0.5), (2.0, 2.5), (3.0, 2.5)):
        starvation.note(0, at, seconds)
    assert starvation.seconds(0, 1.0, 2.0) == 2.5, "from the sample before"
    assert starvation.seconds(0, 2.5, 9.0) == 0.0
    assert starvation.seconds(1, 0.0, 9.0) == 0.0

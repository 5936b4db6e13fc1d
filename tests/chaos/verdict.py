"""What must be true of a run, whatever died in it: logs, histories and rosters held together.

`judge` gets every room's log as it is at the end, what each client was told, and what the nodes
answer now; it returns a sentence for each promise that was broken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from coordinator.domain.events import ROOM, Event, FeedKey
from coordinator.domain.roster import Roster
from tests.chaos.client import AnsweredJoin, Observations, Stay, ToldHistory, seconds_of
from tests.harness.live_client import Frame

CLOCK_SECONDS = 0.005
"""Event times are cut to milliseconds, and read on another clock of the same machine."""

END_HIDES_UNDO_SECONDS = 20.0

RETURN_SECONDS = 6.0
"""A node that started after an outage did not see it, and waits for one grace at least."""

LONG_SECONDS = 4.0
"""What a fault has done is done so long after it has ended: its node's clients know of it."""

_NEXT = {
    ("", "room_created"): "none",
    ("", "participant_joined"): "",
    ("none", "participant_online"): "online",
    ("online", "participant_away"): "away",
    ("away", "participant_back"): "online",
    ("none", "participant_left"): "",
    ("online", "participant_left"): "",
    ("away", "participant_left"): "",
}
"""(connection before, event) -> connection after; "" is not in the room."""


@dataclass(slots=True)
class EndState:
    """A room as the nodes answer at the end.

    Attributes:
        log: all its events. views: GET room of each node, in the order of the nodes.
        connected: users with a client that is connected and not marked away.
        clients: (user, seq) of each of those. stale: those of them that were not told the epoch.
    """

    room: str
    log: list[Frame]
    views: list[dict[str, Any]]
    connected: set[str]
    clients: list[tuple[str, int | None]]
    stale: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What a failover to a standby that was behind may have taken out of the log.

    Attributes:
        epoch: the one in which the run ends.
        windows: from when to when (wall clock) what was written may be gone.
    """

    epoch: str = ""
    windows: Sequence[tuple[float, float]] = ()

    def may_hold(self, *times: float) -> bool:
        """True where everything from these times on may be gone."""
        return all(any(a <= time <= b for a, b in self.windows) for time in times)

    def frees(self, run: ToldHistory) -> bool:
        """True where its client was told to start anew: it took no epoch after those of `run`."""
        return bool(self.windows) and run.epoch != self.epoch


NOTHING_WITHDRAWN = Withdrawn()

WasWell = Callable[[int, float, float], bool]
"""Whether a node, and Postgres for it, was well from one moment to another (wall clock)."""


def judge(
    states: list[EndState],
    observed: Observations,
    grace: float,
    was_well: WasWell,
    outages: list[tuple[float, float]],
    blurred: Sequence[tuple[float, float]] = (),
    withdrawn: Withdrawn = NOTHING_WITHDRAWN,
) -> list[str]:
    """One sentence per broken promise, with the room that it was broken in.

    Args:
        blurred: between which times of the log its clock was wrong: they are compared with no
            other clock's.
    """
    broken = [*observed.broken, *_rooms(states, observed, withdrawn)]
    for state in states:
        name = state.room
        if any(event["seq"] != number for number, event in enumerate(state.log, 1)):
            broken.append(f"{name}: the log has holes: {[e['seq'] for e in state.log]}")
            continue  # nothing else can be said of it
        sharp = _sharp(state.log, blurred)
        checks = (
            _log(state.log, grace),
            _histories(state.log, observed.histories.get(name, []), withdrawn),
            _rosters(state),
            _leaves(sharp, observed.stays.get(name, [])),
            _hasty(sharp, outages),
            _absences(sharp, observed.stays.get(name, []), was_well),
            _joins(state.log, [j for j in observed.joins if j.room == name], withdrawn),
        )
        broken += [f"{name}: {sentence}" for check in checks for sentence in check]
    return broken


def _sharp(log: list[Frame], blurred: Sequence[tuple[float, float]]) -> list[Frame]:
    """The log without departures whose times, or whose absence's times, say nothing."""

    def is_blurred(*times: float) -> bool:
        return any(since <= time <= until for time in times for since, until in blurred)

    sharp, vague = [], set()
    for event in log:
        user = event.get("participant", {}).get("userId", "")
        at = seconds_of(event["at"])
        if event["type"] == "participant_away":
            vague.discard(user)
            if is_blurred(at, seconds_of(event["leaveAt"])):
                vague.add(user)
                continue
        elif event["type"] == "participant_left" and (user in vague or is_blurred(at)):
            continue
        sharp.append(event)
    return sharp


def _log(log: list[Frame], grace: float) -> Iterator[str]:
    """In time's order, every change a legal one, deadlines as promised."""
    state: dict[str, str] = defaultdict(str)
    before, ended = "", False
    leave_at: dict[str, float] = {}
    for event in log:
        seq, kind = event["seq"], event["type"]
        if event["at"] < before:
            yield f"event {seq} is older than the one before it"
        before = event["at"]
        if ended:
            yield f"{kind} {seq} follows room_ended"
        ended = ended or kind == "room_ended"
        if "participant" not in event:
            continue
        user = event["participant"]["userId"]
        after = _NEXT.get((state[user], kind))
        if after is None:
            yield f"{kind} {seq} of {user}, who was {state[user] or 'not in the room'!r}"
        state[user] = event["participant"].get("connection", "") if after == "" else after or ""
        if kind == "participant_away":
            leave_at[user] = seconds_of(event["leaveAt"])
            if abs(leave_at[user] - seconds_of(event["at"]) - grace) > CLOCK_SECONDS:
                yield f"{kind} {seq} names a deadline that is not the grace"
        elif (
            kind == "participant_left"
            and event["reason"] == "disconnected"
            and seconds_of(event["at"]) < leave_at.get(user, float("inf")) - CLOCK_SECONDS
        ):
            yield f"{kind} {seq} of {user} comes before its deadline"


def _rooms(
    states: list[EndState], observed: Observations, withdrawn: Withdrawn
) -> Iterator[str]:
    """A room whose making was answered is there."""
    there = {state.room for state in states}
    for room, made in observed.made.items():
        if room not in there and not withdrawn.may_hold(made):
            yield f"{room} was made, and is not there"


def _histories(
    log: list[Frame], runs: list[ToldHistory], withdrawn: Withdrawn
) -> Iterator[str]:
    """Each client's history is a piece of the log, and begins with the state of its seq.

    What a failover took out of the log has been withdrawn: its client was told of no later epoch
    on top of it.
    """
    at_seq: dict[int, list[ToldHistory]] = defaultdict(list)
    for run in runs:
        if run.snapshot is not None:
            at_seq[run.seq].append(run)
        for position, frame in enumerate(run.events):
            seq = run.seq + 1 + position
            if seq > len(log) or frame != log[seq - 1]:
                if not (withdrawn.frees(run) and withdrawn.may_hold(seconds_of(frame["at"]))):
                    yield f"a client was told {frame} where the log has seq {seq}"
                break
    roster = Roster(room={})
    for event in log:
        roster.apply(_event(event))
        for run in at_seq.pop(event["seq"], ()):
            if run.snapshot != roster.snapshot() and not _is_withdrawn(run, withdrawn):
                yield f"the snapshot of seq {run.seq} is not its log: {run.snapshot}"
    for seq, rest in at_seq.items():
        if not all(_is_withdrawn(run, withdrawn) for run in rest):
            yield f"a snapshot claims seq {seq}, the log ends at {len(log)}"


def _is_withdrawn(run: ToldHistory, withdrawn: Withdrawn) -> bool:
    return withdrawn.frees(run) and withdrawn.may_hold(run.began)


def _rosters(state: EndState) -> Iterator[str]:
    """The nodes' answers equal the replay; whoever is online there is connected, and vice versa."""
    roster = Roster(room={})
    for event in state.log:
        roster.apply(_event(event))
    people = list(roster.participants.values())
    is_ended = roster.room.get("status") == "ended"
    for node, view in enumerate(state.views):
        if view["status"] != roster.room.get("status"):
            yield f"node {node} says {view['status']}"
        if not is_ended and view["participants"] != people:
            yield f"node {node} says {view['participants']}, the log says {people}"
    online = {p["userId"] for p in people if p["connection"] == "online"}
    for user in online - state.connected:
        yield f"{user} is online without a connection"
    for user in state.connected - online:
        yield f"{user} is connected, and not online"
    for person in people:
        if person["connection"] == "away":
            yield f"{person['userId']} is away for longer than the grace"
    for user in state.stale:
        yield f"a connection of {user} was not told the epoch"
    for user, seq in state.clients:
        if seq != len(state.log):
            yield f"a connection of {user} stands at {seq}, the log at {len(state.log)}"


def _leaves(log: list[Frame], stays: list[Stay]) -> Iterator[str]:
    """Nobody has left by a deadline who was welcomed before it and stayed."""
    of_user: dict[str, list[Stay]] = defaultdict(list)
    for stay in stays:
        of_user[_public(stay.user_id, log)].append(stay)
    away: dict[str, tuple[float, float]] = {}
    for event in log:
        user = event.get("participant", {}).get("userId", "")
        if event["type"] == "participant_away":
            away[user] = (seconds_of(event["at"]), seconds_of(event["leaveAt"]))
        elif event["type"] == "participant_left" and event["reason"] == "disconnected":
            since, deadline = away.get(user, (0.0, 0.0))
            left = seconds_of(event["at"])
            for stay in of_user[user]:
                stayed = not stay.ended or stay.ended > left + 1
                marked = stay.marked_away and stay.marked_away < left
                if since < stay.welcomed < deadline and stayed and not marked:
                    yield f"{user} was welcomed before its deadline, and said to have left"


def _hasty(log: list[Frame], outages: list[tuple[float, float]]) -> Iterator[str]:
    """Nobody whose deadline passed while Postgres was away has left before it could return."""
    deadline: dict[str, float] = {}
    for event in log:
        user = event.get("participant", {}).get("userId", "")
        if event["type"] == "participant_away":
            deadline[user] = seconds_of(event["leaveAt"])
        elif event["type"] == "participant_left" and event["reason"] == "disconnected":
            left = seconds_of(event["at"])
            for began, ended in outages:
                if began < deadline.get(user, 0) and ended - 0.5 < left < ended + RETURN_SECONDS:
                    yield f"{user} has left {left - ended:.1f} s after an outage of Postgres"


def _absences(log: list[Frame], stays: list[Stay], was_well: WasWell) -> Iterator[str]:
    """Nobody is away with a connection that stands, on a node that has long been well."""
    for event in log:
        if event["type"] != "participant_away":
            continue
        user, at = event["participant"]["userId"], seconds_of(event["at"])
        for stay in stays:
            stands = stay.welcomed < at - 0.5 and (not stay.ended or stay.ended > at + 1.5)
            if (
                stands
                and not stay.marked_away
                and _public(stay.user_id, log) == user
                and was_well(stay.node, at - LONG_SECONDS, at + 2)
            ):
                yield f"participant_away {event['seq']} of {user}, who was connected"


def _joins(log: list[Frame], joins: list[AnsweredJoin], withdrawn: Withdrawn) -> Iterator[str]:
    """A join that was answered stands in the log."""
    for join in joins:
        event = log[join.seq - 1] if join.seq <= len(log) else {}
        who = event.get("participant", {})
        stands = event.get("type") == "participant_joined" and who.get("userId") == join.guest_id
        if not stands and not withdrawn.may_hold(join.answered):
            yield (
                f"the join of {join.guest_id} ({join.name}) was answered with seq {join.seq},"
                " not in the log"
            )


def ghosts(
    states: list[EndState], observed: Observations, ends: dict[int, list[float]]
) -> tuple[list[str], int]:
    """Joins that were answered 503 and are in their room all the same; how many are excused.

    A node that ended while it still had to take such a join back could not: those are excused.
    """
    here = {
        (state.room, person["userName"])
        for state in states
        for person in (state.views[0]["participants"] if state.views else ())
        if "leftAt" not in person
    }
    broken, excused = [], 0
    for room, name, node, when in observed.refused:
        if (room, name) not in here:
            continue
        if any(0 < end - when < END_HIDES_UNDO_SECONDS for end in ends[node]):
            excused += 1
        else:
            broken.append(f"{room}: the join of {name} was answered 503, and is in the room")
    return broken, excused


def lateness(log: list[Frame]) -> float:
    """By how many seconds the latest departure came after its deadline."""
    deadline: dict[str, float] = {}
    worst = 0.0
    for event in log:
        user = event.get("participant", {}).get("userId", "")
        if event["type"] == "participant_away":
            deadline[user] = seconds_of(event["leaveAt"])
        elif event["type"] == "participant_left" and event["reason"] == "disconnected":
            worst = max(worst, seconds_of(event["at"]) - deadline.get(user, float("inf")))
    return worst


def _public(user_id: str, log: list[Frame]) -> str:
    """The host is known to its clients as `host`."""
    return log[0]["participant"]["userId"] if user_id == "host" and log else user_id


def _event(frame: Frame) -> Event:
    data = {k: v for k, v in frame.items() if k not in ("type", "roomId", "seq", "at")}
    return Event(FeedKey(ROOM, frame["roomId"]), frame["seq"], frame["type"], frame["at"], data)

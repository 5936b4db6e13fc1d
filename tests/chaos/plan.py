"""What breaks, when, and for how long: the plan follows from the seed and the mode alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

AT_ONCE = 2
"""Faults that may overlap."""

Kinds = dict[str, tuple[int, float, float]]
"""Kind -> how often, and the range of its duration in seconds."""

NODES: Kinds = {
    "node killed": (4, 0.3, 6),
    "node frozen": (4, 1, 14),
    "node drained": (2, 0.3, 3),
    "every node killed": (1, 0.3, 4),
}
NODES_POSTGRES: Kinds = {
    "node cut from Postgres": (2, 1, 14),
    "node's Postgres hung": (2, 1, 14),
}
NODES_REDIS: Kinds = {
    "node cut from Redis": (1, 1, 8),
    "node's Redis hung": (1, 1, 8),
}
REDIS: Kinds = {
    "Redis killed": (3, 0.3, 8),
    "Redis hung": (2, 1, 9),
    "Redis flushed": (1, 0, 0),
}
POSTGRES: Kinds = {
    "Postgres killed": (2, 0.2, 4),
    "Postgres restarted": (1, 0.2, 10),
    "Postgres hung": (2, 0.5, 8),
}
POWER: Kinds = {"power cut": (1, 0.3, 4)}
OPERATORS: Kinds = {
    "node's log at its limit": (2, 3, 15),
    "node's Redis is another": (2, 5, 25),
    "Postgres password rotated": (1, 0.5, 8),
    "Postgres lets nobody in": (1, 0.5, 8),
    "Postgres disk full": (2, 1, 8),
    "Postgres table locked": (1, 0.5, 6),
    "Postgres clock jumped back": (2, 3, 12),
    "room locked": (2, 1, 10),
    "purge locked": (1, 25, 45),
}
"""What people and machines do to servers that go on."""

DEFAULT: Kinds = (
    NODES | NODES_POSTGRES | NODES_REDIS | REDIS | POSTGRES | POWER | OPERATORS
)  # fmt: skip
PROVEN: Kinds = NODES | NODES_POSTGRES | NODES_REDIS | REDIS | POSTGRES | POWER
"""What any deployment and any version must stand."""

HARMLESS = frozenset(("node's log at its limit", "room locked", "purge locked"))
"""No node is less well for it."""

AWAY_AFTER_SECONDS = {
    "Postgres killed": 2.5, "Postgres restarted": 2.5, "Postgres hung": 6.0,
    "Postgres password rotated": 2.5, "Postgres lets nobody in": 2.5,
    "primary killed": 2.5, "primary killed, standby behind": 2.5, "primary hung": 6.0,
    "PgBouncer killed": 2.5,
}  # fmt: skip
"""Postgres is away for everybody, and after so long every node has noticed."""

UNTELLABLE = frozenset(AWAY_AFTER_SECONDS) | {
    "node killed", "node frozen", "node cut from Postgres", "node's Postgres hung",
    "every node killed", "power cut", "Postgres clock jumped back",
}  # fmt: skip
"""Nobody can read the log, the client's node is not there, or the log's times say nothing."""

RECOVERY_SECONDS = 20.0
"""So long a node is watched after a promotion."""

_NODES = frozenset(f"node {number}" for number in range(20))
_SHARED = {"every node killed": _NODES, "power cut": _NODES | {"Postgres", "Redis"}}
_SERVERS = {"primary": "Postgres", "PgBouncer": "Postgres", "shard": "Redis", "sentinel": "Redis"}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something breaks `at` seconds after the start, for `seconds`; `node`: whose, -1 = shared."""

    at: float
    kind: str
    node: int
    seconds: float

    @property
    def end(self) -> float:
        return self.at + self.seconds

    @property
    def victims(self) -> frozenset[str]:
        """What it harms: two faults never harm the same thing at the same time."""
        if self.node >= 0:
            return frozenset((f"node {self.node}",))
        first = self.kind.split()[0]
        return _SHARED.get(self.kind, frozenset((_SERVERS.get(first, first),)))


@dataclass(frozen=True, slots=True)
class Past:
    """A fault as it was: from its beginning until its victim was up again, by the wall clock."""

    kind: str
    node: int
    began: float
    ended: float

    def touches(self, node: int, since: float, until: float) -> bool:
        """True where it harmed a node (or what all share) between two moments."""
        return self.node in (-1, node) and self.began < until and since < self.ended


@dataclass(frozen=True, slots=True)
class Recovery:
    """A node after a promotion: by the wall clock, when it said `ready` again (inf: not in time).
    """

    kind: str
    node: int
    promoted: float
    ready: float

    @property
    def seconds(self) -> float:
        return self.ready - self.promoted

    def is_excused(self, past: Sequence[Past]) -> bool:
        """True where something else harmed the node, or what all share, meanwhile."""
        until = min(self.ready, self.promoted + RECOVERY_SECONDS)
        return any(
            fault.kind not in HARMLESS
            and fault.touches(self.node, self.promoted - 10, until)
            and not (fault.kind == self.kind and fault.began < self.promoted < fault.ended)
            for fault in past
        )


def plan(seed: int, seconds: float, nodes: int, kinds: Kinds = DEFAULT) -> list[Fault]:
    """The faults of a run, by their time; all have ended when it does."""
    rng = random.Random(seed)
    names, weights = list(kinds), [weight for weight, _, _ in kinds.values()]
    faults: list[Fault] = []
    at = rng.uniform(1, 3)
    while at < seconds:
        kind = rng.choices(names, weights)[0]
        _, least, most = kinds[kind]
        node = rng.randrange(nodes) if kind.startswith("node") else -1
        fault = Fault(at, kind, node, rng.uniform(least, most))
        under_way = [one for one in faults if one.end + 1 > at]
        if (
            len([one for one in under_way if one.kind not in HARMLESS]) < AT_ONCE
            and not any(fault.victims & one.victims for one in under_way)
            and fault.end < seconds
        ):
            faults.append(fault)
        at += rng.uniform(0.5, 5)
    return faults

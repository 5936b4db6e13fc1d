"""The deployments that chaos knows, each with what can happen to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.chaos.faults import Harm
from tests.chaos.plan import (
    DEFAULT,
    NODES,
    NODES_POSTGRES,
    NODES_REDIS,
    OPERATORS,
    POSTGRES,
    PROVEN,
    REDIS,
    Kinds,
)
from tests.chaos.pooled import POOLER_FAULTS, PooledSite, PoolerHarm
from tests.chaos.redis_kinds import (
    CLUSTER_FAULTS,
    SENTINEL_FAULTS,
    ClusterHarm,
    ClusterSite,
    SentinelHarm,
    SentinelSite,
)
from tests.chaos.site import Site
from tests.chaos.standby import (
    FAILOVERS,
    SYNCHRONOUS_FAILOVERS,
    StandbyHarm,
    StandbySite,
    SynchronousSite,
)
from tests.chaos.versions import VersionsSite

_ON_POSTGRES: Kinds = {
    kind: often for kind, often in OPERATORS.items() if "Redis" not in kind
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mode:
    """A deployment, who harms it, and how."""

    about: str
    site: type[Site]
    harm: Callable[[Any], Harm]
    kinds: Kinds


MODES = {
    "default": Mode("one PostgreSQL, one Redis", Site, Harm, DEFAULT),
    "standby": Mode(
        "a primary with an asynchronous standby",
        StandbySite, StandbyHarm, NODES | NODES_POSTGRES | NODES_REDIS | REDIS | FAILOVERS,
    ),
    "synchronous-standby": Mode(
        "a primary with a synchronous standby",
        SynchronousSite, StandbyHarm,
        NODES | NODES_POSTGRES | NODES_REDIS | REDIS | SYNCHRONOUS_FAILOVERS,
    ),
    "sentinel": Mode(
        "Redis behind Sentinel",
        SentinelSite, SentinelHarm,
        NODES | NODES_POSTGRES | POSTGRES | _ON_POSTGRES | SENTINEL_FAULTS,
    ),
    "cluster": Mode(
        "Redis Cluster",
        ClusterSite, ClusterHarm, NODES | NODES_POSTGRES | POSTGRES | _ON_POSTGRES | CLUSTER_FAULTS,
    ),
    "pgbouncer": Mode(
        "PgBouncer in transaction mode",
        PooledSite, PoolerHarm,
        NODES | NODES_POSTGRES | NODES_REDIS | POSTGRES | REDIS | OPERATORS | POOLER_FAULTS,
    ),
    "versions": Mode("a node of the release before beside today's", VersionsSite, Harm, PROVEN),
}  # fmt: skip

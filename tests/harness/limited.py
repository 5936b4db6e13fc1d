"""Nodes whose limits are exact: Redis has told each of their requests how many came before it.

A node counts for itself, and so may admit more or fewer, where Redis does not answer within a
quarter of a second: the product's promise, and a busy test machine's everyday.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from redis import Redis

from coordinator import redis as redis_module
from coordinator.web import limits, shared_windows
from tests.harness.node import Deployment, NodeProcess
from tests.harness.patience import patient

TRIES = 10


def wait_for_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, too, a busy machine is not a dead Redis: it may take seconds."""
    for module in (limits, shared_windows, redis_module):
        monkeypatch.setattr(module, "REDIS_SECONDS", patient(5))


def limited_nodes(
    deployment: Deployment, settings: Mapping[str, str] | None = None, *,
    first: NodeProcess | None = None,
) -> Iterator[NodeProcess]:  # fmt: skip
    """A node to try limits on, then another, until one has had Redis's answer each time.

    What was tried last is to be judged. Every node but `first` finds its windows empty.
    """
    for _ in range(TRIES):
        if first and first.is_running:
            node = first
        else:
            _empty_windows(deployment.redis_url)
            node = deployment.node(**settings or {})
        yield node
        if "limits_counted_locally" not in node.logs():
            return
        node.stop()


def _empty_windows(redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        for kind in ("limits", "windows"):
            for key in redis.scan_iter(f"*:{kind}:*"):
                redis.delete(key)

"""Two servers behind one name of Redis: both sides find it out, and nothing is late for ever."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from coordinator.store.database import Database
from tests.harness.node import Deployment, NodeProcess
from tests.harness.observing import comes_true
from tests.harness.people import Api, Guest, Host
from tests.harness.promises import logged, wall_clock
from tests.harness.valkeys import Valkey, asked, ended

pytestmark = pytest.mark.timeout(120)

SPLIT_SECONDS = 15.0


@pytest.fixture
def halves() -> Iterator[list[Valkey]]:
    """Two servers that know nothing of each other."""
    folder = Path(tempfile.mkdtemp(prefix="valkeys-"))
    servers = [Valkey(folder, "--save", "") for _ in range(2)]
    with ended(servers):
        yield servers
    shutil.rmtree(folder, ignore_errors=True)


async def counts_redis_as_down(api: Api) -> bool:
    return bool((await api.get("/health/ready")).json()["redis"] != "ok")


def last_verdict_at(node: NodeProcess) -> float:
    """When the node last changed its mind about Redis; 0 where it has always taken it for down."""
    verdicts = [each for each in node.lines() if each["event"] in ("redis_up", "redis_down")]
    return wall_clock(verdicts[-1]["timestamp"]) if verdicts else 0.0


async def test_a_split_redis_counts_as_down_on_both_sides(
    lonely_database: Database, halves: list[Valkey]
) -> None:
    urls = [f"redis://127.0.0.1:{half.port}/0" for half in halves]
    for half in halves:
        await asked(half, "PING")
    with Deployment(lonely_database.url, urls[0]) as deployment:
        one = Api(await asyncio.to_thread(deployment.node))
        other = Api(await asyncio.to_thread(deployment.node, REDIS_URL=urls[1]))
        started = max([await logged(api.node, "node_started", after=0) for api in (one, other)])
        for api in (one, other):
            await comes_true(partial(counts_redis_as_down, api), 30)
            assert last_verdict_at(api.node) - started < SPLIT_SECONDS

        host = await Host.hired(lonely_database, one)
        room = await host.creates()
        watching = [await host.connects(room, at=api) for api in (one, other)]
        for api in (one, other):
            guest = await Guest(api).joins(room)
            for live in watching:
                await live.sees("participant_joined", 2.3, user_id=guest.user_id)
        for api in (one, other):
            await api.aclose()


async def test_a_node_that_was_just_killed_makes_redis_not_down(
    lonely_database: Database, halves: list[Valkey]
) -> None:
    """Also where it was the judge: another node takes that over."""
    await asked(halves[0], "PING")
    with Deployment(lonely_database.url, f"redis://127.0.0.1:{halves[0].port}/0") as deployment:
        nodes = [await asyncio.to_thread(deployment.node) for _ in range(3)]
        api = Api(nodes[2])
        while (await api.get("/health/ready")).json()["redis"] != "ok":  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        for dying in nodes[:2]:
            dying.kill()
            until = time.monotonic() + 8
            while time.monotonic() < until:
                assert (await api.get("/health/ready")).json()["redis"] == "ok"
                await asyncio.sleep(0.1)
        await api.aclose()

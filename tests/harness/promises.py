"""Promises about time, read from the clock of the one who promises.

A test on a busy machine looks late; what it looks at says when it happened: a node's log lines and
its histograms, an event's `at` and the rows of Postgres. All are on this machine's wall clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from tests.harness.node import NodeProcess
from tests.harness.observing import metrics
from tests.harness.patience import patient
from tests.harness.people import Api

ANSWERED = "coordinator_http_request_seconds"
DELIVERED = "coordinator_delivery_seconds"


def wall_clock(text: str) -> float:
    """A time as the API or a log line prints it, in seconds of the wall clock."""
    return datetime.fromisoformat(text).timestamp()


async def logged(node: NodeProcess, event: str, *, after: float) -> float:
    """When the node first logged `event` after a moment; waits until it has.

    Both are seconds of the wall clock.
    """
    deadline = time.monotonic() + patient(30)
    while True:
        for line in node.lines():
            if line.get("event") == event and wall_clock(line["timestamp"]) >= after:
                return wall_clock(line["timestamp"])
        assert time.monotonic() < deadline, f"{event} was not logged:\n{node.logs()[-3000:]}"
        await asyncio.sleep(0.05)


def starved_seconds(pid: int) -> float:
    """How long the main thread of a process, in its life, was ready to run and had no core.

    That is the machine's fault and not the product's, and does not count in what is promised. 0
    where the system does not tell it (Linux does: `schedstat`).
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


@asynccontextmanager
async def answers_within(seconds: float, *apis: Api) -> AsyncIterator[None]:
    """By its own clock no node takes longer over an answer; `seconds` is a bucket of its metric."""
    async with _within(ANSWERED, seconds, apis):
        yield


@asynccontextmanager
async def deliveries_within(seconds: float, *apis: Api) -> AsyncIterator[None]:
    """By its own clock no node takes longer from an event's commit to writing it to the room;
    `seconds` is a bucket of its metric.
    """
    async with _within(DELIVERED, seconds, apis):
        yield


@asynccontextmanager
async def _within(name: str, seconds: float, apis: tuple[Api, ...]) -> AsyncIterator[None]:
    before = [await _slower(api, name, seconds) for api in apis]
    yield
    after = [await _slower(api, name, seconds) for api in apis]
    assert after == before, f"slower than {seconds:g} s: {name}"


async def _slower(api: Api, name: str, seconds: float) -> float:
    """How many took longer, since the node started."""
    found = await metrics(api)
    return found[f"{name}_count"] - found[f'{name}_bucket{{le="{float(seconds)}"}}']


async def seconds_answering(api: Api) -> float:
    """How long the node has been over its answers, since it started."""
    return (await metrics(api))[f"{ANSWERED}_sum"]

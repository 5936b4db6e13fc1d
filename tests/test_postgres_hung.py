"""Postgres hangs: every caller hears 503 within 5 s, however many there are.

Read from the node's own log, which says how long each request took: the client of these tests is
slower than the node where the machine is busy. Time in which the node had no core does not count.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any

import pytest
import pytest_asyncio

from tests.harness.cluster import Cluster, ClusterNode
from tests.harness.http_lines import HttpLine, Lines, exchange
from tests.harness.patience import patient
from tests.harness.people import new_room_id
from tests.harness.promises import starved_seconds

CALLERS = 300
PROMISED_MS = 5000


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster(nodes=1, grace=30, LOG_LEVEL="debug", LOG_FORMAT="json") as started:
        yield started


def answered(node: ClusterNode) -> list[dict[str, Any]]:
    """The node's lines about requests to the API."""
    found = []
    for line in node.logs().splitlines():
        if '"event":"request"' in line.replace(" ", ""):
            told = json.loads(line)
            if told["path"].startswith("/api/") or told["path"] == "/health/ready":
                found.append(told)
    return found


def calls(node: ClusterNode, room: str, token: str) -> Iterator[bytes]:
    """Requests of every kind, in turn."""
    as_bytes = Lines([node.address]).request
    while True:
        body = {"roomId": new_room_id(), "roomName": "r", "hostName": "h"}
        yield as_bytes(
            "POST", "/api/interview/guest/join", {"roomId": room, "userName": "李明"}
        )
        yield as_bytes("GET", f"/api/interview/room/{room}")
        yield as_bytes("GET", "/api/interview/rooms", token=token)
        yield as_bytes("POST", "/api/interview/create-room", body, token)
        yield as_bytes("GET", f"/api/interview/room/{room}/participants")
        yield as_bytes("GET", "/health/ready")


async def status_of(node: ClusterNode, request: bytes) -> int:
    """What a caller with a connection of its own hears; 0: it was hung up on."""
    line = await HttpLine.open(node.address)
    try:
        status, _ = await exchange(line, request, within=patient(60))
    finally:
        line.close()
    return status


@pytest.mark.timeout(120)
async def test_300_callers_hear_503_within_5_s_while_postgres_hangs(cluster: Cluster) -> None:
    (node,) = cluster.nodes
    operator = Lines([node.address])
    room = new_room_id()
    body = {"roomId": room, "roomName": "r", "hostName": "h"}
    await operator.ask("POST", "/api/interview/create-room", body, token=cluster.token)
    requests = list(islice(calls(node, room, cluster.token), CALLERS))

    starved = starved_seconds(node.process.pid)
    cluster.signal_postgres(signal.SIGSTOP)
    try:
        before = len(answered(node))
        statuses = await asyncio.gather(*(status_of(node, request) for request in requests))
    finally:
        cluster.signal_postgres(signal.SIGCONT)

    assert set(statuses) == {503}
    async with asyncio.timeout(patient(10)):
        while len(lines := answered(node)[before:]) < CALLERS:  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # a line is written after its answer
    slowest = max(lines, key=lambda line: float(line["ms"]))
    starved = starved_seconds(node.process.pid) - starved
    assert slowest["ms"] - starved * 1000 <= PROMISED_MS, slowest
    look = Lines([node.address]).request("GET", f"/api/interview/room/{room}")
    async with asyncio.timeout(patient(30)):  # and it serves again by itself
        while await status_of(node, look) != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    operator.close()

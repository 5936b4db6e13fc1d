"""Postgres hangs: every caller hears 503 within 5 s, however many there are.

Read from the node's own log, which says how long each request took: the client of these tests is
slower than the node where the machine is busy.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.harness.cluster import Cluster, ClusterNode
from tests.harness.patience import patient
from tests.harness.people import bearer, new_room_id

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


@pytest.mark.timeout(120)
async def test_300_callers_hear_503_within_5_s_while_postgres_hangs(cluster: Cluster) -> None:
    (node,) = cluster.nodes
    room = new_room_id()
    join = {"roomId": room, "userName": "李明"}
    async with httpx.AsyncClient(
        base_url=node.url, trust_env=False, timeout=patient(60),
        limits=httpx.Limits(max_connections=CALLERS + 10),
    ) as http:  # fmt: skip
        made = await http.post(
            "/api/interview/create-room",
            json={"roomId": room, "roomName": "r", "hostName": "h"}, headers=bearer(cluster.token),
        )  # fmt: skip
        assert made.status_code == 200

        def call(number: int) -> Any:
            match number % 6:
                case 0:
                    return http.post("/api/interview/guest/join", json=join)
                case 1:
                    return http.get(f"/api/interview/room/{room}")
                case 2:
                    return http.get("/api/interview/rooms", headers=bearer(cluster.token))
                case 3:
                    body = {"roomId": new_room_id(), "roomName": "r", "hostName": "h"}
                    return http.post(
                        "/api/interview/create-room", json=body, headers=bearer(cluster.token)
                    )
                case 4:
                    return http.get(f"/api/interview/room/{room}/participants")
                case _:
                    return http.get("/health/ready")

        async def answer(number: int) -> httpx.Response:
            try:
                return await call(number)  # type: ignore[no-any-return]
            except httpx.RemoteProtocolError:
                # This process had no core for the 10 s in which a connection may say nothing.
                return await call(number)  # type: ignore[no-any-return]

        cluster.signal_postgres(signal.SIGSTOP)
        try:
            before = len(answered(node))
            answers = await asyncio.gather(*map(answer, range(CALLERS)))
        finally:
            cluster.signal_postgres(signal.SIGCONT)

        assert {answer.status_code for answer in answers} == {503}
        async with asyncio.timeout(patient(10)):
            while len(lines := answered(node)[before:]) < CALLERS:  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # a line is written after its answer
        slowest = max(lines, key=lambda line: float(line["ms"]))
        assert slowest["ms"] <= patient(PROMISED_MS), slowest
        async with asyncio.timeout(patient(30)):  # and it serves again by itself
            while (await http.get(f"/api/interview/room/{room}")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.2)

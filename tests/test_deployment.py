"""What an operator is told of the nodes, whichever of them is asked."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from coordinator.live.reporter import _p99
from tests.harness.node import Deployment, data
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host, refusal

PATH = "/api/console/deployment"


async def told(api: Api, admin: Host) -> Any:
    return data(await api.get(PATH, admin.token))


async def until(api: Api, admin: Host, holds: Any, patience: float = 15.0) -> Any:
    """Asks until `holds` of the answer."""
    deadline = time.monotonic() + patient(patience)
    while not holds(answer := await told(api, admin)):
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.3)
    return answer


def is_well(node: Any) -> bool:
    return (node.get("redis"), node.get("postgres")) == ("ok", "ok")


def node_named(answer: Any, node_epoch: str) -> Any:
    return next((node for node in answer["nodes"] if node["node"] == node_epoch), {})


async def test_every_node_tells_of_every_node(a: Api, b: Api, admin: Host) -> None:
    epochs = [(await api.get("/health/ready")).json()["node"] for api in (a, b)]

    for api in (a, b):
        answer = await until(
            api, admin, lambda told: all(is_well(node_named(told, e)) for e in epochs)
        )
        assert answer["epoch"]
        for epoch in epochs:
            node = node_named(answer, epoch)
            assert node["version"] == "1.0.0"
            assert node["epoch"] == answer["epoch"]
            assert node["connections"] >= 0
            assert node["rooms"] >= 0
            assert node["isDraining"] is False
            assert node["since"] <= answer["now"]


async def test_connections_and_rooms_are_counted_where_they_are(
    a: Api, admin: Host, room: str
) -> None:
    epoch = (await a.get("/health/ready")).json()["node"]
    guest = await Guest(a).joins(room)
    await guest.connects()

    answer = await until(
        a, admin, lambda told: node_named(told, epoch).get("connections", 0) >= 1
    )
    assert node_named(answer, epoch)["rooms"] >= 1


async def test_it_is_for_admins(a: Api, host: Host, room: str) -> None:
    guest = await Guest(a).joins(room)

    assert refusal(await a.get(PATH)) == (401, "UNAUTHORIZED")
    assert refusal(await a.get(PATH, guest.token)) == (401, "UNAUTHORIZED")
    assert refusal(await a.get(PATH, host.token)) == (403, "FORBIDDEN")


async def test_a_killed_node_is_missing_and_one_that_ended_in_order_is_not(
    a: Api, admin: Host, deployment: Deployment
) -> None:
    nodes = [deployment.node(), deployment.node()]
    epochs = []
    for node in nodes:
        api = Api(node)
        epochs.append((await api.get("/health/ready")).json()["node"])
        await api.aclose()
    await until(a, admin, lambda told: all(node_named(told, epoch) for epoch in epochs))

    await asyncio.to_thread(nodes[0].stop)
    await asyncio.to_thread(nodes[1].kill)

    answer = await until(
        a, admin, lambda told: epochs[1] in {node["node"] for node in told["gone"]}, 25
    )
    assert not any(node_named(answer, epoch) for epoch in epochs)
    assert epochs[0] not in {node["node"] for node in answer["gone"]}


async def test_a_node_that_has_lost_redis_says_so(
    a: Api, admin: Host, deployment: Deployment
) -> None:
    alone = Api(deployment.node(REDIS_URL="redis://127.0.0.1:1/0"))
    epoch = (await alone.get("/health/ready")).json()["node"]

    answer = await until(
        a, admin, lambda told: node_named(told, epoch).get("redis") == "down"
    )
    await alone.aclose()

    assert "redisMs" not in node_named(answer, epoch)


async def test_the_last_minutes_come_as_lines_of_figures(
    a: Api, admin: Host
) -> None:
    epoch = (await a.get("/health/ready")).json()["node"]
    answer = await until(a, admin, lambda told: node_named(told, epoch).get("history"), 20)

    for line in node_named(answer, epoch)["history"]:
        at, *figures = line
        assert abs(time.time() - at) < 700
        assert len(figures) == 6


def test_the_99th_of_100_deliveries_is_found_between_the_limits_of_its_bucket() -> None:
    inf = float("inf")
    nothing = [(0.001, 0.0), (0.01, 0.0), (inf, 0.0)]

    assert _p99(nothing, nothing) is None
    assert _p99(nothing, [(0.001, 100.0), (0.01, 100.0), (inf, 100.0)]) == 0.99
    assert _p99(nothing, [(0.001, 98.0), (0.01, 100.0), (inf, 100.0)]) == 5.5
    assert _p99(nothing, [(0.001, 0.0), (0.01, 0.0), (inf, 5.0)]) == 10.0
    earlier = [(0.001, 0.0), (0.01, 50.0), (inf, 50.0)]
    assert _p99(earlier, [(0.001, 10.0), (0.01, 60.0), (inf, 60.0)]) == 0.99

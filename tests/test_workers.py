"""Several workers on one port."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.harness.node import Deployment
from tests.harness.observing import listens
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host


async def test_workers_share_a_port_are_nodes_each_and_are_replaced(
    a: Api, admin: Host, deployment: Deployment, room: str
) -> None:
    node = deployment.node("--workers", "2")
    api = Api(node)
    first = await _workers(api, 2)
    lives = await asyncio.gather(*(admin.connects(room, at=api) for _ in range(8)))
    guest = await Guest(a).joins(room)
    for live in lives:
        await live.sees("participant_joined", user_id=guest.user_id)

    os.kill(first[0], signal.SIGKILL)
    workers = await _workers(api, 3)
    status = await asyncio.to_thread(node.stop)

    assert status == 0
    codes = [live.frames[-1].get("code") for live in lives if live.frames[-1]["type"] == "bye"]
    assert set(codes) <= {4200}
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    await api.aclose()


async def test_a_supervisor_that_is_asked_hands_the_question_on(deployment: Deployment) -> None:
    """By itself SIGUSR1 would end it, and its workers with it."""
    node = deployment.node("--workers", "2")
    api = Api(node)
    workers = await _workers(api, 2)

    node.signal(signal.SIGUSR1)

    async with asyncio.timeout(patient(15)):
        while len([line for line in node.lines() if line["event"] == "inspected"]) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert await _workers(api, 2) == workers
    assert await asyncio.to_thread(node.stop) == 0
    await api.aclose()


async def test_a_signal_to_the_whole_group_is_one_to_each_worker(
    admin: Host, deployment: Deployment, room: str
) -> None:
    """Ctrl-C reaches the workers themselves, and their supervisor then tells them once more."""
    node = deployment.node("--workers", "2", DRAIN_SECONDS="2")
    api = Api(node)
    workers = await _workers(api, 2)
    lives = await asyncio.gather(*(admin.connects(room, at=api) for _ in range(4)))

    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    node.terminate()

    for live in lives:
        assert await live.is_put_out() == 4200
    assert await asyncio.to_thread(node.process.wait, patient(15)) == 0
    assert len([line for line in node.lines() if line["event"] == "node_stopped"]) == 2
    await api.aclose()


async def test_a_second_signal_ends_workers_that_drain(deployment: Deployment) -> None:
    node = deployment.node("--workers", "2", DRAIN_SECONDS="300")
    api = Api(node)
    workers = await _workers(api, 2)

    async with asyncio.timeout(patient(15)):
        while node.is_running:  # signals closer together than a second are one
            node.terminate()
            await asyncio.sleep(1.5)

    assert node.process.wait() == 0
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    await api.aclose()


async def test_workers_whose_supervisor_was_killed_drain_and_give_the_port_back(
    deployment: Deployment,
) -> None:
    node = deployment.node("--workers", "2", DRAIN_SECONDS="0")
    api = Api(node)
    await _workers(api, 2)

    node.kill()

    async with asyncio.timeout(patient(15)):
        while await listens(node.port):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await api.aclose()


async def _workers(api: Api, count: int) -> list[int]:
    """The process ids of the workers that were ever ready, once there are so many."""
    async with asyncio.timeout(patient(20)):
        while True:
            lines = api.node.lines()
            found = [line["pid"] for line in lines if line["event"] == "node_started"]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)

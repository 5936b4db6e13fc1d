"""No essential task goes silently: what is safe is started again, else the process ends."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from coordinator import essential_tasks
from coordinator.essential_tasks import EssentialTask, EssentialTasks
from tests.harness.node import Deployment
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host
from tests.harness.promises import logged


class EndingTask:
    """A task that ends when and how the test wants."""

    def __init__(self) -> None:
        self.starts = 0
        self.fate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_started = asyncio.Event()

    async def run(self) -> None:
        self.starts += 1
        self.fate = asyncio.get_running_loop().create_future()
        self.has_started.set()
        await self.fate

    def end(self, how: str, task: asyncio.Task[None] | None) -> None:
        self.has_started.clear()
        if how == "returns":
            self.fate.set_result(None)
        elif how == "fails":
            self.fate.set_exception(RuntimeError("a bug"))
        elif task is not None:
            task.cancel()


@asynccontextmanager
async def watched(
    *, is_restarted: bool
) -> AsyncIterator[tuple[EssentialTasks, EndingTask, asyncio.Event]]:
    work, lost = EndingTask(), asyncio.Event()
    tasks = EssentialTasks([EssentialTask("work", work.run, is_restarted)], lost.set)
    tasks.start()
    async with asyncio.timeout(patient(5)):
        await work.has_started.wait()
        yield tasks, work, lost
    await tasks.end()


WAYS = pytest.mark.parametrize("how", ["returns", "fails", "is cancelled"])


@WAYS
async def test_what_may_be_started_again_is(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(essential_tasks, "RESTART_SECONDS", 0.0)
    async with watched(is_restarted=True) as (tasks, work, lost):
        work.end(how, tasks.task("work"))
        await work.has_started.wait()

        assert work.starts == 2
        assert tasks.lost is None
        assert not lost.is_set()


@WAYS
async def test_the_end_of_any_other_is_told(how: str) -> None:
    async with watched(is_restarted=False) as (tasks, work, lost):
        work.end(how, tasks.task("work"))
        await lost.wait()

        assert work.starts == 1
        assert tasks.lost == "work"


async def test_the_end_of_the_node_is_nobodys_loss() -> None:
    async with watched(is_restarted=False) as (tasks, _, lost):
        await tasks.end()

        assert tasks.lost is None
        assert not lost.is_set()


async def test_a_process_that_is_ended_by_force_ends() -> None:
    """A second signal: every task of the loop is cancelled once, and waited for."""
    async with watched(is_restarted=True) as (tasks, work, _):
        for watch in tasks._watches:
            watch.cancel()
        ended, running = await asyncio.wait(tasks._watches, timeout=patient(2))

        assert (len(ended), len(running)) == (1, 0)
        assert work.starts == 1


PROGRAM = ("-m", "tests.loses_a_task")


@pytest_asyncio.fixture
async def loses(
    deployment: Deployment, host: Host, request: pytest.FixtureRequest
) -> AsyncIterator[Api]:
    """A node that loses the task which the test is about, when it is told to."""
    repository = str(Path(__file__).parent.parent)
    node = await asyncio.to_thread(
        deployment.node, program=PROGRAM, PYTHONPATH=repository, LOSES=request.param
    )
    api = Api(node)
    yield api
    await api.aclose()
    await asyncio.to_thread(node.stop)


@pytest.mark.parametrize("loses", ["writer", "lease"], indirect=True)
async def test_a_node_without_its_writer_or_lease_sends_everybody_away_and_ends(
    loses: Api, a: Api, host: Host
) -> None:
    room = await host.creates()
    live = await host.connects(room, at=loses)

    loses.node.process.send_signal(signal.SIGUSR2)

    assert await live.is_put_out() == 4200
    assert await asyncio.to_thread(loses.node.process.wait, patient(15)) == 1
    assert "essential_task_ended" in loses.node.logs()
    await (await host.connects(room, at=a)).hears_pong()


@pytest.mark.parametrize("loses", ["bus", "hub", "reaper", "reconciler"], indirect=True)
async def test_a_node_goes_on_when_a_task_that_may_be_started_again_dies(
    loses: Api, a: Api, host: Host
) -> None:
    room = await host.creates()
    live = await host.connects(room, at=loses)

    told = time.time()
    loses.node.process.send_signal(signal.SIGUSR2)
    guest = await Guest(a).joins(room)

    await live.sees("participant_joined", 5, user_id=guest.user_id)
    await logged(loses.node, "essential_task_ended", after=told)
    assert '"then": "restarts"' in loses.node.logs()
    assert (await loses.get("/health/ready")).status_code == 200

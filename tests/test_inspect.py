"""A running node seen from its own machine: `inspect`, SIGUSR1, and the metrics of all workers."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coordinator import control_socket
from coordinator.control_socket import ControlSocket, ask, sockets
from tests.harness.node import Deployment
from tests.harness.observing import comes_true
from tests.harness.patience import patient
from tests.harness.people import Api, Host


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for sockets of this test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


async def test_a_process_answers_what_it_knows_and_is_silent_else(runtime: Path) -> None:
    control = ControlSocket({"metrics": lambda: b"some"}, group=1)
    await control.open()
    (path,) = sockets()

    assert await ask(path, "metrics") == b"some"
    assert await ask(path, "anything else") == b""
    await control.close()
    assert sockets() == []
    assert (runtime / "coordinator").stat().st_mode & 0o777 == 0o700


async def test_the_socket_of_a_dead_process_is_taken_away(runtime: Path) -> None:
    control = ControlSocket({}, group=1)
    await control.open()
    assert control._server is not None
    control._server.close()  # as a kill leaves it: the file stays
    path = control_socket.folder() / "1-2.sock"
    control._path.rename(path)

    assert await ask(path, "metrics") is None
    assert sockets() == []


async def test_a_folder_that_others_may_enter_is_not_used(runtime: Path) -> None:
    (runtime / "coordinator").mkdir(mode=0o755)
    (runtime / "coordinator").chmod(0o755)

    control = ControlSocket({}, group=1)
    await control.open()

    assert sockets() == []


async def test_inspect_shows_queues_feeds_leases_and_where_tasks_wait(
    deployment: Deployment, host: Host, runtime: Path
) -> None:
    node = await asyncio.to_thread(deployment.node, XDG_RUNTIME_DIR=str(runtime))
    api = Api(node)
    room = await host.creates()
    await host.connects(room, at=api)

    shown = await asyncio.to_thread(deployment.run, "inspect", XDG_RUNTIME_DIR=str(runtime))
    node.process.send_signal(signal.SIGUSR1)

    assert shown.returncode == 0
    for words in (f"process {node.process.pid}", "queued", "connections            1",
                  "open feeds             1", "lease: ", "writer: "):  # fmt: skip
        assert words in shown.stdout, shown.stdout
    async with asyncio.timeout(patient(5)):
        while '"inspected"' not in node.logs():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    (line,) = [line for line in node.logs().splitlines() if '"inspected"' in line]
    assert "open feeds" in json.loads(line)["page"]
    await api.aclose()


async def test_inspect_without_a_node_is_one_sentence(
    deployment: Deployment, runtime: Path
) -> None:
    shown = await asyncio.to_thread(deployment.run, "inspect", XDG_RUNTIME_DIR=str(runtime))

    assert shown.returncode == 1
    assert shown.stderr.startswith("coordinator: no node")


async def test_metrics_are_of_all_workers_whichever_answers(
    deployment: Deployment, runtime: Path
) -> None:
    node = await asyncio.to_thread(
        deployment.node, "--workers", "2", XDG_RUNTIME_DIR=str(runtime)
    )
    async with asyncio.timeout(patient(20)):
        while len(sockets()) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    api = Api(node)

    async def has_both() -> bool:
        """A sibling that does not answer within a second is absent from an answer."""
        text = (await api.get("/metrics")).text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        samples = families["coordinator_redis_up"].samples
        workers = {sample.labels.get("worker", "") for sample in samples}
        return workers == {path.stem.partition("-")[2] for path in sockets()}

    await comes_true(has_both)
    await api.aclose()

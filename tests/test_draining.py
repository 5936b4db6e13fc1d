"""Nodes that are told to end: everybody is sent elsewhere, in time."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path

import httpx
import pytest

from coordinator.standins.wechat import WechatStandin
from coordinator.store.database import Database
from tests.harness.node import Deployment, NodeProcess
from tests.harness.observing import comes_true, listens
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host
from tests.harness.promises import logged, wall_clock


async def test_sigterm_sends_everybody_elsewhere_and_ends_with_0_in_time(
    a: Api, deployment: Deployment, database: Database
) -> None:
    leaving = Api(deployment.node(DRAIN_SECONDS="4"))
    host = await Host.hired(database, a)
    room = await host.creates()
    watching = await host.connects(room)
    guests = [await Guest(leaving).joins(room) for _ in range(20)]
    lives = [await guest.connects(leaving) for guest in guests]
    silent = await leaving.watch(room, None)

    asked = time.time()
    leaving.node.terminate()
    await comes_true(partial(_is_unready, leaving))
    assert (await leaving.room(room))["status"] == "active"
    assert await (await leaving.watch(room, host.token)).is_put_out() == 4200
    for live in lives:
        assert await live.is_put_out() == 4200
        assert 0 <= live.frames[-1]["afterMs"] <= 2000
    back = [
        await guest.connects(a, since=live.seq) for guest, live in zip(guests, lives, strict=True)
    ]
    status = await asyncio.to_thread(leaving.node.process.wait, patient(10))

    assert status == 0
    assert await logged(leaving.node, "node_stopped", after=asked) - asked < 4 + 5
    with pytest.raises(ConnectionRefusedError):
        await leaving.watch(room, host.token)
    await silent.until(lambda: silent.code is not None)
    log = await host.log(room)
    await watching.reaches(len(log))
    went = [wall_clock(e["at"]) for e in log if e["type"] == "participant_away"]
    assert len(went) == 20
    assert min(went) - asked >= 2
    assert 1 < max(went) - min(went) < 2.5
    assert "participant_left" not in {event["type"] for event in watching.history}
    assert set(watching.people.values()) == {"online"}
    assert len(back) == 20
    rows = await database.fetchval("SELECT count(*) FROM nodes WHERE name LIKE $1",
                                   f"%:{leaving.node.process.pid}")  # fmt: skip
    assert rows == 0
    await leaving.aclose()


async def test_a_node_that_ends_says_nothing_of_trouble(deployment: Deployment) -> None:
    """An operator who is woken by `redis_down` sleeps through a rolling restart."""
    ending = deployment.node(DRAIN_SECONDS="1").wait_ready()
    began = await logged(ending, "redis_up", after=0)

    ending.terminate()

    await logged(ending, "node_stopped", after=began)
    since = [line for line in ending.lines() if wall_clock(line["timestamp"]) > began]
    assert [each["event"] for each in since if each["level"] in ("warning", "error")] == []


async def test_a_second_signal_does_not_wait_and_is_no_fault(deployment: Deployment) -> None:
    ending = deployment.node(DRAIN_SECONDS="300").wait_ready()

    ending.terminate()
    await comes_true(lambda: asyncio.to_thread(lambda: not ending.health()))
    ending.terminate()

    assert await asyncio.to_thread(ending.process.wait, patient(10)) == 0
    assert [each for each in ending.lines() if each["level"] == "error"] == []


async def test_a_terminal_that_closes_drains_as_sigterm_does(
    deployment: Deployment, tmp_path: Path
) -> None:
    """SIGHUP; who has it ignored (`nohup`) hands that on, and these tests may be run so."""
    as_usual = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    under = (sys.executable, "-c", as_usual + "os.execv(sys.argv[1], sys.argv[1:])")
    ending = NodeProcess(tmp_path / "log", under=under)
    ending.start(deployment.env(DRAIN_SECONDS="0")).wait_ready()
    asked = time.time()

    ending.signal(signal.SIGHUP)

    assert await asyncio.to_thread(ending.process.wait, patient(10)) == 0
    await logged(ending, "node_stopped", after=asked)


async def _is_unready(api: Api) -> bool:
    return (await api.get("/health/ready")).status_code == 503


async def test_a_node_ends_in_time_while_redis_hangs(deployment: Deployment) -> None:
    """Redis takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        node = deployment.node(REDIS_URL=f"redis://127.0.0.1:{port}/0")
        ready = (await Api(node).get("/health/ready")).json()
        assert (ready["status"], ready["redis"]) == ("degraded", "down")

        asked = time.time()
        status = await asyncio.to_thread(node.stop)

    assert status == 0
    assert await logged(node, "node_stopped", after=asked) - asked < 1 + 5


async def test_requests_under_way_are_answered_while_a_node_ends(
    a: Api, deployment: Deployment, room: str
) -> None:
    leaving = Api(deployment.node())

    asked = [asyncio.create_task(Guest(leaving).asks_to_join(room)) for _ in range(40)]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    leaving.node.terminate()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    status = await asyncio.to_thread(leaving.node.process.wait, patient(10))

    assert status == 0
    answered = [each for each in answers if isinstance(each, httpx.Response)]
    joined = [each for each in answered if each.status_code == 200]
    assert {each.status_code for each in answered} <= {200, 503}
    people = (await a.room(room))["participants"]
    ids = {person["userId"] for person in people}
    assert {each.json()["data"]["guestId"] for each in joined} <= ids
    await leaving.aclose()


async def test_a_request_that_the_end_cuts_short_is_told_so(deployment: Deployment) -> None:
    """WeChat hangs; the node waits some seconds for its own requests, and no longer."""
    with WechatStandin() as standin:
        standin.misbehave("jscode2session", hang=30)
        node = deployment.node(
            WX_APPID=standin.appid, WX_SECRET=standin.secret, WX_API_BASE=standin.url,
            DRAIN_SECONDS="0",
        )  # fmt: skip
        async with httpx.AsyncClient(base_url=node.url, timeout=patient(30)) as client:
            login = asyncio.create_task(client.post("/api/wechat/login", json={"code": "081x"}))
            await comes_true(partial(_is_asked, standin))
            node.terminate()
            answer = await login

    assert (answer.status_code, answer.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert "Exception in ASGI application" not in node.logs()


async def _is_asked(standin: WechatStandin) -> bool:
    return bool(standin.calls["jscode2session"])


async def test_who_has_connected_before_the_end_is_answered(deployment: Deployment) -> None:
    """A proxy connects for each request: the node ends between the two, and waits for a second. On
    a busy machine this test may be later than that, but hardly three times.
    """
    answers = [await _asked_after_the_end(deployment.node(DRAIN_SECONDS="0"))]
    while answers[-1] == b"" and len(answers) < 3:
        answers.append(await _asked_after_the_end(deployment.node(DRAIN_SECONDS="0")))

    assert answers[-1].startswith(b"HTTP/1.1 200 ")


async def _asked_after_the_end(node: NodeProcess) -> bytes:
    """What is answered to a connection that was made before the node was told to end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    async with httpx.AsyncClient(base_url=node.url, timeout=patient(5)) as client:
        assert (await client.get("/health/live")).status_code == 200  # both are accepted
    node.terminate()
    await comes_true(partial(_refuses, node.port))
    writer.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def _refuses(port: int) -> bool:
    return not await listens(port)

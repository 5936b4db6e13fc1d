"""Too many connections, too many frames, too little reading."""

from __future__ import annotations

import asyncio
import socket
from contextlib import aclosing

from websockets.asyncio.client import connect

from coordinator.store.database import Database
from tests.harness.limited import limited_nodes
from tests.harness.node import Deployment
from tests.harness.observing import comes_true, metrics
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host, Live, bearer


async def test_so_many_connections_per_node_and_so_many_failures_per_client(
    a: Api, deployment: Deployment, host: Host, room: str
) -> None:
    """Who has a valid token is not counted: after a node's death everybody comes back at once."""
    settings = {"LIVE_MAX_CONNECTIONS": "2", "RATE_LIMITS": "live=3/hour"}
    for node in limited_nodes(deployment, settings):
        async with aclosing(Api(node)) as narrow:
            lives = [await host.connects(room, at=narrow) for _ in range(2)]

            assert await (await narrow.watch(room, host.token)).is_put_out() == 4100
            for live in lives:
                await live.hangs_up()
            codes = [await (await narrow.watch(room, "broken")).is_put_out() for _ in range(5)]
            await (await host.connects(room, at=narrow)).hangs_up()

    assert codes == [4301, 4301, 4301, 4102, 4102]


async def test_places_are_taken_before_anything_is_waited_for(
    deployment: Deployment, host: Host, room: str
) -> None:
    narrow = Api(deployment.node(LIVE_MAX_CONNECTIONS="3"))
    waiting = [await narrow.watch(room, None) for _ in range(3)]

    assert await (await narrow.watch(room, host.token)).is_put_out() == 4100
    assert [live.frames for live in waiting] == [[], [], []]
    await waiting[0].vanishes()

    async def has_noticed() -> bool:
        return (await metrics(narrow))["coordinator_tcp_connections"] <= 3  # this one's among them

    await comes_true(has_noticed)
    await host.connects(room, at=narrow)
    await narrow.aclose()


async def test_who_speaks_too_fast_is_told_so_and_closed_after_ten_seconds(
    a: Api, room: str
) -> None:
    live = await (await Guest(a).joins(room)).connects()
    started = asyncio.get_running_loop().time()

    async def chatter() -> None:
        while live.code is None:
            live.says_at_once(*[{"type": "ping"}] * 20)
            await asyncio.sleep(0.05)

    talking = asyncio.create_task(chatter())
    error = await live.sees("error")
    assert error["code"] == "RATE_LIMITED"
    assert [frame["type"] for frame in live.frames].count("pong") >= 30

    assert await live.is_put_out(patience=25) == 4102
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)
    assert asyncio.get_running_loop().time() - started > 9


async def test_who_does_not_read_is_hung_up_on_and_loses_nothing(
    a: Api, quick: Api, database: Database
) -> None:
    host = await Host.hired(database, quick)
    room = await host.creates()
    await asyncio.gather(*(Guest(quick, "长" * 100).joins(room) for _ in range(200)))
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    small.connect(("127.0.0.1", quick.node.port))
    url = f"{quick.node.ws}/api/interview/room/{room}/live?since=201"
    live = Live(
        await connect(
            url, sock=small, additional_headers=bearer(host.token), proxy=None,
            open_timeout=patient(10),
        )
    )  # fmt: skip
    await live.sees("welcome")

    live.socket.transport.pause_reading()
    for _ in range(10):
        await live.says(type="sync", since=1)
    while not (await metrics(quick))["coordinator_slow_consumers_total"]:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    live.socket.transport.resume_reading()
    await live.until(lambda: live.code is not None)

    again = await host.connects(room, at=a, since=live.seq)
    await again.reaches(len(await host.log(room)))
    assert again.welcome["resumed"] is True

"""TCP connections of one address, over real TCP from an address that is not loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect

from coordinator.web.addresses import is_loopback
from tests.harness.node import Deployment, NodeProcess
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, bearer

MOST = 5


def own_address() -> str:
    """An address of this machine by which it could be reached from elsewhere; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: only the route to it is looked up
        except OSError:
            return ""
        found: str = probe.getsockname()[0]
    return "" if is_loopback(found) else found


ADDRESS = own_address()

pytestmark = pytest.mark.skipif(not ADDRESS, reason="this machine has no address but loopback")


def listening(deployment: Deployment, **settings: str) -> NodeProcess:
    """A node that listens on all addresses, with limits, of connections too."""
    return deployment.node(
        "--host", "0.0.0.0", CONNECTIONS_PER_ADDRESS=str(MOST), RATE_LIMITS="join=1000/minute",
        **settings,
    )  # fmt: skip


@pytest_asyncio.fixture(scope="module")
async def api(deployment: Deployment) -> AsyncIterator[Api]:
    api = Api(listening(deployment))
    yield api
    await api.aclose()


class Silent:
    """A TCP connection that says nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int, address: str = ADDRESS) -> Silent:
        return cls(*await asyncio.open_connection(address, port))

    async def is_hung_up_on(self, within: float = 5) -> bool:
        try:
            async with asyncio.timeout(within):
                return await self._reader.read(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def close(self) -> None:
        self._writer.close()


async def seats(api: Api, number: int) -> list[Silent]:
    """So many silent connections that stay: those before them may not have been seen to go yet."""
    held: list[Silent] = []
    async with asyncio.timeout(patient(8)):
        while len(held) < number:
            one = await Silent.open(api.node.port)
            await has_accepted_all(api)
            if await one.is_hung_up_on(within=0.1):
                await asyncio.sleep(0.05)
            else:
                held.append(one)
    return held


async def has_accepted_all(api: Api) -> None:
    """Returns when the node has let in or refused whoever connected before: it takes them in turn.

    Silent connections end by themselves after 10 s: nobody may wait for long to see one stay.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", api.node.port)
    writer.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_the_next_one_is_hung_up_on_told_and_loopback_is_not_counted(api: Api) -> None:
    held = await seats(api, MOST)

    assert await (await Silent.open(api.node.port)).is_hung_up_on(within=patient(5))

    beside = [await Silent.open(api.node.port, "127.0.0.1") for _ in range(MOST + 1)]
    assert not await beside[-1].is_hung_up_on(within=0.3)
    metrics = (await api.get("/metrics")).text
    assert 'coordinator_refused_connections_total{reason="address"}' in metrics
    told = [line for line in api.node.logs().splitlines() if "connections_refused" in line]
    assert any(ADDRESS in line and "address" in line for line in told)
    for one in (*held, *beside):
        one.close()


async def live(guest: Guest, port: int) -> ClientConnection:
    url = f"ws://{ADDRESS}:{port}/api/interview/room/{guest.room_id}/live"
    socket = await connect(
        url, proxy=None, compression=None, additional_headers=bearer(guest.token),
        open_timeout=patient(10),
    )  # fmt: skip
    assert "welcome" in str(await asyncio.wait_for(socket.recv(), patient(5)))
    return socket


async def test_who_has_authenticated_is_not_counted(api: Api, room: str) -> None:
    """A whole school behind one address: more live connections than it may have silent ones."""
    guests = [await Guest(api).joins(room) for _ in range(2 * MOST)]

    sockets = [await live(guest, api.node.port) for guest in guests]
    held = await seats(api, MOST)

    assert not await (await Silent.open(api.node.port, "127.0.0.1")).is_hung_up_on(within=0.1)
    assert await (await Silent.open(api.node.port)).is_hung_up_on(within=patient(5))
    for each in sockets:
        assert each.close_code is None
        await each.close()
    for one in held:
        one.close()


async def test_a_trusted_proxy_is_not_counted(deployment: Deployment) -> None:
    node = listening(deployment, TRUSTED_PROXIES=f"{ADDRESS}/32")

    held = [await Silent.open(node.port) for _ in range(MOST + 5)]

    assert not await held[-1].is_hung_up_on(within=0.5)
    for one in held:
        one.close()
    node.stop()

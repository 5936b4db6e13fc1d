"""So many TCP connections of a node and of one address, and no more."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network

import pytest

from coordinator.web.tcp_connections import TcpConnections
from tests.harness.http_server import CLOSE, answered, ends, get, serving, upgraded
from tests.harness.patience import patient


async def test_a_node_has_so_many_slots_and_gives_them_again() -> None:
    slots = TcpConnections(most=3, per_address=0, trusted=())
    async with serving(connections=slots) as (port, _, _):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        await taken(slots, 3)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await ends(reader, 5) < 3
        writer.close()
        held[0][1].close()
        await taken(slots, 2)
        assert await answered(port, get(1, CLOSE)) != []
        _, live = await upgraded(port)
        assert slots.open == 3
        live.close()
        for _, writer in held:
            writer.close()
        await taken(slots, 0)


async def taken(slots: TcpConnections, number: int) -> None:
    """Waits until so many slots are taken."""
    async with asyncio.timeout(patient(5)):
        while slots.open != number:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_connections_of_one_address_are_counted_until_they_authenticate() -> None:
    slots = TcpConnections(most=100, per_address=2, trusted=())
    first, second = slots.admit("203.0.113.1"), slots.admit("::ffff:203.0.113.1")
    assert first is not None
    assert second is not None
    assert slots.admit("203.0.113.1") is None
    assert slots.admit("203.0.113.2") is not None
    first.authenticated()
    third = slots.admit("203.0.113.1")
    assert third is not None
    assert slots.admit("203.0.113.1") is None
    first.leave()
    first.leave()
    assert slots.admit("203.0.113.1") is None
    third.leave()
    assert slots.admit("203.0.113.1") is not None
    assert slots.open == 3


def test_a_64_of_ipv6_counts_as_one() -> None:
    slots = TcpConnections(most=100, per_address=1, trusted=())
    assert slots.admit("2001:db8::1") is not None
    assert slots.admit("2001:db8::2") is None
    assert slots.admit("2001:db8:0:1::2") is not None


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1",
                                  "10.1.2.3", "::ffff:10.1.2.3", ""])  # fmt: skip
def test_loopback_and_trusted_proxies_are_not_counted(peer: str) -> None:
    slots = TcpConnections(most=100, per_address=1, trusted=(ip_network("10.0.0.0/8"),))
    assert all(slots.admit(peer) is not None for _ in range(5))

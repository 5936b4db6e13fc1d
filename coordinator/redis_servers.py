"""Which servers hold the data now: the one that is named, the sentinels' master, or a cluster's.

    single      one server has everything
    sentinel    the master has everything; who that is changes, and the sentinels know
    cluster     16,384 slots, each on one master; a channel `…{tag}…` is in the slot of its tag
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from redis.crc import key_slot

from coordinator.redis_connection import ConnectionFailed, RedisConnection, connect
from coordinator.redis_url import RedisTarget

Address = tuple[str, int]
SLOTS = 16_384


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers that hold the data.

    Attributes:
        addresses: one each; None for a unix socket.
        slots: of a cluster, for each slot the place of its server in `addresses`; else empty.
    """

    addresses: tuple[Address | None, ...]
    slots: tuple[int, ...] = ()

    @property
    def is_cluster(self) -> bool:
        return bool(self.slots)

    def server_of(self, channel: bytes) -> Address | None:
        """Where a channel (or a key) is."""
        return self.addresses[self.slots[key_slot(channel)]] if self.slots else self.addresses[0]

    def tag_on(self, address: Address | None) -> int:
        """The lowest number whose tag, `{n}`, is in a slot of this server: all nodes agree on it.

        Raises:
            ConnectionFailed: the server has no slots.
        """
        if not self.slots:
            return 0
        for number in range(SLOTS):
            if self.server_of(b"{%d}" % number) == address:
                return number
        raise ConnectionFailed("the server has no slots")


async def find_servers(target: RedisTarget) -> Servers:
    """Asks who holds the data.

    Raises:
        ConnectionFailed, OSError, TimeoutError: nobody can say so.
    """
    if target.kind == "single":
        return Servers((target.addresses[0] if target.addresses else None,))
    asks = {"sentinel": _ask_sentinel, "cluster": _ask_cluster}[target.kind]
    # All at once: one that hangs delays nobody.
    tasks = [asyncio.create_task(asks(target, address)) for address in target.addresses]
    last: Exception = ConnectionFailed("nobody can say where the data is")
    try:
        for answer in asyncio.as_completed(tasks):
            try:
                return await answer
            except (OSError, TimeoutError) as error:
                last = error
        raise last
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask_sentinel(target: RedisTarget, address: Address) -> Servers:
    """The master by one sentinel's word, if that server says the same of itself."""
    login = (target.sentinel_username, target.sentinel_password)
    if login == (None, None):
        login = (target.username, target.password)
    try:
        sentinel = await connect(target, address, _hears_nothing, login=login)
    except ConnectionFailed:
        if login[1] is None or target.sentinel_password is not None:
            raise
        sentinel = await connect(target, address, _hears_nothing, login=(None, None))
    try:
        found = await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", target.master)
    finally:
        sentinel.abort("answered")
    if not found:
        raise ConnectionFailed("the sentinel does not know that master")
    master = (found[0].decode(), int(found[1]))
    server = await connect(target, master, _hears_nothing)
    try:
        await require_master(server)
    finally:
        server.abort("answered")
    return Servers((master,))


async def require_master(server: RedisConnection) -> None:
    """Checks that the server takes itself for a master; one that may not be asked is believed.

    Raises:
        ConnectionFailed: it is a replica: a failover is under way.
    """
    try:
        role = await server.ask("ROLE")
    except ConnectionFailed as error:
        if str(error).startswith("NOPERM"):
            return
        raise
    if not role or role[0] != b"master":
        raise ConnectionFailed("the server is no master")


async def _ask_cluster(target: RedisTarget, address: Address) -> Servers:
    server = await connect(target, address, _hears_nothing)
    try:
        ranges = await server.ask("CLUSTER", "SLOTS")
    finally:
        server.abort("answered")
    return servers_of_cluster(ranges, asked=address)


def servers_of_cluster(ranges: Any, *, asked: Address) -> Servers:
    """What `CLUSTER SLOTS` answers: `[[first, last, [host, port, …], …], …]`.

    An empty host is that of the server which was asked.

    Raises:
        ConnectionFailed: slots are without a server.
    """
    addresses: list[Address] = []
    slots = [-1] * SLOTS
    for first, last, master, *_ in ranges:
        address = ((master[0] or b"").decode() or asked[0], int(master[1]))
        if address not in addresses:
            addresses.append(address)
        slots[first : last + 1] = [addresses.index(address)] * (last + 1 - first)
    if -1 in slots:
        raise ConnectionFailed("the cluster has slots without a server")
    return Servers(tuple(addresses), tuple(slots))


def _hears_nothing(_kind: bytes, _channel: bytes, _message: bytes) -> None:
    """This connection subscribes to nothing."""

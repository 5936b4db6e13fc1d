"""The links of the bus: one to each server that holds channels, whichever servers these are now.

Sentinels name another master after a failover, a cluster moves its slots: `run` follows, and each
channel is heard where it is.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Set
from typing import Any

import structlog

from coordinator.live.bus_link import BusLink
from coordinator.live.loop import in_words
from coordinator.redis_servers import Servers, find_servers
from coordinator.redis_url import RedisTarget

log = structlog.get_logger()

FIND_SECONDS = 5.0


class BusLinks:
    """All links of a node.

    Args:
        prefix: the deployment's.
        on_message: hears of (channel, message) of every link; must not raise.
        on_change: called when a link was made, was lost, or hears its echo again.

    Attributes:
        wanted: the channels to hear, on whichever server they are.
        by_server: the links, each with its task.
    """

    def __init__(
        self,
        target: RedisTarget,
        prefix: str,
        *,
        on_message: Callable[[bytes, bytes], None],
        on_change: Callable[[], None],
    ) -> None:
        self._target = target
        self._prefix = prefix
        self._on_message = on_message
        self._on_change = on_change
        self._servers: Servers | None = None
        self._changed = asyncio.Event()
        self.wanted: set[bytes] = set()
        self.by_server: dict[Any, tuple[BusLink, asyncio.Task[None]]] = {}

    def all(self) -> list[BusLink]:
        return [link for link, _ in self.by_server.values()]

    def of(self, channel: bytes) -> BusLink | None:
        """The link to the server that holds a channel; None while nobody knows which that is."""
        if self._servers is None:
            return None
        entry = self.by_server.get(self._servers.server_of(channel))
        return entry[0] if entry else None

    def eval(self, script: str, key: str, *arguments: str | int) -> asyncio.Future[Any] | None:
        """The reply to a script about one key; None where its server has no link.

        Raises:
            ConnectionFailed: the link is on its way down. The future fails with it, too.
        """
        link = self.of(key.encode())
        return None if link is None else link.request(b"EVAL", script, 1, key, *arguments)

    async def listen(self, channels: Set[bytes]) -> None:
        """Hears channels from when this returns; where their server is away, from its return."""
        self.wanted |= channels
        for link in self.all():
            await link.listen([channel for channel in channels if self.of(channel) is link])

    def drop(self, channels: set[bytes]) -> None:
        """Hears no more of these channels."""
        self.wanted -= channels
        for link in self.all():
            if channels & link.wanted:
                link.set_wanted(link.wanted - channels)

    async def run(self) -> None:
        """Follows the servers, until cancelled."""
        try:
            await self._follow_servers()
        finally:
            for _, task in self.by_server.values():
                task.cancel()
            self.by_server.clear()
            self._servers = None

    async def _follow_servers(self) -> None:
        """Finds out who holds the data, at once where a link was lost, else now and then."""
        said = ""
        while True:
            try:
                self._use(await find_servers(self._target))
                said = ""
            except (OSError, TimeoutError) as error:
                cause = in_words(error)
                if cause != said:
                    log.warning("redis_servers_unknown", reason=cause)
                said = cause
            self._changed.clear()
            is_well = self._servers is not None and all(
                link.is_connected for link, _ in self.by_server.values()
            )
            try:
                async with asyncio.timeout(FIND_SECONDS if is_well else 0.5):
                    await self._changed.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(0.05)

    def _use(self, servers: Servers) -> None:
        """Links to these servers and no others, each with the channels that are there."""
        if servers == self._servers:
            return
        self._servers = servers
        for address in set(self.by_server) - set(servers.addresses):
            _, task = self.by_server.pop(address)
            task.cancel()
        for address in servers.addresses:
            if address not in self.by_server:
                self._link(address, servers)
        for link, _ in self.by_server.values():
            here = link.address
            link.set_wanted(c for c in self.wanted if servers.server_of(c) == here)
        log.info("redis_servers", count=len(servers.addresses))

    def _link(self, address: Any, servers: Servers) -> None:
        tag = servers.tag_on(address)
        link = BusLink(
            self._target,
            address,
            echo=f"{self._prefix}:echo:{{{tag}}}:{secrets.token_hex(8)}".encode(),
            beacon=f"{self._prefix}:beacon:{{{tag}}}".encode(),
            on_message=self._on_message,
            on_change=self._note_change,
        )
        link.wanted = {c for c in self.wanted if servers.server_of(c) == address}
        self.by_server[address] = link, asyncio.create_task(link.run(), name=f"bus link {address}")

    def _note_change(self) -> None:
        self._changed.set()
        self._on_change()

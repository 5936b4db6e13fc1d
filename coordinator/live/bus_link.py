"""A link of the bus: this node's connection to one of the servers that hold the channels.

Once a second the node publishes to a channel of its own on that server: the echo takes the path of
the events. A link that has not heard its echo for 3 s is dead, whatever TCP says (a half-open
connection says nothing for ever), and is made anew.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from coordinator.redis_connection import RedisConnection, connect, publish
from coordinator.redis_servers import Address, require_master
from coordinator.redis_url import RedisTarget

log = structlog.get_logger()

PROBE_SECONDS = 1.0
DEAD_SECONDS = 3.0
RETRY_SECONDS = 0.3
SUBSCRIBE_SECONDS = 3.0
LISTEN_SECONDS = 0.3
"""How long the opening of a feed waits for its channel."""
CREDIT_SECONDS = 1.5
"""A new link counts as having heard the judge so long ago."""
STALL_SECONDS = 2.0
"""Where a probe's second took so long, the process was frozen, or had no processor."""
ROLE_EVERY = 3
"""Every so many probes the server is asked whether it is still a master."""


class BusLink:
    """One server.

    Args:
        echo: a channel on this server that is this node's alone.
        beacon: the channel on this server on which the judge speaks.
        on_message: hears of (channel, message) of everything but the echo; must not raise.
        on_change: called when the link was made, was lost, or hears its echo again.

    Attributes:
        wanted: channels to hear, beside the echo and the beacon.
        beacon_at: monotonic time at which the judge was last heard here; a link that was just made
            has the time of a beacon to hear one.
    """

    def __init__(
        self,
        target: RedisTarget,
        address: Address | None,
        *,
        echo: bytes,
        beacon: bytes,
        on_message: Callable[[bytes, bytes], None],
        on_change: Callable[[], None],
    ) -> None:
        self.address = address
        self.beacon = beacon
        self.beacon_at = time.monotonic()
        self.wanted: set[bytes] = set()
        self._target = target
        self._echo = echo
        self._on_message = on_message
        self._on_change = on_change
        self._connection: RedisConnection | None = None
        self._confirmed: set[bytes] = set()
        self._is_late = False
        self._told: set[str] = set()
        """The reasons why the link does not come up that the log has been told."""
        self._heard_at = float("-inf")
        is_cluster = target.kind == "cluster"
        self._verbs = (
            (b"SSUBSCRIBE", b"SUNSUBSCRIBE", b"SPUBLISH") if is_cluster
            else (b"SUBSCRIBE", b"UNSUBSCRIBE", b"PUBLISH")
        )  # fmt: skip

    @property
    def is_connected(self) -> bool:
        """True where everything wanted has been subscribed, and what is sent goes somewhere."""
        return self._connection is not None

    @property
    def hears_itself(self) -> bool:
        return self.is_connected and time.monotonic() - self._heard_at < DEAD_SECONDS

    def publish(self, *messages: tuple[bytes, bytes]) -> None:
        """Sends messages, each with its channel, in one write; lost where the link is down."""
        if self._connection is not None:
            data = b"".join([publish(self._verbs[2], *message) for message in messages])
            self._connection.send(data, replies=len(messages))

    def request(self, *parts: bytes | str | int) -> asyncio.Future[Any] | None:
        """The reply to a command; None where the link is down.

        Raises:
            ConnectionFailed: it is on its way down. The future fails with it, too.
        """
        return None if self._connection is None else self._connection.request(*parts)

    async def listen(self, channels: Iterable[bytes]) -> None:
        """Hears channels from when this returns; where the link is down, from when it is made.

        A server that hesitates is waited for for `LISTEN_SECONDS`: its channels are heard from its
        next echo on, and polls find what was missed.
        """
        new = set(channels)
        self.wanted |= new
        new -= self._confirmed
        connection = self._connection
        if connection is None or not new:
            return
        try:
            await connection.subscribe(self._verbs[0], new, seconds=LISTEN_SECONDS)
            self._confirmed |= new
        except TimeoutError:
            self._is_late = True
        except OSError:
            pass  # the link is on its way down: what was missed is polled for then

    def set_wanted(self, channels: Iterable[bytes]) -> None:
        """Hears these channels and no others; new ones from soon on."""
        new = set(channels)
        connection = self._connection
        if connection is not None:
            for channel in self.wanted - new:
                connection.unsubscribe(self._verbs[1], channel)
                self._confirmed.discard(channel)
            if new - self.wanted:
                connection.abort("its channels have changed")  # what it missed is polled for
        self.wanted = new

    async def run(self) -> None:
        """Makes the link again and again, until cancelled: then it is not lost, but given up."""
        while True:
            try:
                await self._live()
            except asyncio.CancelledError:
                self._connection = None
                raise
            except (OSError, TimeoutError) as error:
                self._lose(str(error) or type(error).__name__)
            except Exception as error:
                log.error("bus_link_failed", exc_info=error)
                self._lose(type(error).__name__)
            await asyncio.sleep(RETRY_SECONDS * random.uniform(0.7, 1.3))

    async def _live(self) -> None:
        """One connection, from its making to its death, which it raises."""
        connection = await connect(self._target, self.address, self._take)
        try:
            if self._target.kind == "sentinel":
                await require_master(connection)
            confirmed: set[bytes] = set()
            while due := {self._echo, self.beacon, *self.wanted} - confirmed:  # some come meanwhile
                await connection.subscribe(self._verbs[0], due, seconds=SUBSCRIBE_SECONDS)
                confirmed |= due
            self._connection, self._confirmed = connection, confirmed
            self._told.clear()
            self._heard_at = time.monotonic()
            self.beacon_at = max(self.beacon_at, time.monotonic() - CREDIT_SECONDS)
            self._on_change()
            await self._probe(connection)
        finally:
            connection.abort("given up")

    async def _probe(self, connection: RedisConnection) -> None:
        count = 0
        while not connection.lost.done():
            self.publish((self._echo, b"%d" % count))
            asked_at = time.monotonic()
            await asyncio.wait([connection.lost], timeout=PROBE_SECONDS)
            now = time.monotonic()
            if now - asked_at > STALL_SECONDS:
                self._heard_at = now  # this process stood still: what it heard waits to be read
            if now - self._heard_at > DEAD_SECONDS:
                raise TimeoutError("the echo did not come back")
            count += 1
            if self._target.kind == "sentinel" and not count % ROLE_EVERY:
                await require_master(connection)
        raise OSError(connection.lost.result())

    def _lose(self, reason: str) -> None:
        if self._connection is not None:
            self._connection = None
            log.warning("redis_link_lost", server=_name(self.address), reason=reason)
            self._on_change()
        elif reason not in self._told:  # each try again would say the same
            self._told.add(reason)
            log.warning("redis_link_failed", server=_name(self.address), reason=reason)

    def _take(self, kind: bytes, channel: bytes, message: bytes) -> None:
        if channel == self._echo:
            is_news = not self.hears_itself or self._is_late
            self._heard_at, self._is_late = time.monotonic(), False
            if is_news:
                self._on_change()
        elif kind == b"sunsubscribe":
            if channel in self.wanted and self._connection is not None:
                self._connection.abort("a slot has moved")
        else:
            self._on_message(channel, message)


def _name(address: Address | None) -> str:
    return f"{address[0]}:{address[1]}" if address else "unix socket"

"""The lease of this node: as long as it is renewed, the node's connections are its own.

    nodes    node_epoch    lease_until              held_since
             3f9c…         in 8 s from each renewal since when it has been held unbroken

The node renews it every 2.5 s. A node that finds its row gone (it was frozen, or cut off, and
declared dead) closes all its connections with 4201 and goes on under a new node epoch. A node that
cannot reach Postgres while others say over the bus that they do sends its clients elsewhere (4200);
where no node reaches Postgres, all clients stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import timedelta
from typing import Protocol

import structlog

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import Unavailable
from coordinator.domain.ids import new_node_epoch
from coordinator.live.loop import Loop
from coordinator.store.nodes import Nodes

log = structlog.get_logger()

LEASE = timedelta(seconds=8)
RENEW_SECONDS = 2.5
WATCH_SECONDS = 0.5
LEAVE_SECONDS = 0.5
REACHED_SECONDS = 3.0
"""How fresh an answer to a renewal must be for this node to say that it reaches Postgres."""
HEARD_SECONDS = 2.0
"""How fresh another node's word that it reaches Postgres must be. This and `REACHED_SECONDS`
together are less than what is left of a lease when an outage begins (8 - 2.5 s), so that no node
takes an outage that all nodes have for one of its own."""
ALONE_SECONDS = 4.0
"""How long other nodes must reach Postgres, and this one not, before it counts as cut off. When an
outage that all nodes had ends, no node reaches Postgres so much earlier than the others."""


class Sockets(Protocol):
    """The node's live connections, as the lease needs them."""

    def count(self) -> int:
        """How many there are, observers too."""

    def close_all(self, code: CloseCode) -> None:
        """Closes all of them."""


class Lease:
    """Keeps one node's lease.

    Attributes:
        node_epoch: the id of this run of the node; a node that was declared dead takes a new one.
        was_regained: set when a lease that had run out is held again.
        channels: over how many of the bus this node spreads feeds: the others learn it from here.
    """

    def __init__(self, nodes: Nodes, sockets: Sockets, *, name: str) -> None:
        self._nodes = nodes
        self._sockets = sockets
        self._name = name
        self.node_epoch = new_node_epoch()
        self.was_regained = asyncio.Event()
        self.channels = 1
        self._renewing = Loop(self.renew, name="renew", seconds=RENEW_SECONDS)
        self._watching = Loop(self.move_if_cut_off, name="cut_off", seconds=WATCH_SECONDS)
        self._good_until = float("-inf")
        self._reached_at = float("-inf")
        self._others_reached_at = float("-inf")
        self._alone_since: float | None = None
        self._deaf_since: float | None = None

    @property
    def is_good(self) -> bool:
        """True while this node can count its connections as its own."""
        return time.monotonic() < self._good_until

    @property
    def trouble(self) -> str | None:
        """Why the last renewal failed; None where it went well."""
        return self._renewing.trouble

    @property
    def reaches_postgres(self) -> bool:
        """True while Postgres answers; a lease stays good for some seconds after that."""
        is_fresh = time.monotonic() - self._reached_at < REACHED_SECONDS
        return self.is_good and is_fresh and self.trouble is None

    @property
    def is_cut_off(self) -> bool:
        """True where this node alone has lost Postgres: others say that they reach it."""
        alone = self._alone_since
        return not self.is_good and alone is not None and time.monotonic() - alone > ALONE_SECONDS

    def was_held_calmly(self, seconds: float) -> bool:
        """True where the lease is good and renewals have gone well for so long."""
        return self.is_good and self._renewing.was_calm(seconds)

    def note_that_others_reach_postgres(self) -> None:
        """Another node has just said so."""
        self._others_reached_at = time.monotonic()

    def note_deafness(self, since: float | None) -> None:
        """Since when (monotonic time) this node has not heard the judge; None where it does.

        The others are told with the renewals, and a change at once.
        """
        has_changed = (since is None) != (self._deaf_since is None)
        self._deaf_since = since
        if has_changed:
            self.renew_soon()

    def renew_soon(self) -> None:
        """Renews now, not on schedule: a renewal looks at the epoch, too."""
        self._renewing.soon()

    async def enter(self) -> None:
        """Takes the first lease.

        Raises:
            Unavailable: Postgres is away.
        """
        asked_at = time.monotonic()
        await self._nodes.enter(self.node_epoch, self._name, LEASE, channels=self.channels)
        self._note_answer(asked_at)

    async def leave(self) -> None:
        """Gives the lease back: any node may drop this node's remaining connections at once.

        Where Postgres does not answer in time, the lease runs out by itself.
        """
        leaving = asyncio.create_task(self._nodes.leave(self.node_epoch))
        # `wait` and not a timeout within: a query that hangs does not end when it is cancelled.
        await asyncio.wait([leaving], timeout=LEAVE_SECONDS)
        if not leaving.cancel():
            with contextlib.suppress(Unavailable):
                leaving.result()

    async def run(self) -> None:
        """Renews, and watches for being cut off, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renewing.run())
            tasks.create_task(self._watching.run())

    async def renew(self) -> None:
        """Renews the lease, or begins anew where this node was declared dead.

        Raises:
            Unavailable: Postgres is away.
        """
        asked_at = time.monotonic()
        deaf_since = self._deaf_since
        deaf_for = None if deaf_since is None else timedelta(seconds=asked_at - deaf_since)
        if await self._nodes.renew(self.node_epoch, LEASE, deaf_for):
            was_lost = not self.is_good
            self._note_answer(asked_at)
            if was_lost:
                self.was_regained.set()
            return
        log.warning("declared_dead", nodeEpoch=self.node_epoch)
        self.node_epoch = new_node_epoch()
        self._sockets.close_all(CloseCode.CANNOT_CONTINUE)
        await self.enter()

    def _note_answer(self, asked_at: float) -> None:
        self._good_until = asked_at + LEASE.total_seconds()
        self._reached_at = time.monotonic()

    async def move_if_cut_off(self) -> None:
        """Sends the clients elsewhere where this node alone has lost Postgres."""
        now = time.monotonic()
        if self.reaches_postgres or now - self._others_reached_at > HEARD_SECONDS:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        if self.is_cut_off and self._sockets.count():
            log.warning("cut_off_from_postgres", connections=self._sockets.count())
            self._sockets.close_all(CloseCode.DRAINING)

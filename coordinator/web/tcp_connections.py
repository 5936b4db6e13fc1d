"""TCP connections of a node: how many there may be, altogether and of one address.

A connection takes a slot as it is accepted and gives it back as it ends. Slots of one address are
counted only until its connection has authenticated a live one: a thousand guests behind one address
are no attack, a thousand connections that say nothing are. Loopback and trusted proxies have as
many as they like.

What is refused is told by a metric, and by a log line at most every few seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.logging import RareWarning
from coordinator.metrics import REFUSED_CONNECTIONS
from coordinator.web.addresses import Network, counted_as, is_loopback, is_within

_refused = RareWarning("connections_refused")


class Slot:
    """The slot of one TCP connection."""

    __slots__ = ("_address", "_connections", "_is_taken")

    def __init__(self, connections: TcpConnections, address: str | None) -> None:
        self._connections = connections
        self._address = address  # None where it is not counted, or no longer
        self._is_taken = True

    def authenticated(self) -> None:
        """The connection has proven who it is: it does not count against its address any more."""
        if self._address is not None:
            self._connections.forget(self._address)
            self._address = None

    def leave(self) -> None:
        """The connection has ended; again does nothing."""
        if self._is_taken:
            self._is_taken = False
            self.authenticated()
            self._connections.open -= 1


class TcpConnections:
    """Gives out the slots.

    Args:
        most: connections of this node; within the limit of open files.
        per_address: connections of one address that have not authenticated; 0 = any number.
        trusted: networks whose connections are not counted by address.
    """

    def __init__(self, *, most: int, per_address: int, trusted: Sequence[Network]) -> None:
        self.open = 0
        self._most = most
        self._per_address = per_address
        self._trusted = trusted
        self._of_address: dict[str, int] = {}

    def admit(self, peer: str) -> Slot | None:
        """A slot for a connection from `peer`; None where there is none."""
        if self.open >= self._most:
            self._refuse("node", peer)
            return None
        address = self._counted(peer)
        if address is not None:
            taken = self._of_address.get(address, 0)
            if taken >= self._per_address:
                self._refuse("address", peer)
                return None
            self._of_address[address] = taken + 1
        self.open += 1
        return Slot(self, address)

    def forget(self, address: str) -> None:
        """A connection of this address no longer counts."""
        left = self._of_address[address] - 1
        if left:
            self._of_address[address] = left
        else:
            del self._of_address[address]

    def _counted(self, peer: str) -> str | None:
        if not self._per_address:
            return None
        if is_loopback(peer) or is_within(peer, self._trusted):
            return None
        return counted_as(peer)

    def _refuse(self, reason: str, peer: str) -> None:
        REFUSED_CONNECTIONS.labels(reason).inc()
        _refused(reason=reason, address=peer, open=self.open)


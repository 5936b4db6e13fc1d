"""Connections that are held by the thousand, and what came of them."""

from __future__ import annotations

import errno
import socket
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.harness.histogram import Histogram
from tests.harness.wire import Address, upgrade


@dataclass(frozen=True, slots=True)
class Place:
    """One connection to hold: which room (for `until`), which path, as whom, from where."""

    room: str
    path: str
    headers: tuple[str, ...] = ()
    node: int = 0
    source: str | None = None


@dataclass(slots=True)
class Opened:
    """How opening went.

    Attributes:
        took: from the connect to the welcome, for each that got one.
        refused: why -> how many.
        resumed: of a return: how many events came after the welcomes is in the next `Heard`.
    """

    ready: int = 0
    seconds: float = 0.0
    took: Histogram = field(default_factory=Histogram)
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Heard:
    """What arrived in a window, all connections together.

    Attributes:
        reached: every connection that still stood had its room's events up to the asked seq.
        first_ns, last_ns: monotonic clock of the first and last delivery; 0 where there was none.
        slots: time slot -> deliveries.
        wrong: what must not be (a gap, a double, a lost connection) -> how often.
    """

    deliveries: int = 0
    reads: int = 0
    reached: bool = False
    first_ns: int = 0
    last_ns: int = 0
    latency: Histogram = field(default_factory=Histogram)
    slots: Counter[int] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)


class Held:
    """One connection. `seq` is the last event (or the welcome) that it has."""

    __slots__ = ("header", "opened_ns", "ready", "rest", "seat", "seq", "sock")

    def __init__(self, seat: Place) -> None:
        self.seat = seat
        self.sock: socket.socket | None = None
        self.seq = -1
        self._reset()

    def _reset(self) -> None:
        self.rest = b""
        self.header = False
        self.ready = False
        self.opened_ns = time.monotonic_ns()

    def connect(self, address: Address) -> socket.socket:
        """Starts connecting; a return resumes after `seq`."""
        self._reset()
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.seat.source:
            sock.bind((self.seat.source, 0))
        if address.tls:  # its handshake is done in one go: TLS is for distant nodes, not for speed
            sock.settimeout(10)
            sock.connect((address.host, address.port))
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=address.host)
            sock.setblocking(False)
        else:
            sock.setblocking(False)
            error = sock.connect_ex((address.host, address.port))
            if error not in (0, errno.EINPROGRESS):
                sock.close()
                raise OSError(error, "cannot connect")
        self.sock = sock
        return sock

    def request(self, address: Address) -> bytes:
        since = f"?since={self.seq}" if self.seq >= 0 else ""
        return upgrade(f"{address.host}:{address.port}", self.seat.path + since, self.seat.headers)

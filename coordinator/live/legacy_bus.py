"""What nodes of version 1.0 say and understand: JSON without a signature, on one channel.

While one of them holds a lease its messages make this node look into the log, never deliver, and it
is told what this version's nodes are told. This module can be deleted when no deployment runs
version 1.0 any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from coordinator.domain.events import Event
from coordinator.live.bus_messages import WireEvent

_encode = msgspec.json.Encoder().encode


def channel(prefix: str) -> bytes:
    """The one channel of those nodes."""
    return f"{prefix}:events".encode()


def batch(node_epoch: str, committed: float, events: Sequence[WireEvent]) -> bytes:
    """Events as version 1.0 reads them."""
    told = [event[:6] for event in events]
    return _encode(["e", node_epoch, committed, told])


def close(node_epoch: str, code: int, sessions: Sequence[str]) -> bytes:
    """Sessions to close, as version 1.0 reads them."""
    return _encode(["c", node_epoch, code, list(sessions)])


def sender(data: bytes) -> str:
    """The node epoch that a message on this channel names as its sender; '' = cannot be read."""
    parts = data[:80].split(b'"', 4)
    return parts[3].decode("ascii", "replace") if len(parts) > 4 else ""


def wire(event: Event) -> WireEvent:
    """An event as both versions write it; the older reads all but the last member."""
    data: dict[str, Any] = dict(event.data)
    return (event.feed.kind, event.feed.id, event.seq, event.type, event.at, data, event.epoch)

"""Websocket frames: JSON objects in and out, encoded once and written as bytes.

A server's frame is not masked and (with permessage-deflate off) the same for everybody, so its
bytes are built once (RFC 6455, section 5.2) and written to each connection as they are.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from coordinator.domain.events import Event, timestamp

_TEXT = 0x81  # FIN and opcode 1
_encode = msgspec.json.Encoder().encode


def text_frame(payload: bytes) -> bytes:
    """One unfragmented text frame of a server."""
    size = len(payload)
    if size < 126:
        return bytes((_TEXT, size)) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def frame(**members: Any) -> bytes:
    """A JSON object as a frame; members that are None are left out."""
    return text_frame(_encode({k: v for k, v in members.items() if v is not None}))


def event_frame(event: Event) -> bytes:
    """An event of the log as a frame."""
    return text_frame(_encode(event.body()))


def now() -> str:
    """This node's clock, for `now` members (never for the log)."""
    return timestamp(datetime.now(UTC))


BYES: dict[int, tuple[str, str]] = {
    1000: ("left", "no"),
    4001: ("bad request", "no"),
    4003: ("not allowed in this room", "no"),
    4004: ("no such room", "no"),
    4005: ("removed from the room", "no"),
    4006: ("replaced by a newer connection", "no"),
    4009: ("left the room", "no"),
    4010: ("the room has ended", "no"),
    4100: ("over capacity", "backoff"),
    4101: ("too slow", "backoff"),
    4102: ("rate limited", "backoff"),
    4103: ("server error", "backoff"),
    4200: ("this node is draining", "soon"),
    4201: ("this node cannot continue the stream", "soon"),
    4300: ("token expired", "auth"),
    4301: ("token missing or invalid", "auth"),
}
"""Each close code with its reason and what the client should do (`retry`)."""


def bye_frame(code: int, *, after_ms: int | None = None) -> bytes:
    """What is said before every close by the server."""
    reason, retry = BYES[code]
    return frame(type="bye", code=code, reason=reason, retry=retry, afterMs=after_ms)

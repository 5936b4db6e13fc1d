"""A slow consumer: a client that reads less than it is sent, and is hung up on (4101).

Nobody waits for it: its connection ends once more than `LIVE_BUFFER` bytes are unsent, and its
client comes back and resumes by `since`. The kernel keeps some more (`websocket.SEND_BUFFER`).

A large snapshot is no slowness of its client's: it may be unsent beside the buffer, until all of it
has been sent.
"""

from __future__ import annotations

import structlog

from coordinator.live.websocket import LiveSocket
from coordinator.metrics import SLOW_CONSUMERS

log = structlog.get_logger()

_LARGE_WELCOME = 16 * 1024


def allow_welcome(socket: LiveSocket, buffer_bytes: int, size: int) -> None:
    """Before a welcome of `size` bytes: a large one does not count against the buffer."""
    if size > _LARGE_WELCOME:
        socket.limit_unsent(buffer_bytes + size)


def allow_what_is_unsent(socket: LiveSocket, buffer_bytes: int) -> None:
    """After the greeting: as much again as is unsent of it may be unsent, and the buffer at least.
    """
    socket.limit_unsent(max(buffer_bytes, socket.unsent_bytes * 2))


def allow_buffer_alone(socket: LiveSocket, buffer_bytes: int) -> None:
    """From when everything has been sent once: the buffer, and no more."""
    if not socket.unsent_bytes:
        socket.limit_unsent(buffer_bytes)


def note_slow_consumer(session_id: str, socket: LiveSocket) -> None:
    """Counts and logs one that is hung up on."""
    SLOW_CONSUMERS.inc()
    log.info("too_slow", sessionId=session_id, unsent=socket.unsent_bytes)

"""A slow consumer: a client that reads less than it is sent, and is hung up on (4101).

Nobody waits for it: its connection ends once more than `LIVE_BUFFER` bytes are unsent, and its
client comes back and resumes by `since`. The kernel keeps some more (`websocket.SEND_BUFFER`).

A large snapshot does not make its client slow: its bytes do not count against the buffer until all
of it has been sent.
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
    """After the greeting: the limit is twice what is unsent of it, at least the buffer."""
    socket.limit_unsent(max(buffer_bytes, socket.unsent_bytes * 2))


def allow_buffer_alone(socket: LiveSocket, buffer_bytes: int) -> None:
    """Once everything has been sent, the limit is the buffer; until then it stays as it is."""
    if socket.unsent_limit != buffer_bytes and not socket.unsent_bytes:
        socket.limit_unsent(buffer_bytes)


def note_slow_consumer(session_id: str, socket: LiveSocket) -> None:
    """Counts and logs a connection that is closed as too slow."""
    SLOW_CONSUMERS.inc()
    log.info("too_slow", sessionId=session_id, unsent=socket.unsent_bytes)

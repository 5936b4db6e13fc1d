"""The publisher: tells of what was committed, this node's hub at once and the others by the bus."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.events import Event
from coordinator.live.hub import Hub
from coordinator.live.pubsub import Bus
from coordinator.live.registry import ConnectionRegistry
from coordinator.metrics import EVENTS

log = structlog.get_logger()

LOGGED = ("room_created", "room_ended")
"""Events that stand in the log of the process, too."""


class Publisher:
    """Never blocks. What the bus loses is found in the log by the others' polls.

    Args:
        also_tell: hears of each batch, too (webhooks); must not block or raise.
    """

    def __init__(
        self,
        hub: Hub,
        bus: Bus,
        registry: ConnectionRegistry,
        also_tell: Callable[[Sequence[Event]], None],
    ) -> None:
        self._hub = hub
        self._bus = bus
        self._registry = registry
        self._also_tell = also_tell

    def tell_here(self, events: Sequence[Event]) -> None:
        """Tells who listens on this node; what is told once is not told again."""
        self._hub.offer(events, time.time())

    def publish(self, events: Sequence[Event], _replaced: Sequence[str] = ()) -> None:
        """Tells of a committed batch.

        Sessions that newer ones replaced are closed where the newer one opened (`replace`), once it
        has been greeted.
        """
        committed = time.time()
        self._hub.offer(events, committed)
        self._bus.publish(events, committed)
        self._also_tell(events)
        for event in events:
            EVENTS.values[event.type,] += 1
            if event.type in LOGGED:
                log.info(event.type, roomId=event.feed.id, seq=event.seq)

    def replace(self, session_ids: Sequence[str]) -> None:
        """Closes sessions that newer ones pushed out, wherever they are."""
        self._registry.close_sessions(session_ids, CloseCode.REPLACED)
        self._bus.close_sessions(session_ids, CloseCode.REPLACED)

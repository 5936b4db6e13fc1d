"""A connection that watches a room and is on no roster: an admin's, or the host's who only looks.

Its coming and going makes no event, and only the room's end closes it.
"""

from __future__ import annotations

from typing import Any

from coordinator.domain.close_codes import CloseCode
from coordinator.live.connection import Connection


class Observer(Connection):
    """Watches a feed without being a participant."""

    def _hear(self, kind: str, message: dict[str, Any]) -> None:
        if kind == "leave":
            self.say_bye(CloseCode.DONE)
        elif kind == "away":
            self._complain("INVALID_FRAME", "观察者没有在线状态")
        else:
            super()._hear(kind, message)

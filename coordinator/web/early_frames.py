"""What a websocket brings before there is a connection to hear it."""

from __future__ import annotations

import asyncio
from collections import deque

from coordinator.live.websocket import Heard, Refused

EARLY_FRAMES = 40


class EarlyFrames:
    """Keeps the first messages, and what was refused among them; nothing is answered yet."""

    def __init__(self) -> None:
        self.frames: deque[Heard] = deque()
        self._arrived = asyncio.Event()
        self._is_over = False

    async def first(self) -> bytes | None:
        """The first message; None where it was not text, or the socket closed before.

        Control frames beyond the rate are no message: they are passed over.
        """
        await self._arrived.wait()
        while self.frames and not self._is_over:
            heard = self.frames.popleft()
            if heard is not Refused.CONTROL_TOO_FAST:
                return heard if isinstance(heard, bytes) else None
        return None

    def on_text(self, text: bytes) -> None:
        self._keep(text)
        self._arrived.set()

    def on_refused(self, why: Refused) -> None:
        self._keep(why)
        if why is not Refused.CONTROL_TOO_FAST:
            self._arrived.set()

    def _keep(self, heard: Heard) -> None:
        if len(self.frames) < EARLY_FRAMES:
            self.frames.append(heard)

    def on_slow(self) -> None:
        """Nothing has been sent yet."""

    def on_lost(self) -> None:
        self._is_over = True
        self._arrived.set()

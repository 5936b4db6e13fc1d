"""What a websocket brings before there is a connection to hear it."""

from __future__ import annotations

import asyncio
from collections import deque

from coordinator.live.websocket import Refused

EARLY_FRAMES = 40


class EarlyFrames:
    """Keeps the first messages; nothing is answered yet."""

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._is_over = False

    async def first(self) -> bytes | None:
        """The first message; None where it was not text, or the socket closed before."""
        await self._arrived.wait()
        return None if self._is_over or not self.frames else self.frames.popleft()

    def on_text(self, text: bytes) -> None:
        if len(self.frames) < EARLY_FRAMES:
            self.frames.append(text)
        self._arrived.set()

    def on_refused(self, why: Refused) -> None:
        if why is not Refused.CONTROL_TOO_FAST and not self.frames:
            self._is_over = True
            self._arrived.set()

    def on_slow(self) -> None:
        """Nothing has been sent yet."""

    def on_lost(self) -> None:
        self._is_over = True
        self._arrived.set()

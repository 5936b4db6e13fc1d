"""How fast a client may send: ten frames per second, thirty at once.

Plain arithmetic with the clock passed in. Every frame counts, also empty ones, continuations, pings
and pongs that nobody asked for.
"""

from __future__ import annotations

from enum import Enum, auto

RATE, BURST = 10.0, 30.0
FLOOD_SECONDS = 10.0
"""Who goes over the rate for so long is hung up on."""


class FrameVerdict(Enum):
    """What becomes of a frame."""

    READ = auto()
    REFUSED = auto()
    FLOOD = auto()


class FrameAllowance:
    """The tokens of one connection; `now` is a monotonic clock in seconds."""

    __slots__ = ("_flooding_since", "_refilled_at", "_tokens")

    def __init__(self, now: float) -> None:
        self._tokens = BURST
        self._refilled_at = now
        self._flooding_since: float | None = None

    def take(self, now: float) -> FrameVerdict:
        """Counts a frame."""
        self._tokens = min(BURST, self._tokens + (now - self._refilled_at) * RATE)
        self._refilled_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            if self._tokens > BURST / 2:
                self._flooding_since = None
            return FrameVerdict.READ
        if self._flooding_since is None:
            self._flooding_since = now
        is_flood = now - self._flooding_since >= FLOOD_SECONDS
        return FrameVerdict.FLOOD if is_flood else FrameVerdict.REFUSED

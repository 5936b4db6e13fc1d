"""Who judges, as this node knows it: what the reaper and the bus tell each other.

One node at a time judges. Every second it publishes a beacon on the bus, which also tells whether
some node does not hear beacons.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Judge:
    """One per node, written by the reaper and by the bus, read by both.

    Attributes:
        is_me: this node has the duty, or had it when Postgres was last reached.
        is_somebody_deaf: the judge's own finding; None where it does not reach Postgres.
        heard_at: monotonic time of the last beacon of another judge that reaches Postgres.
    """

    is_me: bool = False
    is_somebody_deaf: bool | None = None
    heard_at: float = field(default=float("-inf"))

    def is_silent(self, seconds: float) -> bool:
        """True where no other judge has been heard for so long."""
        return time.monotonic() - self.heard_at > seconds

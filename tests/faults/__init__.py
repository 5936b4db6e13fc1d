"""Whatever dies: no join or leave is lost, doubled or out of order, and ghosts do not stay.

Real processes are killed, frozen and cut off here, with a PostgreSQL and a Valkey of this folder's
own. The lease is the real one (8 s); the grace is shorter than usual.
"""

from __future__ import annotations

GRACE = 5.0
"""Seconds that who is away has to return in: what a busy machine needs of them is spare."""
LEASE_NOTICED = 10.0
"""The contract's limit, in seconds, from a node's death until its people are away."""

"""Whatever dies: no join or leave is lost, doubled or out of order, and ghosts do not stay.

Real processes are killed, frozen and cut off here, with a PostgreSQL and a Valkey of this folder's
own. The lease is the real one (8 s); the grace is short.
"""

from __future__ import annotations

GRACE = 2.0
LEASE_NOTICED = 10.0
"""The contract's limit, in seconds, from a node's death until its people are away."""

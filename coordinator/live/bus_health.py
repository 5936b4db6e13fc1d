"""When Redis counts as up: while all nodes with a lease hear each other on it.

Redis is up for a node while, on each server, the node hears its own echo and the judge's beacons,
and the judge knows of no lease holder that does not. So both sides of a split (two servers behind
one name) find out. A node that does not hear the judge notes that in its lease. With Postgres away
there may be no judge, and the last verdict stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from coordinator.live.bus_link import CREDIT_SECONDS, STALL_SECONDS, BusLink
from coordinator.live.bus_messages import Beacon
from coordinator.live.judge import Judge
from coordinator.live.lease import Lease
from coordinator.metrics import REDIS_UP

log = structlog.get_logger()

BEACON_SECONDS = 1.0
LATE_SECONDS = 3.0
"""After so long without a beacon a node tells the others that it is deaf."""
LOST_SECONDS = 5.0


class BusHealth:
    """The verdict of one node; `on_change` hears that it has changed.

    Args:
        links: the node's, as they are now.
    """

    def __init__(
        self,
        lease: Lease,
        judge: Judge,
        links: Callable[[], list[BusLink]],
        on_change: Callable[[], None],
    ) -> None:
        self._lease = lease
        self._judge = judge
        self._links = links
        self._on_change = on_change
        self._is_somebody_deaf = False
        self._told: bool | None = None
        self._told_at = float("-inf")
        self._looked_at = time.monotonic()
        self.is_up = False

    # -- the judge's side -----------------------------------------------------------------------

    @property
    def verdict(self) -> bool | None:
        """Whether somebody is deaf; None where the judge cannot say."""
        return self._judge.is_somebody_deaf if self._lease.reaches_postgres else None

    def is_beacon_due(self) -> bool:
        """True once a second for the judge, and at once where its verdict has changed."""
        now = time.monotonic()
        is_due = self.verdict != self._told or now - self._told_at >= BEACON_SECONDS
        if not self._judge.is_me or not is_due:
            return False
        self._told, self._told_at = self.verdict, now
        return True

    # -- everybody's side -----------------------------------------------------------------------

    def take_beacon(self, channel: bytes, beacon: Beacon, *, is_own: bool) -> None:
        """The judge was heard on the server of this channel."""
        now = time.monotonic()
        for link in self._links():
            if link.beacon == channel:
                link.beacon_at = now
        if beacon.is_somebody_deaf is not None:
            self._is_somebody_deaf = beacon.is_somebody_deaf
            if not is_own:
                self._judge.heard_at = now
                self._judge.is_me &= self._lease.reaches_postgres
                self._lease.note_that_others_reach_postgres()
        self.look()

    def look(self) -> None:
        """Finds out whether Redis is up, and whether this node is deaf; notes that in its lease."""
        links = self._links()
        self._forgive_a_stall(links)
        late = [link.beacon_at for link in links if not self._hears_judge(link, LATE_SECONDS)]
        self._lease.note_deafness(min(late, default=None))
        self._change(
            bool(links)
            and all(link.hears_itself for link in links)
            and all(self._hears_judge(link, LOST_SECONDS) for link in links)
            and not self._is_somebody_deaf
        )

    def _forgive_a_stall(self, links: list[BusLink]) -> None:
        """A process that stood still (looks are four a second) has beacons that wait to be read."""
        now = time.monotonic()
        if now - self._looked_at > STALL_SECONDS:
            for link in links:
                link.beacon_at = max(link.beacon_at, now - CREDIT_SECONDS)
        self._looked_at = now

    def _hears_judge(self, link: BusLink, seconds: float) -> bool:
        return time.monotonic() - link.beacon_at < seconds or not self._lease.reaches_postgres

    def _change(self, is_up: bool) -> None:
        if self.is_up == is_up:
            return
        self.is_up = is_up
        REDIS_UP.set(is_up)
        log.info("redis_up") if is_up else log.warning("redis_down", reason=self._why())
        self._on_change()

    def _why(self) -> str:
        links = self._links()
        if not links or not all(link.is_connected for link in links):
            return "not connected"
        if not all(link.hears_itself for link in links):
            return "the echo did not come back"
        return "some node does not hear it" if self._is_somebody_deaf else "no judge is heard"

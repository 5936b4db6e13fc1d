"""A connection that watches an interview.

Events tell where an interview stands, not all of its members, so the state that a feed has built
from events is no whole record. Whoever starts to watch is greeted with the record as it was just
read, and with the events after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from coordinator.domain.errors import NotFound
from coordinator.domain.events import Head
from coordinator.domain.interview import InterviewState
from coordinator.domain.roster import Counts
from coordinator.live.feed import Feed
from coordinator.live.history import HISTORY
from coordinator.live.observer import Observer
from coordinator.live.snapshot import Snapshot

TRIES = 5
LATE_SECONDS = 0.05

Load = Callable[[str], Awaitable[tuple[Head, InterviewState] | None]]


class InterviewViewer(Observer):
    """Watches the interview `interview_id`; `load` reads it with its seq, as of one moment."""

    def __init__(self, *arguments: Any, interview_id: str, load: Load, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.interview_id = interview_id
        self._load = load
        self._read_state: InterviewState | None = None

    async def open(self) -> int:
        """Reads the record; the seq that it reflects.

        Raises:
            NotFound, Unavailable
        """
        loaded = await self._load(self.interview_id)
        if loaded is None:
            raise NotFound
        head, self._read_state = loaded
        self.connect_seq = head.seq
        return self.connect_seq

    def starts_after(self, since: int | None) -> int:
        """The seq of the record that `open` has read, where a snapshot tells that record."""
        if since is not None and 0 <= self.connect_seq - since <= HISTORY:
            self._read_state = None
            return since
        return self.connect_seq

    def welcome(self, feed: Feed, *, since: int, counts: Counts | None, resumed: bool) -> None:
        state, self._read_state = self._read_state, None
        if state is None or since != self.connect_seq:
            super().welcome(feed, since=since, counts=counts, resumed=resumed)
        else:
            snapshot = Snapshot.of(state)
            self.greet(feed, since=since, counts=counts, resumed=False, snapshot=snapshot)

    async def _resume(self, since: int | None, epoch: str | None) -> None:
        """The reply may be a snapshot, so the feed's state is read whole first."""
        for _ in range(TRIES):
            loaded = await self._load(self.interview_id)
            if loaded is None or self.feed is None:
                break
            head, state = loaded
            if self.feed.replace_state(head.seq, state):
                break
            await asyncio.sleep(LATE_SECONDS)  # the feed is behind the record, or ahead of it
        await super()._resume(since, epoch)

"""The recent events of a feed, kept for those who resume, and the bound on all of a node.

Histories are bounded twice: each by `HISTORY` events, and all of a node together by
`HISTORIES_BYTES`. Past that the largest are halved; a client that missed more is served from the
log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from coordinator.live.frames import EventFrame

HISTORY = 300
"""Events that a resuming client is sent; more = a snapshot."""
HISTORIES_BYTES = 256 * 2**20
FRAME_BYTES = 250
"""What an event costs beside its text."""


class Histories:
    """All histories of a node.

    Attributes:
        size_bytes: what they hold.
    """

    def __init__(self, most_bytes: int = HISTORIES_BYTES) -> None:
        self.size_bytes = 0
        self._most_bytes = most_bytes
        self._all: set[History] = set()

    def open(self) -> History:
        """A new one."""
        history = History(self)
        self._all.add(history)
        return history

    def close(self, history: History) -> None:
        """Its feed is open no more."""
        history.clear()
        self._all.discard(history)

    def add(self, size_bytes: int) -> None:
        """Some history has grown, or (negative) shrunk."""
        self.size_bytes += size_bytes
        if self.size_bytes > self._most_bytes:
            self._trim()

    def _trim(self) -> None:
        enough = self._most_bytes * 9 // 10
        for history in sorted(self._all, key=lambda each: -each.size_bytes):
            if self.size_bytes <= enough:
                return
            history.halve()


class History:
    """The last events of one feed, oldest first, without gaps up to `seq`.

    Attributes:
        seq: the feed's last event, whether it is here or was there when the feed was loaded.
        size_bytes: what it holds.
    """

    __slots__ = (
        "_frames",
        "_histories",
        "seq",
        "size_bytes",
    )

    def __init__(self, histories: Histories) -> None:
        self.seq = 0
        self.size_bytes = 0
        self._histories = histories
        self._frames: deque[EventFrame] = deque()

    def __len__(self) -> int:
        return len(self._frames)

    def start_at(self, seq: int) -> None:
        """The feed was loaded as of `seq`."""
        self.clear()
        self.seq = seq

    def clear(self) -> None:
        """Nothing is remembered."""
        self._frames.clear()
        self._grow(-self.size_bytes)

    def append(self, frame: EventFrame) -> None:
        """The next event."""
        frames, growth = self._frames, len(frame.plain) + FRAME_BYTES
        if len(frames) == HISTORY:
            growth -= _size(frames.popleft())
        frames.append(frame)
        self.seq = frame.seq
        self._grow(growth)

    def halve(self) -> None:
        """Forgets the older half."""
        self._forget(len(self._frames) - len(self._frames) // 2)

    def remembers(self, since: int, *, counts: bool = False) -> bool:
        """True where a client can resume after `since` by this alone.

        Args:
            counts: it is told how many people there are, too.
        """
        if since >= self.seq:
            return since == self.seq
        place = len(self._frames) - (self.seq - since)
        if place < 0:
            return False
        return not counts or self._frames[place].counts_before is not None

    def after(self, since: int) -> list[EventFrame]:
        """The events after `since`, which it `remembers`."""
        return list(islice(self._frames, len(self._frames) - (self.seq - since), None))

    def epoch_of(self, seq: int) -> str | None:
        """The epoch of an event; None where it is not here."""
        place = len(self._frames) - 1 - (self.seq - seq)
        return self._frames[place].epoch if 0 <= place < len(self._frames) else None

    @property
    def first(self) -> int:
        """The oldest event that is here; `seq` + 1 where none is."""
        return self.seq - len(self._frames) + 1

    def recall(self, frames: Sequence[EventFrame]) -> None:
        """Puts events that were read from the log before the others, where they fit."""
        older = [frame for frame in frames if frame.seq < self.first]
        if older and older[-1].seq == self.first - 1:
            room = HISTORY - len(self._frames)
            kept = older[-room:] if room else []
            self._frames.extendleft(reversed(kept))
            self._grow(sum(map(_size, kept)))

    def forget_uncounted(self) -> None:
        """Forgets what was recalled without counts: it is to be recalled with them."""
        known = next((p for p, f in enumerate(self._frames) if f.counts_before is not None), None)
        self._forget(len(self._frames) if known is None else known)

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self._grow(-_size(self._frames.popleft()))

    def _grow(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        self._histories.add(size_bytes)


def _size(frame: EventFrame) -> int:
    return len(frame.plain) + FRAME_BYTES

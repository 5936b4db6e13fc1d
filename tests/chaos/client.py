"""One client as the contract asks of clients, and all that it was told.

It resumes by `since`, backs off as each close code says, and remembers everything; `verdict.py`
judges that.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from tests.harness.histogram import Histogram
from tests.harness.live_client import Frame, LiveClient
from tests.harness.wire import Address

WELCOME_SECONDS = 10.0
SILENCE_SECONDS = 6.0
"""How long a client waits for the answer to its pings before it takes the network for lost."""
LONGEST_BACKOFF = 5.0
"""The contract's 20 s would let a short run end before anybody is back."""

SLOW_SECONDS = 0.5
REFUSAL_SECONDS = 5.5
"""The contract's 5 s for a 503, and some for a busy machine."""

NOT_EVENTS = frozenset(("welcome", "ping", "pong", "error", "bye", "refreshed"))
LOG_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


def seconds_of(text: str) -> float:
    """A time as the API prints it, as seconds of the wall clock."""
    return datetime.strptime(text, LOG_TIME).replace(tzinfo=UTC).timestamp()


class NodeInReach(Protocol):
    """A node as a client reaches it."""

    @property
    def number(self) -> int: ...
    @property
    def address(self) -> Address: ...
    @property
    def url(self) -> str: ...


class InReach(Protocol):
    """The deployment that people use; `token` is that of their rooms' host."""

    @property
    def nodes(self) -> Sequence[NodeInReach]: ...
    @property
    def grace(self) -> float: ...
    @property
    def token(self) -> str: ...
    @property
    def admin_token(self) -> str: ...


@dataclass(slots=True)
class ToldHistory:
    """What a client was told from a `welcome` with a snapshot (or from seq 0) on, without a break.

    Attributes:
        seq: the snapshot's. snapshot: `{room, participants}`, None where it resumed from nothing.
        events: whole frames, in the order in which they came.
        epoch: what it was last told that all of this belongs to; '' by a version that knew none.
        began: by the wall clock.
    """

    seq: int
    snapshot: dict[str, Any] | None
    events: list[Frame] = field(default_factory=list)
    epoch: str = ""
    began: float = 0.0


@dataclass(slots=True)
class Stay:
    """One live connection as its client saw it; wall-clock seconds, 0 = not yet."""

    user_id: str
    node: int
    welcomed: float = 0.0
    marked_away: float = 0.0
    ended: float = 0.0


@dataclass(frozen=True, slots=True)
class Slow:
    """An event that a connected client read late; wall-clock seconds."""

    at: float
    seen: float
    node: int
    room: str
    seq: int

    @property
    def seconds(self) -> float:
        return self.seen - self.at


@dataclass(frozen=True, slots=True)
class AnsweredJoin:
    """A join that was answered 200, and when (wall clock)."""

    room: str
    guest_id: str
    name: str
    seq: int
    answered: float = 0.0


@dataclass(slots=True)
class Observations:
    """What all people together were told and did.

    Attributes:
        made: room -> when its making was answered 200 (wall clock).
        refused: (room, user name, node, when) of every join that was answered 503.
        codes: close codes, 0 = closed without a bye.
        late: how long after its `at` an event was read by clients that were connected then.
        slow: those that took longer than half a second, in full.
        late_refusals: (node, asked, answered) of each 503 that took too long.
    """

    histories: dict[str, list[ToldHistory]] = field(default_factory=dict)
    stays: dict[str, list[Stay]] = field(default_factory=dict)
    joins: list[AnsweredJoin] = field(default_factory=list)
    made: dict[str, float] = field(default_factory=dict)
    refused: list[tuple[str, str, int, float]] = field(default_factory=list)
    did: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    late: Histogram = field(default_factory=Histogram)
    slow: list[Slow] = field(default_factory=list)
    late_refusals: list[tuple[int, float, float]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


class Client:
    """A client's chain of connections to one room.

    Attributes:
        seq: of the last event that it knows, None before the first welcome.
        epoch: of what it knows, as it was last told; '' where nobody told it one.
        ended_by: the code that told it to stop for good, None while it goes on.
    """

    def __init__(
        self,
        cluster: InReach,
        observed: Observations,
        rng: random.Random,
        room: str,
        user_id: str,
        token: str,
    ) -> None:
        self.cluster = cluster
        self.observed = observed
        self.rng = rng
        self.room = room
        self.user_id = user_id
        self.token = token
        self.seq: int | None = None
        self.epoch = ""
        self.ended_by: int | None = None
        self.history: ToldHistory | None = None
        self.stay: Stay | None = None
        self.hold_off = 0.0
        """Seconds without network after the next loss of the connection."""
        self._socket: LiveClient | None = None
        self._asked_since: int | None = None
        self._bye: Frame | None = None
        self._heard_at = 0.0
        self._gone = asyncio.Event()
        self._welcomed = asyncio.Event()
        self._stopped = self._returning = False
        self._task = asyncio.create_task(self._keep_connected())

    @property
    def is_connected(self) -> bool:
        """Welcomed, not marked away, and the connection stands as far as this client knows."""
        stay = self.stay
        return stay is not None and stay.welcomed > 0 and not stay.ended and not stay.marked_away

    async def _keep_connected(self) -> None:
        attempt = 0
        while not self._stopped and self.ended_by is None:
            was_welcomed = await self._one_connection()
            attempt = 0 if was_welcomed else attempt + 1
            if not self._stopped and self.ended_by is None:
                await asyncio.sleep(self._pause(attempt))

    def _pause(self, attempt: int) -> float:
        bye, hold_off, self.hold_off = self._bye, self.hold_off, 0.0
        if hold_off:
            return hold_off
        if bye is not None and bye["retry"] == "soon":
            return self.rng.uniform(0, bye.get("afterMs", 1000) / 1000)
        self.observed.did["back-offs"] += 1
        return self.rng.uniform(0.05, min(LONGEST_BACKOFF, 0.5 * 2**attempt))

    async def _one_connection(self) -> bool:
        """From opening to its end; True where it was welcomed."""
        node = self.rng.choice(self.cluster.nodes)
        self._gone, self._welcomed = asyncio.Event(), asyncio.Event()
        self._bye = None
        self._returning = False
        self._asked_since = self.seq
        self.stay = Stay(self.user_id, node.number)
        since = "" if self.seq is None else f"?since={self.seq}"
        epoch = f"&epoch={self.epoch}" if since and self.epoch else ""
        path = f"/api/interview/room/{self.room}/live{since}{epoch}"
        gone = self._gone
        try:
            async with asyncio.timeout(3):
                self._socket = await LiveClient.open(
                    node.address, path, self.token, self._take, gone.set
                )
        except (OSError, TimeoutError):
            return False
        self._heard_at = time.monotonic()
        await self._watch(gone)
        self.stay.ended = time.time()
        self._socket.cut()
        self._socket = None
        code = self._bye["code"] if self._bye else 0
        if self.stay.welcomed or code:
            self.observed.codes[code] += 1
        if self._bye is not None and self._bye["retry"] == "no":
            self.ended_by = code
        return self.stay.welcomed > 0

    async def _watch(self, gone: asyncio.Event) -> None:
        """Until the connection is gone, or has been silent for too long."""
        assert self._socket is not None
        while not gone.is_set():
            silent = time.monotonic() - self._heard_at
            limit = SILENCE_SECONDS if self.is_connected else WELCOME_SECONDS
            if silent > limit:
                self.observed.did["silences"] += 1
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), 1.5)
            if self._welcomed.is_set() and self.stay and not self.stay.marked_away:
                self._socket.send({"type": "ping"})

    # -- what it is told

    def _take(self, frame: Frame) -> None:
        if self._bye is not None:
            self._complain(f"a {frame['type']} after bye {self._bye['code']}")
            return
        self._heard_at = time.monotonic()
        kind = frame["type"]
        if kind == "welcome":
            self._take_welcome(frame)
        elif kind == "bye":
            self._bye = frame
        elif kind in ("ping", "pong"):
            if frame["seq"] != self.seq:
                self._complain(f"a {kind} tells seq {frame['seq']} at seq {self.seq}")
            self._adopt(frame)
            if kind == "pong" and self._returning:
                self._begin_stay_anew()
        elif kind not in NOT_EVENTS:
            self._take_event(frame)

    def _adopt(self, frame: Frame) -> None:
        """What it knows is part of the history that the frame names."""
        self.epoch = frame.get("epoch", self.epoch)
        if self.history is not None:
            self.history.epoch = self.epoch

    def _begin_stay_anew(self) -> None:
        """It was marked away and is known to be back: another stay on the same socket."""
        self._returning = False
        if self.stay is not None:
            now = time.time()
            self.stay.ended = now
            self.stay = Stay(self.user_id, self.stay.node, now)
            self.observed.stays.setdefault(self.room, []).append(self.stay)

    def _take_welcome(self, frame: Frame) -> None:
        stay = self.stay
        assert stay is not None
        if not stay.welcomed:
            stay.welcomed = time.time()
            self.observed.stays.setdefault(self.room, []).append(stay)
            self.observed.did["connects"] += 1
        self._welcomed.set()
        if frame["resumed"]:
            if frame["seq"] != self._asked_since:
                self._complain(f"resumed at {frame['seq']}, asked for {self._asked_since}")
            if self.epoch and frame.get("epoch", self.epoch) != self.epoch:
                self._complain(f"resumed in epoch {frame['epoch']}, asked for {self.epoch}")
            self._adopt(frame)
            self.observed.did["resumed"] += 1
            return
        self.seq, self.epoch = frame["seq"], frame.get("epoch", "")
        snapshot = {"room": frame["room"], "participants": frame["participants"]}
        self.history = ToldHistory(
            frame["seq"], snapshot, epoch=self.epoch, began=time.time()
        )
        self.observed.histories.setdefault(self.room, []).append(self.history)

    def _take_event(self, frame: Frame) -> None:
        if self.history is None or self.seq is None or not self._welcomed.is_set():
            self._complain(f"event {frame.get('seq')} before a welcome")
            return
        if frame["seq"] != self.seq + 1:
            self._complain(f"event {frame['seq']} at seq {self.seq}")
        self.seq = frame["seq"]
        self.history.events.append(frame)
        self.observed.did["deliveries"] += 1
        self._note_delay(frame)

    def _note_delay(self, frame: Frame) -> None:
        """Of events that happened while this connection stood; others are a return's history."""
        at, now = seconds_of(frame["at"]), time.time()
        if self.stay is not None and at > self.stay.welcomed:
            late = max(0.0, now - at)
            self.observed.late.add(int(late * 1e9))
            if late > SLOW_SECONDS:
                slow = Slow(at, now, self.stay.node, self.room, frame["seq"])
                self.observed.slow.append(slow)

    def _complain(self, what: str) -> None:
        node = self.stay.node if self.stay else "?"
        self.observed.broken.append(f"{self.room} {self.user_id} on node {node}: {what}")

    # -- what it does

    async def until_welcomed(self, seconds: float) -> bool:
        """True once it is connected; False where it is not in time or never will be."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.ended_by is None:
            if self.stay is not None and self.stay.welcomed and not self.stay.ended:
                return True
            await asyncio.sleep(0.02)
        return False

    def drop(self, hold_off: float) -> None:
        """The network is lost, and back after `hold_off` seconds."""
        if self._socket is not None:
            self.hold_off = hold_off
            self._socket.cut()

    def says(self, **frame: Any) -> bool:
        """Sends a frame, where it is connected and welcomed."""
        stay = self.stay
        if self._socket is None or stay is None or not stay.welcomed or stay.ended:
            return False
        if frame["type"] == "away":
            stay.marked_away = time.time()
        self._returning = bool(stay.marked_away) and frame["type"] == "ping"
        self._socket.send(frame)
        return True

    async def close(self) -> None:
        """Drops for good."""
        self._stopped = True
        if self._socket is not None:
            self._socket.cut()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self.stay is not None and not self.stay.ended:
            self.stay.ended = time.time()

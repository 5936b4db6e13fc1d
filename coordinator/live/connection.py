"""One live connection after its door: what the client says, what it is told, how it ends.

A `Connection` watches a feed (observers, interviews); a participant's is a
`ParticipantConnection` (`participant.py`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from coordinator.domain.errors import (
    CoordinatorError,
    Unavailable,
)
from coordinator.domain.events import ROOM, timestamp
from coordinator.domain.people import Proof
from coordinator.domain.roster import Roster
from coordinator.live.feed import Feed
from coordinator.live.frames import BYES, bye_frame, frame, now, text_frame
from coordinator.live.hub import Hub
from coordinator.live.websocket import LiveSocket
from coordinator.metrics import SLOW_CONSUMERS

log = structlog.get_logger()

PING_SECONDS = 25.0
MAX_TEXT_BYTES = 4096
RATE, BURST = 10.0, 30.0
FLOOD_SECONDS = 10.0
_PAUSE_SECONDS = 0.1
_LARGE_WELCOME = 16 * 1024

_encode = msgspec.json.encode

Verify = Callable[[str], Awaitable[Proof]]


@dataclass(frozen=True, slots=True)
class ConnectionContext:
    """What every connection of a node is held to."""

    hub: Hub
    grace_seconds: float
    buffer_bytes: int
    verify: Verify
    forget: Callable[[Connection], None]
    """Called once when a connection is gone, for the node's register."""
    replace: Callable[[Sequence[str]], None]
    """Closes sessions that newer ones of their participant pushed out (4006), wherever they are."""


class Connection:
    """A connection that watches a feed and is no participant.

    Attributes:
        session_id: its own id.
        user_id: whose events put it out; None where nobody's do.
        identity: the `self` of its `welcome`.
        connect_seq: the log's last seq when it was admitted; earlier events cannot put it out.
    """

    user_id: str | None = None

    def __init__(
        self,
        socket: LiveSocket,
        terms: ConnectionContext,
        *,
        session_id: str,
        identity: dict[str, Any],
        expires_at: datetime | None,
    ) -> None:
        self.socket = socket
        self.terms = terms
        self.session_id = session_id
        self.identity = identity
        self.connect_seq = 0
        self.feed: Feed | None = None
        self.expires_at = expires_at
        self._tokens = BURST
        self._refilled_at = socket.loop.time()
        self._flooding_since: float | None = None
        self._inbox: list[bytes] = []
        self._work: asyncio.Task[None] | None = None
        self._ping_timer: asyncio.TimerHandle | None = None
        self._expiry_timer: asyncio.TimerHandle | None = None

    # -- the feed's subscriber ----------------------------------------------------------------

    @property
    def writer(self) -> Callable[[bytes], None]:
        return self.write if self.socket.is_closing else self.socket.writer

    def write(self, frames: bytes) -> None:
        self.socket.write(frames)

    def welcome(self, feed: Feed, *, resumed: bool, since: int) -> None:
        """Greets: what this connection is, and the snapshot or that the missed events follow."""
        self.greet(feed, since=since, snapshot=None if resumed else feed.snapshot())

    def greet(self, feed: Feed, *, since: int, snapshot: bytes | None) -> None:
        """Sends a `welcome`; `snapshot` is the members that tell the state of `since`, as JSON."""
        self.feed = feed  # it listens from now on: whatever ends it takes it off there
        is_room = feed.key.kind == ROOM
        head = {
            "type": "welcome",
            "roomId" if is_room else "interviewId": feed.key.id,
            "seq": since,
            "resumed": snapshot is None,
        }
        tail = {
            "self": self.identity,
            "sessionId": self.session_id,
            "pingMs": int(PING_SECONDS * 1000),
            "graceMs": int(self.terms.grace_seconds * 1000),
            **({"tokenExpiresAt": timestamp(self.expires_at)} if self.expires_at else {}),
            "now": now(),
        }
        parts = [_encode(head)[1:-1], _encode(tail)[1:-1]]
        if snapshot is not None:
            parts.insert(1, snapshot)
        greeting = text_frame(b"{" + b",".join(parts) + b"}")
        if len(greeting) > _LARGE_WELCOME:
            # A large room's snapshot is not the client's slowness: it may be unsent beside it.
            self.socket.limit_unsent(self.terms.buffer_bytes + len(greeting))
        self.socket.write(greeting)

    def close(self, code: int, *, after_ms: int | None = None) -> None:
        """Says bye and closes. What the feed has pending is not sent first: see `say_bye`."""
        if self.socket.is_closing:
            return
        self._leave_feed()
        self.socket.close(code, BYES[code][0], bye_frame(code, after_ms=after_ms))

    def say_bye(self, code: int, *, after_ms: int | None = None) -> None:
        """Sends what the feed has pending, then says bye and closes."""
        self._flush()
        self.close(code, after_ms=after_ms)

    def _flush(self) -> None:
        if self.feed is not None:
            self.terms.hub.flush(self.feed, self)

    def _leave_feed(self) -> None:
        feed = self.feed
        if feed is not None:
            self.terms.hub.detach(feed, self)

    # -- its life -----------------------------------------------------------------------------

    def hold(self, early: Iterable[bytes]) -> None:
        """What the client has said and says until the greeting is read after it."""
        self.socket.limit_unsent(self.terms.buffer_bytes)
        self._work = asyncio.current_task()
        for text in early:
            self.on_text(text)

    async def enter(self) -> int | None:
        """What an opening connection writes; the log's last seq then, where that is known."""
        return self.connect_seq or None

    def starts_after(self, since: int | None) -> int | None:
        """The seq after which events are sent to an opening connection; None = a snapshot.

        Args:
            since: what the client asked for.
        """
        return since

    def give_up_row(self) -> None:
        """A connection that only watches has none."""

    def start(self, feed: Feed) -> None:
        """It has been greeted: from now on it is pinged, and its token runs."""
        if self.socket.is_closing:
            self.terms.hub.detach(feed, self)
            return
        self.socket.limit_unsent(max(self.terms.buffer_bytes, self.socket.unsent_bytes * 2))
        first = PING_SECONDS * random.random()
        self._ping_timer = self.socket.loop.call_later(first, self._ping)
        self._run_token()
        self._work = None
        if isinstance(feed.state, Roster) and not feed.state.admits(self.user_id):
            self.put_out()
        self._read_on()

    def put_out(self) -> None:
        """What put it out happened while it was let in, before its feed was read."""
        self.say_bye(4010)  # nothing but the room's end puts out who only watches

    def _run_token(self) -> None:
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
        if self.expires_at is not None:
            left = (self.expires_at - datetime.now(UTC)).total_seconds()
            self._expiry_timer = self.socket.loop.call_later(max(0.0, left), self.say_bye, 4300)

    def _ping(self) -> None:
        if self.socket.is_closing or self.feed is None:
            return
        self._say_seq("ping")
        if not self.socket.unsent_bytes:
            self.socket.limit_unsent(self.terms.buffer_bytes)
        self._ping_timer = self.socket.loop.call_later(PING_SECONDS, self._ping)

    def _say_seq(self, kind: str) -> None:
        """`ping` or `pong`: the room's last seq as this node knows it, all of it sent before."""
        self._flush()
        if self.feed is not None:
            self.socket.write(frame(type=kind, seq=self.feed.seq, now=now()))

    def on_lost(self) -> None:
        """The TCP connection is gone."""
        self._leave_feed()
        for timer in (self._ping_timer, self._expiry_timer):
            if timer is not None:
                timer.cancel()
        self._ping_timer = self._expiry_timer = None
        self._inbox.clear()
        self.terms.forget(self)

    def on_slow(self) -> None:
        """More than `LIVE_BUFFER` is unsent: it resumes by `since`, and nobody waits for it."""
        SLOW_CONSUMERS.inc()
        log.info("too_slow", sessionId=self.session_id, unsent=self.socket.unsent_bytes)
        self.close(4101)

    # -- what the client says -----------------------------------------------------------------

    def on_text(self, text: bytes) -> None:
        if not self._may_speak():
            return
        if self._work is not None:
            self._inbox.append(text)  # in order; the rate bounds how many
            return
        self._read(text)

    def on_other(self) -> None:
        if self._may_speak():
            self._complain("INVALID_FRAME", "只接受文本帧")

    def on_ping(self) -> None:
        self._may_speak()  # it counts like a frame, and says nothing

    def _may_speak(self) -> bool:
        """Ten frames per second, thirty at once; 4102 for who goes on for ten seconds."""
        clock = self.socket.loop.time()
        self._tokens = min(BURST, self._tokens + (clock - self._refilled_at) * RATE)
        self._refilled_at = clock
        if self._tokens >= 1:
            self._tokens -= 1
            if self._tokens > BURST / 2:
                self._flooding_since = None
            return True
        if self._flooding_since is None:
            self._flooding_since = clock
        if clock - self._flooding_since >= FLOOD_SECONDS:
            self.say_bye(4102)
            return False
        self._complain("RATE_LIMITED", "发送过于频繁")
        self.socket.pause(_PAUSE_SECONDS)
        return False

    def _read(self, text: bytes) -> None:
        if len(text) > MAX_TEXT_BYTES:
            self._complain("FRAME_TOO_LARGE", "消息过长")
            return
        try:
            message = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            self._complain("INVALID_FRAME", "消息不是有效的JSON")
            return
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            self._complain("INVALID_FRAME", "消息缺少type")
            return
        self._hear(message["type"], message)

    def _hear(self, kind: str, message: dict[str, Any]) -> None:
        match kind:
            case "ping":
                self._say_seq("pong")
            case "sync":
                self._sync(message.get("since"))
            case "refresh":
                self._refresh(message.get("token"))
            case "leave":
                self.say_bye(1000)
            case "away":
                self._complain("INVALID_FRAME", "观察者没有在线状态")
            case _:
                self._complain("INVALID_FRAME", "未知的消息类型")

    def _complain(self, code: str, sentence: str) -> None:
        self._flush()
        self.socket.write(frame(type="error", code=code, message=sentence))

    def _do(self, story: Coroutine[Any, Any, None]) -> None:
        """Runs something that waits; what the client says meanwhile is read after it."""
        self._work = self.socket.loop.create_task(self._carry_out(story))

    async def _carry_out(self, story: Coroutine[Any, Any, None]) -> None:
        try:
            await story
        except Unavailable:
            self._complain("SERVICE_UNAVAILABLE", "服务暂时不可用，请稍后再试")
        except Exception as error:
            log.error("frame_failed", sessionId=self.session_id, exc_info=error)
            self.say_bye(4103)
        finally:
            if self._work is asyncio.current_task():
                self._work = None
        self._read_on()

    def _read_on(self) -> None:
        while self._inbox and self._work is None and not self.socket.is_closing:
            self._read(self._inbox.pop(0))

    def _sync(self, since: object) -> None:
        if type(since) is not int or since < 0:
            self._complain("INVALID_FRAME", "since必须是不小于0的整数")
        elif self.feed is not None:
            self._do(self.terms.hub.sync(self.feed, self, since))

    def _refresh(self, token: object) -> None:
        if not isinstance(token, str) or not token:
            self._complain("INVALID_FRAME", "缺少token")
        else:
            self._do(self._take_token(token))

    async def _take_token(self, token: str) -> None:
        try:
            proof = await self.terms.verify(token)
        except Unavailable:
            raise
        except CoordinatorError as refusal:
            self._complain(refusal.code, refusal.message)
            return
        if not self.is_same(proof):
            self.say_bye(4003)
            return
        self.expires_at = proof.expires_at
        self._run_token()
        self._flush()
        self.socket.write(frame(type="refreshed", tokenExpiresAt=timestamp(proof.expires_at)))

    def is_same(self, proof: Proof) -> bool:
        """True where a token is this connection's own; a guest's is good for its room alone."""
        here = self.feed.key.id if self.feed is not None else None
        return (
            proof.user_id == self.identity.get("userId")
            and getattr(proof.holder, "room_id", here) == here
        )

"""One live connection after its handshake: what it is told, what its client says, how it ends.

`Connection` is what all of them share. Who only watches has an `Observer` (a room) or an
`InterviewViewer`; somebody who is in the room has a `ParticipantConnection`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from msgspec import UNSET

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import CoordinatorError, Unavailable
from coordinator.domain.events import ROOM, timestamp
from coordinator.domain.people import Proof
from coordinator.domain.roster import Counts
from coordinator.live import slow_consumer
from coordinator.live.beat import Beat
from coordinator.live.feed import Feed
from coordinator.live.frames import Error, Ping, Pong, Refreshed, Welcome, bye_frame, now
from coordinator.live.hub import Hub
from coordinator.live.own_rows import OwnRows
from coordinator.live.snapshot import RESUMED, Snapshot, greeting
from coordinator.live.websocket import Heard, LiveSocket, Refused

log = structlog.get_logger()

PING_SECONDS = 25.0
_TOKEN_AHEAD_SECONDS = 2 * PING_SECONDS
"""A token that runs longer has no timer yet: each ping looks, by the clock on the wall."""
MAX_TEXT_BYTES = 4096

Verify = Callable[[str], Awaitable[Proof]]


@dataclass(frozen=True, slots=True)
class ConnectionContext:
    """The parts of a node that its connections use, and the settings that they are held to."""

    hub: Hub
    grace_seconds: float
    buffer_bytes: int
    verify: Verify
    forget: Callable[[Connection], None]
    """Called once when a connection is gone, for the node's registry."""
    replace: Callable[[Sequence[str]], None]
    """Closes sessions (4006), on whichever node, that a participant's newer ones pushed out."""
    pings: Beat
    """Of `PING_SECONDS`."""
    rows: OwnRows


class Connection:
    """A connection that listens to a feed.

    Attributes:
        session_id: its own id.
        user_id: whose departure ends it; None where only the feed's end does.
        identity: the `self` of its `welcome`.
        proof: of the token that was presented; None where it was an API key.
        needs_admin: the connection ends when its holder is no admin any more.
        counts_only: it is told how many are in the room, not who.
        connect_seq: the log's last seq when it was admitted; earlier events cannot end it.
    """

    user_id: str | None = None

    __slots__ = (
        "_expiry_timer", "_inbox", "_ping_place", "_work", "connect_seq", "context",
        "counts_only", "feed", "identity", "needs_admin", "proof", "session_id", "socket",
    )  # fmt: skip

    def __init__(
        self,
        socket: LiveSocket,
        context: ConnectionContext,
        *,
        session_id: str,
        identity: dict[str, Any],
        proof: Proof | None,
        counts_only: bool = False,
        needs_admin: bool = False,
    ) -> None:
        self.socket = socket
        self.context = context
        self.session_id = session_id
        self.identity = identity
        self.connect_seq = 0
        self.feed: Feed | None = None
        self.proof = proof
        self.counts_only = counts_only
        self.needs_admin = needs_admin
        self._inbox: list[Heard] = []
        self._work: asyncio.Task[None] | None = None
        self._ping_place = -1
        self._expiry_timer: asyncio.TimerHandle | None = None

    @property
    def expires_at(self) -> datetime | None:
        """When its token runs out."""
        return None if self.proof is None else self.proof.expires_at

    # -- the feed's subscriber ----------------------------------------------------------------

    @property
    def writer(self) -> Callable[[bytes], None]:
        return self.write if self.socket.is_closing else self.socket.writer

    def write(self, frames: bytes) -> None:
        self.socket.write(frames)

    def welcome(self, feed: Feed, *, since: int, counts: Counts | None, resumed: bool) -> None:
        """Greets: what this connection is, and the snapshot or that the missed events follow."""
        snapshot = RESUMED if resumed else feed.snapshot(counts_only=self.counts_only)
        self.greet(feed, since=since, counts=counts, resumed=resumed, snapshot=snapshot)

    def greet(
        self,
        feed: Feed,
        *,
        since: int,
        counts: Counts | None,
        resumed: bool,
        snapshot: Snapshot,
    ) -> None:
        """Sends a `welcome`; `snapshot` has the members that tell the state of `since`."""
        self.feed = feed  # from here on, whatever ends the connection unsubscribes it there
        is_room, members = feed.key.kind == ROOM, snapshot.members
        people, online = counts if counts is not None and self.counts_only else (UNSET, UNSET)
        welcome = Welcome(
            room_id=feed.key.id if is_room else UNSET,
            interview_id=UNSET if is_room else feed.key.id,
            seq=since,
            epoch=feed.epoch,
            resumed=resumed,
            room=members.get("room", UNSET),
            participants=members.get("participants", UNSET),
            interview=members.get("interview", UNSET),
            participant_count=people,
            online_count=online,
            identity=self.identity,
            session_id=self.session_id,
            ping_ms=int(PING_SECONDS * 1000),
            grace_ms=int(self.context.grace_seconds * 1000),
            token_expires_at=timestamp(self.expires_at) if self.expires_at else UNSET,
            now=now(),
        )
        pieces = greeting(welcome, snapshot)
        size = sum(map(len, pieces))
        slow_consumer.allow_welcome(self.socket, self.context.buffer_bytes, size)
        self.socket.write_pieces(pieces)

    def close(self, code: CloseCode, *, after_ms: int | None = None) -> None:
        """Says bye and closes. What the feed has pending is not sent first: see `say_bye`."""
        if self.socket.is_closing:
            return
        self._leave_feed()
        self.socket.close(code, code.reason, bye_frame(code, after_ms=after_ms))

    def say_bye(self, code: CloseCode, *, after_ms: int | None = None) -> None:
        """Sends what the feed has pending, then says bye and closes."""
        self._flush()
        self.close(code, after_ms=after_ms)

    def _flush(self) -> None:
        if self.feed is not None:
            self.context.hub.broadcast.flush(self.feed, self)

    def _leave_feed(self) -> None:
        feed = self.feed
        if feed is not None:
            self.context.hub.resume.detach(feed, self)

    # -- its life -----------------------------------------------------------------------------

    def hold(self, early: Iterable[Heard]) -> None:
        """Keeps what the client says before its greeting, to be answered after that.

        Args:
            early: what it has said during the handshake.
        """
        self.socket.limit_unsent(self.context.buffer_bytes)
        self._work = asyncio.current_task()
        self._inbox += early

    async def open(self) -> int | None:
        """What an opening connection writes; the log's last seq then, where that is known."""
        return self.connect_seq or None

    def starts_after(self, since: int | None) -> int | None:
        """The seq after which events are sent to an opening connection; None = a snapshot.

        Args:
            since: what the client asked for.
        """
        return since

    def give_up_row(self) -> None:
        """Deletes the connection's row of `connections`, where there is one."""

    def start(self, feed: Feed) -> None:
        """It has been greeted: from now on it is pinged, and its token runs."""
        if self.socket.is_closing:
            self.context.hub.resume.detach(feed, self)
            return
        slow_consumer.allow_what_is_unsent(self.socket, self.context.buffer_bytes)
        self._ping_place = self.context.pings.join(self, anywhere=True)
        self._time_token()
        self._work = None
        if feed.state is not None and not feed.state.admits(self.user_id):
            self.on_not_admitted()
        self._read_on()

    def on_not_admitted(self) -> None:
        """The room ended, or its participant left, while this connection was being admitted."""
        self.say_bye(CloseCode.ENDED)

    def _time_token(self) -> None:
        """Sets the timer anew where the token ends before pings have looked again."""
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
            self._expiry_timer = None
        if self.expires_at is not None and not self.socket.is_closing:
            left = (self.expires_at - datetime.now(UTC)).total_seconds()
            if left < _TOKEN_AHEAD_SECONDS:
                self._expiry_timer = self.socket.loop.call_later(left, self._expire)

    def _expire(self) -> None:
        self.say_bye(CloseCode.TOKEN_EXPIRED)

    def on_beat(self) -> None:
        """A `ping` is due."""
        if self.socket.is_closing or self.feed is None:
            return
        self._say_seq(Ping)
        slow_consumer.allow_buffer_alone(self.socket, self.context.buffer_bytes)
        self._time_token()

    def on_late(self) -> None:
        """The process did not run: the token may have ended meanwhile, and the ping is put off."""
        self._time_token()

    def _say_seq(self, kind: type[Ping | Pong]) -> None:
        """`ping` or `pong`: the feed's last seq; every event up to that seq is sent first."""
        self._flush()
        if self.feed is not None and self.feed.seq is not None:
            told = kind(seq=self.feed.seq, epoch=self.feed.epoch, now=now())
            self.socket.write(told.to_bytes())

    def on_lost(self) -> None:
        """The TCP connection is gone."""
        self._leave_feed()
        self.context.pings.leave(self._ping_place, self)
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
            self._expiry_timer = None
        self._inbox.clear()
        self.context.forget(self)

    def on_slow(self) -> None:
        """More than `LIVE_BUFFER` is unsent: hangs up; the client may resume by `since`."""
        slow_consumer.note_slow_consumer(self.session_id, self.socket)
        self.close(CloseCode.TOO_SLOW)

    # -- what the client says -----------------------------------------------------------------

    def on_text(self, text: bytes) -> None:
        if self._work is not None:
            self._inbox.append(text)  # in order; the rate bounds how many
            return
        self._read(text)

    def on_refused(self, why: Refused) -> None:
        if self._work is not None and why is not Refused.FLOOD:
            self._inbox.append(why)  # in order, and nothing is sent before the greeting
            return
        match why:
            case Refused.FLOOD:
                self.say_bye(CloseCode.RATE_LIMITED)
            case Refused.TOO_FAST:
                self._refuse_text("RATE_LIMITED", "发送过于频繁")
            case Refused.CONTROL_TOO_FAST:
                self._complain("RATE_LIMITED", "发送过于频繁")
            case Refused.FRAGMENTS:
                self._refuse_text("FRAME_TOO_LARGE", "消息分片过多")
            case Refused.BINARY:
                self._complain("INVALID_FRAME", "只接受文本帧")

    def _read(self, text: bytes) -> None:
        if len(text) > MAX_TEXT_BYTES:
            self._refuse_text("FRAME_TOO_LARGE", "消息过长")
            return
        try:
            message = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            self._refuse_text("INVALID_FRAME", "消息不是有效的JSON")
            return
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            self._refuse_text("INVALID_FRAME", "消息缺少type")
            return
        self._hear(message["type"], message)

    def _hear(self, kind: str, message: dict[str, Any]) -> None:
        match kind:
            case "ping":
                self._say_seq(Pong)
            case "sync":
                self._sync(message.get("since", UNSET), message.get("epoch"))
            case "refresh":
                self._refresh(message.get("token"))
            case _:
                self._complain("INVALID_FRAME", "未知的消息类型")

    def _refuse_text(self, code: str, sentence: str) -> None:
        """A text message that is not understood."""
        self._complain(code, sentence)

    def _complain(self, code: str, sentence: str) -> None:
        self._flush()
        self.socket.write(Error(code=code, message=sentence).to_bytes())

    def _do(self, story: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine; what the client says meanwhile is read when that has ended."""
        self._work = self.socket.loop.create_task(self._carry_out(story))

    async def _carry_out(self, story: Coroutine[Any, Any, None]) -> None:
        try:
            await story
        except Unavailable:
            self._complain("SERVICE_UNAVAILABLE", "服务暂时不可用，请稍后再试")
        except Exception as error:
            log.error("frame_failed", sessionId=self.session_id, exc_info=error)
            self.say_bye(CloseCode.SERVER_ERROR)
        finally:
            if self._work is asyncio.current_task():
                self._work = None
        self._read_on()

    def _read_on(self) -> None:
        while self._inbox and self._work is None and not self.socket.is_closing:
            heard = self._inbox.pop(0)
            if isinstance(heard, bytes):
                self._read(heard)
            else:
                self.on_refused(heard)

    def _sync(self, since: object, epoch: object) -> None:
        if since is UNSET:
            self._do(self._resume(None, None))
        elif type(since) is not int or since < 0:
            self._complain("INVALID_FRAME", "since必须是不小于0的整数")
        elif epoch is not None and not isinstance(epoch, str):
            self._complain("INVALID_FRAME", "epoch必须是字符串")
        else:
            self._do(self._resume(since, epoch))

    async def _resume(self, since: int | None, epoch: str | None) -> None:
        if self.feed is not None:
            await self.context.hub.resume.sync(self.feed, self, since=since, epoch=epoch)

    def _refresh(self, token: object) -> None:
        if not isinstance(token, str) or not token:
            self._complain("INVALID_FRAME", "缺少token")
        else:
            self._do(self._take_token(token))

    async def _take_token(self, token: str) -> None:
        try:
            proof = await self.context.verify(token)
        except Unavailable:
            raise
        except CoordinatorError as refusal:
            self._complain(refusal.code, refusal.message)
            return
        if not self.is_same(proof):
            self.say_bye(CloseCode.NOT_ALLOWED)
            return
        self.proof = proof
        self._time_token()
        self._flush()
        self.socket.write(Refreshed(token_expires_at=timestamp(proof.expires_at)).to_bytes())

    def is_same(self, proof: Proof) -> bool:
        """True where a token is this connection's own; a guest's is good for its room alone."""
        here = self.feed.key.id if self.feed is not None else None
        return (
            proof.user_id == self.identity.get("userId")
            and getattr(proof.holder, "room_id", here) == here
        )

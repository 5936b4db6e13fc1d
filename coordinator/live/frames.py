"""The frames of a live connection, described by one Struct each, and their bytes.

    {"type": "ping", "seq": 7, "epoch": "k3v9", "now": "2026-01-01T10:00:00.000Z"}

A server's frame is not masked and (with permessage-deflate off) the same for everybody, so the
bytes of an event are built once (RFC 6455, section 5.2) and written to each connection as they are.
Events are encoded as the log has them, members that this version does not know included; the
Structs of events say what this version writes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from coordinator.domain.close_codes import CloseCode, Retry
from coordinator.domain.events import Event, timestamp
from coordinator.domain.roster import Counts

_TEXT = 0x81  # FIN and opcode 1
_encode = msgspec.json.Encoder().encode


class JsonFrame(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="type", rename="camel"):
    """A JSON object with a `type`; members that are unset are left out."""

    def to_bytes(self) -> bytes:
        """The frame as it goes to the socket."""
        return text_frame(_encode(self))


# -- what the server says ------------------------------------------------------------------------


class Welcome(JsonFrame, kw_only=True, tag="welcome"):
    """The greeting: the state as of `seq`, or (`resumed`) that the events after it follow.

    Attributes:
        identity: who this connection is: `{"userId": "guest_…", "role": "guest"}`.
        participant_count, online_count: with `roster=none`, in place of `participants`.
    """

    room_id: str | UnsetType = UNSET
    interview_id: str | UnsetType = UNSET
    seq: int
    epoch: str
    resumed: bool
    room: Raw | UnsetType = UNSET
    participants: Raw | UnsetType = UNSET
    interview: Raw | UnsetType = UNSET
    participant_count: int | UnsetType = UNSET
    online_count: int | UnsetType = UNSET
    identity: dict[str, Any] = msgspec.field(name="self")
    session_id: str
    ping_ms: int
    grace_ms: int
    token_expires_at: str | UnsetType = UNSET
    now: str


class Ping(JsonFrame, kw_only=True, tag="ping"):
    """A sign of life; `seq` is the log's last one as this node knows it."""

    seq: int
    epoch: str
    now: str


class Pong(JsonFrame, kw_only=True, tag="pong"):
    """The answer to a client's `ping`."""

    seq: int
    epoch: str
    now: str


class Refreshed(JsonFrame, kw_only=True, tag="refreshed"):
    """The answer to a `refresh`."""

    token_expires_at: str


class Error(JsonFrame, kw_only=True, tag="error"):
    """A bad frame of the client's; the connection stays. `message` is for its user."""

    code: str
    message: str


class Bye(JsonFrame, kw_only=True, tag="bye"):
    """Said before every close by the server."""

    code: int
    reason: str
    retry: Retry
    after_ms: int | UnsetType = UNSET


# -- events of a room ----------------------------------------------------------------------------


class LiveRoom(msgspec.Struct, kw_only=True, rename="camel"):
    """A room in a snapshot."""

    room_name: str
    host_name: str
    status: Literal["active", "ended"]
    created_at: str


class ParticipantName(msgspec.Struct, kw_only=True, rename="camel"):
    """A participant as most events name it."""

    user_id: str
    user_name: str
    role: Literal["host", "guest"]


class LiveParticipant(msgspec.Struct, kw_only=True, rename="camel"):
    """A participant in a snapshot."""

    user_id: str
    user_name: str
    role: Literal["host", "guest"]
    identity: str | UnsetType = UNSET
    joined_at: str
    connection: Literal["none", "online", "away"]


class RoomEvent(JsonFrame, kw_only=True):
    """One change of a room, as its log has it; the counts after it where the roster is `none`."""

    room_id: str
    seq: int
    at: str
    participant_count: int | UnsetType = UNSET
    online_count: int | UnsetType = UNSET


class RoomCreated(RoomEvent, kw_only=True, tag="room_created"):
    """The first event of every room; `participant` is its host."""

    room: LiveRoom
    participant: LiveParticipant


class ParticipantJoined(RoomEvent, kw_only=True, tag="participant_joined"):
    """Somebody is in the room who was not."""

    participant: LiveParticipant


class ParticipantOnline(RoomEvent, kw_only=True, tag="participant_online"):
    """The first live connection of somebody who had joined over REST."""

    participant: ParticipantName


class ParticipantAway(RoomEvent, kw_only=True, tag="participant_away"):
    """The last live connection of a participant dropped; its seat is kept until `leaveAt`."""

    participant: ParticipantName
    leave_at: str


class ParticipantBack(RoomEvent, kw_only=True, tag="participant_back"):
    """Somebody who was away has returned in time."""

    participant: ParticipantName


class ParticipantLeft(RoomEvent, kw_only=True, tag="participant_left"):
    """A participant left, was removed, or did not return in time."""

    participant: ParticipantName
    reason: Literal["left", "disconnected", "removed"]


class RoomEndedEvent(RoomEvent, kw_only=True, tag="room_ended"):
    """Nobody is in the room any more; no event follows. `by`: a userId, or `system`."""

    ended_at: str
    by: str
    reason: Literal["ended", "host_absent", "empty", "expired"]


# -- events of an interview ----------------------------------------------------------------------


class InterviewEvent(JsonFrame, kw_only=True):
    """Where an interview stands after a change."""

    interview_id: str
    seq: int
    at: str
    status: Literal["IN_PROGRESS", "COMPLETED", "CANCELLED"]
    current_index: int
    answered_count: int
    total_questions: int
    total_score: float | UnsetType = UNSET
    grade: str | UnsetType = UNSET


class InterviewCreated(InterviewEvent, kw_only=True, tag="interview_created"):
    """The first event of every interview."""


class InterviewUpdated(InterviewEvent, kw_only=True, tag="interview_updated"):
    """Something about the interview has changed."""


# -- what the client says ------------------------------------------------------------------------


class Auth(JsonFrame, kw_only=True, tag="auth"):
    """The first frame of a client that can present its token by no header or subprotocol."""

    token: str | UnsetType = UNSET
    key: str | UnsetType = UNSET


class ClientPing(JsonFrame, kw_only=True, tag="ping"):
    """Asks for a `pong`."""


class Sync(JsonFrame, kw_only=True, tag="sync"):
    """Asks for the events after `since` again; without it, for a snapshot.

    `epoch` is the history that `since` belongs to.
    """

    since: int | UnsetType = UNSET
    epoch: str | UnsetType = UNSET


class Refresh(JsonFrame, kw_only=True, tag="refresh"):
    """Brings a new token of the same identity."""

    token: str


class LeaveFrame(JsonFrame, kw_only=True, tag="leave"):
    """The participant leaves the room; an observer only closes."""


class Away(JsonFrame, kw_only=True, tag="away"):
    """The client goes to the background: this connection no longer makes anybody `online`."""


# -- bytes ---------------------------------------------------------------------------------------


def frame_header(size: int) -> bytes:
    """What stands before the `size` bytes of an unfragmented text frame of a server."""
    if size < 126:
        return bytes((_TEXT, size))
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


def text_frame(payload: bytes) -> bytes:
    """One unfragmented text frame of a server."""
    return frame_header(len(payload)) + payload


class EventFrame:
    """An event as it is sent: the same bytes for everybody.

    Attributes:
        counts_before, counts: of the people in the room, where the feed counts them; None where it
            is not known.
        plain: the frame.
    """

    __slots__ = ("counts", "counts_before", "epoch", "plain", "seq")

    def __init__(
        self, event: Event, counts_before: Counts | None = None, counts: Counts | None = None
    ) -> None:
        self.seq, self.epoch = event.seq, event.epoch
        self.plain = text_frame(_encode(event.body()))
        self.counts_before = counts_before
        self.counts = counts

    def counted(self) -> bytes:
        """The frame for who is told counts: with `participantCount` and `onlineCount`."""
        if self.counts is None:
            return self.plain
        told = _encode(_Counted(*self.counts))
        return text_frame(_payload(self.plain)[:-1] + b"," + told[1:])


class _Counted(msgspec.Struct, rename="camel"):
    participant_count: int
    online_count: int


def _payload(frame: bytes) -> bytes:
    size = frame[1]
    return frame[2 if size < 126 else 4 if size == 126 else 10 :]


def bye_frame(code: CloseCode, *, reason: str | None = None, after_ms: int | None = None) -> bytes:
    """What is said before every close by the server; `reason` where the code's is too general."""
    after = UNSET if after_ms is None else after_ms
    return Bye(code=code, reason=reason or code.reason, retry=code.retry, after_ms=after).to_bytes()


def now() -> str:
    """This node's clock, for `now` members (never for the log)."""
    return timestamp(datetime.now(UTC))

"""Close codes: why a live connection ends, and what its client does then.

The families are hundreds, so that a client may decide by `code / 100`:

    40xx  stop, and tell the user
    41xx  reconnect with back-off
    42xx  reconnect soon, with `since`
    43xx  get a new token, then reconnect

Each code is told twice: in a `bye` frame (`{"type": "bye", "code": 4010, "reason": "the room has
ended", "retry": "no"}`), and in the close frame after it.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Retry(StrEnum):
    """What a client does after a close: the `retry` of a `bye`."""

    NO = "no"
    BACKOFF = "backoff"
    SOON = "soon"
    AUTH = "auth"


class CloseCode(IntEnum):
    """A code with its `reason` in words, and the `retry` that it asks of the client."""

    reason: str
    retry: Retry

    def __new__(cls, number: int, reason: str, retry: Retry) -> CloseCode:
        code = int.__new__(cls, number)
        code._value_ = number
        code.reason, code.retry = reason, retry
        return code

    DONE = 1000, "left", Retry.NO
    BAD_REQUEST = 4001, "bad request", Retry.NO
    NOT_ALLOWED = 4003, "not allowed in this room", Retry.NO
    NOT_FOUND = 4004, "no such room", Retry.NO
    REMOVED = 4005, "removed from the room", Retry.NO
    REPLACED = 4006, "replaced by a newer connection", Retry.NO
    LEFT = 4009, "left the room", Retry.NO
    ENDED = 4010, "the room has ended", Retry.NO
    OVER_CAPACITY = 4100, "over capacity", Retry.BACKOFF
    TOO_SLOW = 4101, "too slow", Retry.BACKOFF
    RATE_LIMITED = 4102, "rate limited", Retry.BACKOFF
    SERVER_ERROR = 4103, "server error", Retry.BACKOFF
    DRAINING = 4200, "this node is draining", Retry.SOON
    CANNOT_CONTINUE = 4201, "this node cannot continue the stream", Retry.SOON
    TOKEN_EXPIRED = 4300, "token expired", Retry.AUTH
    TOKEN_INVALID = 4301, "token missing or invalid", Retry.AUTH

    @classmethod
    def told(cls, number: int) -> CloseCode:
        """The code of that number; one that only a newer version knows asks for a return."""
        return next((code for code in cls if code == number), cls.CANNOT_CONTINUE)

    @property
    def row_is_gone(self) -> bool:
        """True where the change that this code tells of has deleted the connection's row."""
        return self in _DELETES_ROW


_DELETES_ROW = frozenset({CloseCode.REMOVED, CloseCode.REPLACED, CloseCode.LEFT, CloseCode.ENDED})

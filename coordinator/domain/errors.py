"""What can go wrong, as words.

    CoordinatorError
    ├── InvalidParams            400 INVALID_PARAMS       a member is missing or wrong
    ├── RoomExists               400 ROOM_EXISTS
    ├── RoomEnded                400 ROOM_ENDED
    ├── RoomFull                 400 ROOM_FULL
    ├── Unauthorized             401 UNAUTHORIZED         no proof, or a broken one
    │   ├── TokenExpired         401 TOKEN_EXPIRED        well signed, too old
    │   └── LoginFailed          401 LOGIN_FAILED         WeChat refuses the code
    ├── Forbidden                403 FORBIDDEN
    │   └── Removed              403 FORBIDDEN            put out of the room for good
    ├── NotFound                 404 NOT_FOUND
    │   └── RoomNotFound         404 ROOM_NOT_FOUND
    ├── MethodNotAllowed         405 METHOD_NOT_ALLOWED
    ├── PayloadTooLarge          413 PAYLOAD_TOO_LARGE
    ├── RateLimited              429 RATE_LIMITED         carries retry_after
    └── Unavailable              503 SERVICE_UNAVAILABLE  Postgres, WeChat or a setting is away
        └── LeaseLost            (live only)              this node was declared dead

Raised where the situation is known, translated to HTTP or close codes at the edge (`web/errors.py`,
`web/handshake.py`), never in between. The sentences are what a user of the mini-program reads.
"""

from __future__ import annotations

from typing import ClassVar


class CoordinatorError(Exception):
    """Something that a caller is told about.

    Attributes:
        status: the HTTP status.
        code: the stable name of the situation.
        message: a short Chinese sentence for the user.
        in_english: the same for who types a command; where none was said, `message`.
        retry_after: seconds after which trying again makes sense, or None.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "INTERNAL_ERROR"
    default: ClassVar[str] = "服务器错误"

    def __init__(
        self, message: str | None = None, *, in_english: str | None = None,
        retry_after: int | None = None,
    ) -> None:  # fmt: skip
        self.message = message or self.default
        self.in_english = in_english or self.message
        self.retry_after = retry_after
        super().__init__(self.message)


class InvalidParams(CoordinatorError):
    status, code, default = 400, "INVALID_PARAMS", "参数错误"

    @classmethod
    def missing(cls, member: str) -> InvalidParams:
        """A required member is absent or blank."""
        return cls(f"参数不完整：{member}", in_english=f"{member}: missing")

    @classmethod
    def wrong(cls, member: str, why: str = "", *, in_english: str = "wrong") -> InvalidParams:
        """A member has the wrong type, form or length; `why` is a Chinese half-sentence."""
        message = f"参数错误：{member}" + (f"，{why}" if why else "")
        return cls(message, in_english=f"{member}: {in_english}")


class RoomExists(CoordinatorError):
    status, code, default = 400, "ROOM_EXISTS", "房间号已存在"


class RoomEnded(CoordinatorError):
    status, code, default = 400, "ROOM_ENDED", "房间已结束"


class RoomFull(CoordinatorError):
    status, code, default = 400, "ROOM_FULL", "房间已满"


class Unauthorized(CoordinatorError):
    status, code, default = 401, "UNAUTHORIZED", "未授权"


class TokenExpired(Unauthorized):
    code, default = "TOKEN_EXPIRED", "Token过期"


class LoginFailed(Unauthorized):
    code, default = "LOGIN_FAILED", "登录失败，请重试"


class Forbidden(CoordinatorError):
    status, code, default = 403, "FORBIDDEN", "禁止访问"


class Removed(Forbidden):
    default = "已被移出房间"


class NotFound(CoordinatorError):
    status, code, default = 404, "NOT_FOUND", "资源不存在"


class RoomNotFound(NotFound):
    code, default = "ROOM_NOT_FOUND", "房间不存在"


class MethodNotAllowed(CoordinatorError):
    status, code, default = 405, "METHOD_NOT_ALLOWED", "请求方法不允许"


class PayloadTooLarge(CoordinatorError):
    status, code, default = 413, "PAYLOAD_TOO_LARGE", "请求内容过大"


class RateLimited(CoordinatorError):
    status, code, default = 429, "RATE_LIMITED", "请求过于频繁，请稍后再试"


class Unavailable(CoordinatorError):
    status, code, default = 503, "SERVICE_UNAVAILABLE", "服务暂时不可用，请稍后再试"


class LeaseLost(Unavailable):
    """This node's row is gone: another node declared it dead, or it was frozen."""

"""WeChat's calls, and what the errcodes of their answers tell us to do.

Sources: developers.weixin.qq.com, the pages code2Session, getStableAccessToken, getPhoneNumber and
getUnlimitedQRCode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from coordinator.domain.errors import CoordinatorError, InvalidParams, LoginFailed


class Meaning(Enum):
    """What an errcode tells us to do."""

    BUSY = auto()
    """Try again shortly."""
    STALE_TOKEN = auto()
    """Get another access token, then try again once."""
    BAD_CODE = auto()
    """The user's one-time code is wrong, too old or used."""
    BLOCKED = auto()
    """The user is blocked by WeChat."""
    OTHER_APP = auto()
    """Our appid is wrong, or the code is another application's."""
    TOO_OFTEN = auto()
    """This user, this minute."""
    BAD_ARGUMENT = auto()
    """The caller's other input."""
    BROKEN = auto()
    """Settings, account or quota: no user can do anything about it, an operator must."""


ERRCODES: Mapping[int, Meaning] = {
    -1: Meaning.BUSY,
    40001: Meaning.STALE_TOKEN,  # from a call without a token: the secret is wrong
    40014: Meaning.STALE_TOKEN,
    42001: Meaning.STALE_TOKEN,
    40029: Meaning.BAD_CODE,
    40163: Meaning.BAD_CODE,  # used already
    40226: Meaning.BLOCKED,
    40013: Meaning.OTHER_APP,
    45011: Meaning.TOO_OFTEN,
    40129: Meaning.BAD_ARGUMENT,  # scene
    40169: Meaning.BAD_ARGUMENT,  # scene
    40097: Meaning.BAD_ARGUMENT,
    85096: Meaning.BAD_ARGUMENT,  # scancode_time is reserved
    41030: Meaning.BAD_ARGUMENT,  # no such page, or the application is not published
    40125: Meaning.BROKEN,  # secret wrong
    41002: Meaning.BROKEN,  # appid missing
    41004: Meaning.BROKEN,  # secret missing
    40243: Meaning.BROKEN,  # secret frozen
    40164: Meaning.BROKEN,  # our address is not on the list
    61004: Meaning.BROKEN,  # our address is not on the list
    45009: Meaning.BROKEN,  # quota
    45063: Meaning.BROKEN,  # no permission
    48001: Meaning.BROKEN,  # no permission
    48004: Meaning.BROKEN,  # banned
    50002: Meaning.BROKEN,  # limited
    41001: Meaning.BROKEN,  # the access token is missing: our bug, as are those below
    43002: Meaning.BROKEN,
    43003: Meaning.BROKEN,
    44002: Meaning.BROKEN,
    47001: Meaning.BROKEN,
}
"""Every errcode that we know; any other is `BROKEN`."""


@dataclass(frozen=True, slots=True)
class WeChatCall:
    """One of WeChat's calls.

    Attributes:
        name: for the log.
        one_time: it uses up a code. Where its answer is lost the code may be used, so that a second
            try would blame the user for our time-out.
        user_faults: which refusals are the caller's, and what makes our word for them.
    """

    name: str
    method: str
    path: str
    one_time: bool = False
    user_faults: Mapping[Meaning, Callable[[], CoordinatorError]] = field(default_factory=dict)


TOKEN = WeChatCall("stable_token", "POST", "/cgi-bin/stable_token")

LOGIN = WeChatCall(
    "jscode2session",
    "GET",
    "/sns/jscode2session",
    one_time=True,
    user_faults={Meaning.BAD_CODE: LoginFailed, Meaning.BLOCKED: LoginFailed},
)


def bad_phone_code() -> InvalidParams:
    return InvalidParams.wrong("code", "无效或已过期")


def _bad_code_order() -> InvalidParams:
    return InvalidParams("参数错误：scene或page不被微信接受")


PHONE = WeChatCall(
    "getuserphonenumber",
    "POST",
    "/wxa/business/getuserphonenumber",
    one_time=True,
    user_faults=dict.fromkeys(
        (Meaning.BAD_CODE, Meaning.BLOCKED, Meaning.OTHER_APP), bad_phone_code
    ),
)

CODE = WeChatCall(
    "getwxacodeunlimit",
    "POST",
    "/wxa/getwxacodeunlimit",
    user_faults={Meaning.BAD_ARGUMENT: _bad_code_order},
)

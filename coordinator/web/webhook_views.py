"""Bodies and answers of the webhooks' calls."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from coordinator.domain.errors import InvalidParams
from coordinator.domain.events import ROOM, timestamp
from coordinator.domain.webhook import TYPES
from coordinator.services.webhooks import Status, TestAnswer
from coordinator.store.webhook_repairs import Parked
from coordinator.web.bodies import Body, optional, required, shown_optional, shown_required
from coordinator.web.views import View

ALL = "all"
_LONGEST_ID = 1000

EXAMPLE = {
    "id": "wh_0123456789abcdef",
    "name": "crm",
    "url": "https://crm.example.com/hooks",
    "events": ["participant_left", "room_ended", "interview_completed"],
    "enabled": True,
    "createdAt": "2024-01-01T10:00:00.000Z",
    "lagSeconds": 0.0,
    "lastAnswer": "200",
    "lastAnswerAt": "2024-01-01T10:05:00.000Z",
    "failing": 0,
    "parked": 0,
}
SECRET_EXAMPLE = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


Types = Annotated[
    list[Annotated[str, msgspec.Meta(extra_json_schema={"enum": [ALL, *TYPES]})]],
    msgspec.Meta(extra_json_schema={"minItems": 1}),
]
"""Event types as they are documented."""

_URL = r"^https?://[^\s\x00-\x1f\x7f-\x9f]+$"
_NAME = r"[\w.-]{1,100}"


class AddBody(Body):
    """`events`: the types that are wanted; absent, or `all` among them, is all."""

    url: Annotated[str, shown_required(2000, _URL)]
    events: Types = msgspec.field(default_factory=lambda: [ALL])
    tenant: Annotated[str, shown_optional(64)] = ""
    name: Annotated[str, shown_optional(100, f"^({_NAME})?$")] = ""

    def __post_init__(self) -> None:
        self.url = required("url", self.url, 2000)
        self.tenant = optional("tenant", self.tenant, 64)
        self.name = optional("name", self.name, 100)


class LenientAddBody(AddBody):
    """What is taken, beside what is documented: the types as the command has them, `"a,b"`."""

    events: list[str] | str = ALL  # type: ignore[assignment]  # wider on purpose


class ChangeBody(Body):
    """What is absent stays. `enabled` false stops the sending, true goes on where it stopped."""

    url: Annotated[str, shown_required(2000, _URL)] | UnsetType = UNSET
    events: Types | UnsetType = UNSET
    name: Annotated[str, shown_required(100, f"^{_NAME}$")] | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.url is not UNSET:
            self.url = required("url", self.url, 2000)
        if self.name is not UNSET:
            self.name = required("name", self.name, 100)


class LenientChangeBody(ChangeBody):
    """As `LenientAddBody`."""

    events: list[str] | str | UnsetType = UNSET  # type: ignore[assignment]  # wider on purpose


class ReplayBody(Body, rename={"since": "from"}):
    """Either of them: `from` a moment on (ISO 8601), or one room or interview as a whole."""

    since: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})] = ""
    room: Annotated[str, shown_optional(_LONGEST_ID)] = ""

    def __post_init__(self) -> None:
        self.room = optional("room", self.room, _LONGEST_ID)


class RetryBody(Body):
    """`room`: a room or an interview; absent = all that failed."""

    room: Annotated[str, shown_optional(_LONGEST_ID)] = ""

    def __post_init__(self) -> None:
        self.room = optional("room", self.room, _LONGEST_ID)


class ParkedView(View, frozen=True, kw_only=True):
    room_id: str | None = None
    interview_id: str | None = None
    position: int
    parked_at: str
    last_answer: str | None = None


class WebhookView(View, frozen=True, kw_only=True):
    """`lag_seconds`: the age of the oldest event that it lacks; `failing` and `parked` count rooms
    and interviews; `last_answer` is a status or why there was none.
    """

    id: str
    name: str
    url: str
    events: Sequence[str]
    tenant: str | None = None
    enabled: bool
    disabled_at: str | None = None
    disabled_reason: str | None = None
    created_at: str
    lag_seconds: float | UnsetType = UNSET
    last_answer: str | None = None
    last_answer_at: str | None = None
    failing_since: str | None = None
    failing: int
    parked: int
    parked_logs: list[ParkedView] | UnsetType = UNSET
    old_secret_until: str | None = None
    secret: str | None = None


class WebhookListView(View, frozen=True, kw_only=True):
    list: Sequence[WebhookView]


class SecretView(View, frozen=True, kw_only=True):
    secret: str
    old_secret_until: str


class TestView(View, frozen=True, kw_only=True):
    """`status` is absent where nothing answered; `body` then says why."""

    success: bool
    status: int | None = None
    body: str
    milliseconds: int


class RetriedView(View, frozen=True, kw_only=True):
    retried: int


class IdView(View, frozen=True, kw_only=True):
    id: str


def shown_webhook(status: Status, *, secret: str | None = None, whole: bool = False) -> WebhookView:
    """A webhook as admins see it; `whole` = with the logs that are parked."""
    endpoint = status.endpoint
    until = endpoint.old_secret_until
    return WebhookView(
        id=endpoint.id, name=endpoint.name, url=endpoint.url,
        events=[ALL] if endpoint.events is None else endpoint.events,
        tenant=endpoint.enterprise_id, enabled=endpoint.disabled_at is None,
        disabled_at=_shown(endpoint.disabled_at), disabled_reason=endpoint.disabled_reason,
        created_at=timestamp(endpoint.created_at),
        lag_seconds=_seconds(status.lag),
        last_answer=endpoint.last_answer, last_answer_at=_shown(endpoint.last_answer_at),
        failing_since=_shown(endpoint.failing_since), failing=status.failing,
        parked=status.parked,
        parked_logs=[_shown_parked(log) for log in status.parked_logs] if whole else UNSET,
        old_secret_until=_shown(until) if until is not None and until > endpoint.now else None,
        secret=secret,
    )  # fmt: skip


def _shown(moment: datetime | None) -> str | None:
    return None if moment is None else timestamp(moment)


def _seconds(lag: timedelta | None) -> float | UnsetType:
    return UNSET if lag is None else round(lag.total_seconds(), 3)


def _shown_parked(log: Parked) -> ParkedView:
    is_room = log.feed.kind == ROOM
    return ParkedView(
        room_id=log.feed.id if is_room else None,
        interview_id=None if is_room else log.feed.id,
        position=log.position, parked_at=timestamp(log.parked_at), last_answer=log.last_answer,
    )  # fmt: skip


def wanted(events: list[str] | str) -> list[str] | None:
    """The types, or None for all: `all` stands for every other one.

    Raises:
        InvalidParams: an empty list.
    """
    names = events.split(",") if isinstance(events, str) else events
    names = [name.strip() for name in names if name.strip()]
    if ALL in names:
        return None
    if not names:
        raise InvalidParams.missing("events")
    return list(dict.fromkeys(names))


def moment_of(text: str, member: str) -> datetime:
    """A time with its zone, as ISO 8601 has it.

    Raises:
        InvalidParams: anything else.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidParams.wrong(member, "应为ISO 8601时间") from None
    if moment.tzinfo is None:
        raise InvalidParams.wrong(member, "缺少时区")
    try:
        return moment.astimezone(UTC)
    except OverflowError:  # `0001-01-01T00:00:00+14:00` is before the year 1
        raise InvalidParams.wrong(member, "超出范围") from None


def shown_test(answer: TestAnswer) -> TestView:
    return TestView(
        success=answer.is_success, status=answer.status, body=answer.body,
        milliseconds=answer.milliseconds,
    )  # fmt: skip

"""Webhooks over REST, for admins."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from litestar import Request, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import UNSET, UnsetType

from coordinator.domain.errors import (
    Forbidden,
    InvalidParams,
    NotFound,
    TokenExpired,
    Unauthorized,
    Unavailable,
)
from coordinator.domain.events import ROOM, timestamp
from coordinator.domain.people import Staff
from coordinator.services.webhooks import Status, TestAnswer, Webhooks
from coordinator.store.webhook_repairs import Parked
from coordinator.web import guards
from coordinator.web.bodies import Body, optional, read, required
from coordinator.web.openapi.operation import STAFF, Documentation, documented
from coordinator.web.views import Answer, View

PathText = FromPath[str]

TAGS = ["webhooks"]
ERRORS = (Unauthorized, TokenExpired, Forbidden)

ALL = "all"

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


class AddBody(Body):
    """`events`: the types that are wanted; absent or `["all"]` is all."""

    url: str
    events: list[str] = msgspec.field(default_factory=lambda: [ALL])
    tenant: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        self.url = required("url", self.url, 2000)
        self.tenant = optional("tenant", self.tenant, 64)
        self.name = optional("name", self.name, 100)


class _AddBody(AddBody):
    """What is taken, beside what is documented: the types as the command has them, `"a,b"`."""

    events: list[str] | str = ALL  # type: ignore[assignment]  # wider on purpose


class ChangeBody(Body):
    """What is absent stays. `enabled` false stops the sending, true goes on where it stopped."""

    url: str | UnsetType = UNSET
    events: list[str] | UnsetType = UNSET
    name: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.url is not UNSET:
            self.url = required("url", self.url, 2000)
        if self.name is not UNSET:
            self.name = required("name", self.name, 100)


class _ChangeBody(ChangeBody):
    """As `_AddBody`."""

    events: list[str] | str | UnsetType = UNSET  # type: ignore[assignment]  # wider on purpose


class ReplayBody(Body, rename={"since": "from"}):
    """Either of them: `from` a moment on (ISO 8601), or one room or interview as a whole."""

    since: str = ""
    room: str = ""


class RetryBody(Body):
    """`room`: a room or an interview; absent = all that failed."""

    room: str = ""


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


def _wanted(events: list[str] | str) -> list[str] | None:
    """The types, or None for all.

    Raises:
        InvalidParams: an empty list.
    """
    names = events.split(",") if isinstance(events, str) else events
    names = [name.strip() for name in names if name.strip()]
    if names == [ALL]:
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
    return moment


ADD = Documentation(
    body=AddBody,
    answer=WebhookView,
    security=STAFF,
    errors=[*ERRORS, Unavailable],
    request_example={name: EXAMPLE[name] for name in ("url", "events", "name")},
    response_example={**EXAMPLE, "secret": SECRET_EXAMPLE},
    message="添加成功",
)


@post(
    "/api/webhooks",
    guards=[guards.admin],
    status_code=200,
    summary="添加Webhook",
    tags=TAGS,
    operation_class=documented(ADD),
)
async def add_webhook(
    request: Request[Any, Any, Any],
    caller: NamedDependency[Staff],
    webhooks: NamedDependency[Webhooks],
) -> Answer[WebhookView]:
    """Told from now on. The secret is shown this once; without `DATA_KEYS` it is a 503."""
    body = read(_AddBody, await request.body())
    endpoint, secret = await webhooks.add(
        url=body.url, events=_wanted(body.events), tenant=body.tenant or None,
        name=body.name or None, by=caller.user_id,
    )  # fmt: skip
    status = await webhooks.status(endpoint.id)
    return Answer(data=shown_webhook(status, secret=secret), message="添加成功")


LIST = Documentation(
    answer=WebhookListView, security=STAFF, errors=[*ERRORS], response_example={"list": [EXAMPLE]}
)


@get(
    "/api/webhooks",
    guards=[guards.admin],
    summary="获取Webhook列表",
    tags=TAGS,
    operation_class=documented(LIST),
)
async def list_webhooks(webhooks: NamedDependency[Webhooks]) -> Answer[WebhookListView]:
    """All of them, with their lag, last answer and state."""
    return Answer(
        data=WebhookListView(list=[shown_webhook(status) for status in await webhooks.listed()])
    )


GET = Documentation(
    answer=WebhookView,
    security=STAFF,
    errors=[*ERRORS, NotFound],
    response_example={**EXAMPLE, "parkedLogs": []},
)


@get(
    "/api/webhooks/{webhook_id:str}",
    guards=[guards.admin],
    summary="获取Webhook",
    tags=TAGS,
    operation_class=documented(GET),
)
async def get_webhook(
    webhook_id: PathText, webhooks: NamedDependency[Webhooks]
) -> Answer[WebhookView]:
    """With the rooms and interviews that are parked."""
    return Answer(data=shown_webhook(await webhooks.status(webhook_id), whole=True))


CHANGE = Documentation(
    body=ChangeBody,
    answer=WebhookView,
    security=STAFF,
    errors=[*ERRORS, NotFound],
    request_example={"events": ["all"], "enabled": True},
    response_example={**EXAMPLE, "events": ["all"]},
)


@patch(
    "/api/webhooks/{webhook_id:str}",
    guards=[guards.admin],
    summary="修改Webhook",
    tags=TAGS,
    operation_class=documented(CHANGE),
)
async def change_webhook(
    request: Request[Any, Any, Any], webhook_id: PathText, webhooks: NamedDependency[Webhooks]
) -> Answer[WebhookView]:
    """URL, types, name; and stopping it or going on."""
    body = read(_ChangeBody, await request.body())
    if (body.url, body.name, body.events) != (UNSET, UNSET, UNSET):
        wanted = None if body.events is UNSET else _wanted(body.events)
        await webhooks.change(
            webhook_id,
            url=None if body.url is UNSET else body.url,
            name=None if body.name is UNSET else body.name,
            events=wanted,
            all_events=body.events is not UNSET and wanted is None,
        )
    if body.enabled is True:
        await webhooks.enable(webhook_id)
    elif body.enabled is False:
        await webhooks.disable(webhook_id)
    return Answer(data=shown_webhook(await webhooks.status(webhook_id), whole=True))


REMOVE = Documentation(
    answer=IdView,
    security=STAFF,
    errors=[*ERRORS, NotFound],
    response_example={"id": EXAMPLE["id"]},
)


@delete(
    "/api/webhooks/{webhook_id:str}",
    guards=[guards.admin],
    status_code=200,
    summary="删除Webhook",
    tags=TAGS,
    operation_class=documented(REMOVE),
)
async def remove_webhook(
    webhook_id: PathText, webhooks: NamedDependency[Webhooks]
) -> Answer[IdView]:
    """It is told nothing more, and where it was is forgotten."""
    await webhooks.remove(webhook_id)
    return Answer(data=IdView(id=webhook_id))


TEST = Documentation(
    answer=TestView,
    security=STAFF,
    errors=[*ERRORS, NotFound, Unavailable],
    response_example={"success": True, "status": 200, "body": "ok", "milliseconds": 12},
)


@post(
    "/api/webhooks/{webhook_id:str}/test",
    guards=[guards.admin],
    status_code=200,
    summary="测试Webhook",
    tags=TAGS,
    operation_class=documented(TEST),
)
async def test_webhook(
    webhook_id: PathText, webhooks: NamedDependency[Webhooks]
) -> Answer[TestView]:
    """Sends a `ping` now, and tells the answer."""
    return Answer(data=shown_test(await webhooks.test(webhook_id)))


def shown_test(answer: TestAnswer) -> TestView:
    return TestView(
        success=answer.is_success, status=answer.status, body=answer.body,
        milliseconds=answer.milliseconds,
    )  # fmt: skip


REPLAY = Documentation(
    body=ReplayBody,
    answer=IdView,
    security=STAFF,
    errors=[*ERRORS, NotFound],
    request_example={"from": "2026-11-01T00:00:00Z"},
    response_example={"id": EXAMPLE["id"]},
)


@post(
    "/api/webhooks/{webhook_id:str}/replay",
    guards=[guards.admin],
    status_code=200,
    summary="重新投递事件",
    tags=TAGS,
    operation_class=documented(REPLAY),
)
async def replay_webhook(
    request: Request[Any, Any, Any], webhook_id: PathText, webhooks: NamedDependency[Webhooks]
) -> Answer[IdView]:
    """Events are told once more, with the ids that they had."""
    body = read(ReplayBody, await request.body())
    await webhooks.replay(
        webhook_id,
        since=moment_of(body.since, "from") if body.since else None,
        log_id=body.room or None,
    )
    return Answer(data=IdView(id=webhook_id))


RETRY = Documentation(
    body=RetryBody,
    answer=RetriedView,
    security=STAFF,
    errors=[*ERRORS, NotFound],
    request_example={"room": "room_1234567_abc"},
    response_example={"retried": 1},
)


@post(
    "/api/webhooks/{webhook_id:str}/retry",
    guards=[guards.admin],
    status_code=200,
    summary="立即重试",
    tags=TAGS,
    operation_class=documented(RETRY),
)
async def retry_webhook(
    request: Request[Any, Any, Any], webhook_id: PathText, webhooks: NamedDependency[Webhooks]
) -> Answer[RetriedView]:
    """What failed or was parked is tried at once: one room or interview, or all."""
    body = read(RetryBody, await request.body() or b"{}")
    retried = await webhooks.retry(webhook_id, log_id=body.room or None)
    return Answer(data=RetriedView(retried=retried))


ROTATE = Documentation(
    answer=SecretView,
    security=STAFF,
    errors=[*ERRORS, NotFound, Unavailable],
    response_example={"secret": SECRET_EXAMPLE, "oldSecretUntil": "2024-01-02T10:00:00.000Z"},
)


@post(
    "/api/webhooks/{webhook_id:str}/rotate",
    guards=[guards.admin],
    status_code=200,
    summary="更换密钥",
    tags=TAGS,
    operation_class=documented(ROTATE),
)
async def rotate_webhook(
    webhook_id: PathText, webhooks: NamedDependency[Webhooks]
) -> Answer[SecretView]:
    """A new secret; for a day everything is signed with both."""
    secret, until = await webhooks.rotate(webhook_id)
    return Answer(data=SecretView(secret=secret, old_secret_until=timestamp(until)))


HANDLERS = [
    add_webhook,
    list_webhooks,
    get_webhook,
    change_webhook,
    remove_webhook,
    test_webhook,
    replay_webhook,
    retry_webhook,
    rotate_webhook,
]

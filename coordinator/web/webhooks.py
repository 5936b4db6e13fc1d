"""Webhooks over REST, for admins."""

from __future__ import annotations

from typing import Any

from litestar import Request, delete, get, patch, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath
from msgspec import UNSET

from coordinator.domain.errors import (
    Forbidden,
    NotFound,
    TokenExpired,
    Unauthorized,
    Unavailable,
)
from coordinator.domain.events import timestamp
from coordinator.domain.job import is_record_id
from coordinator.domain.people import Staff
from coordinator.services.webhooks import Webhooks
from coordinator.web import guards
from coordinator.web.bodies import body_of, read
from coordinator.web.openapi.operation import STAFF, Documentation, documented
from coordinator.web.views import Answer
from coordinator.web.webhook_views import (
    EXAMPLE,
    SECRET_EXAMPLE,
    AddBody,
    ChangeBody,
    IdView,
    LenientAddBody,
    LenientChangeBody,
    ReplayBody,
    RetriedView,
    RetryBody,
    SecretView,
    TestView,
    WebhookListView,
    WebhookView,
    moment_of,
    shown_test,
    shown_webhook,
    wanted,
)

PathText = FromPath[str]

TAGS = ["webhooks"]
ERRORS = (Unauthorized, TokenExpired, Forbidden)


async def _possible_id(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """
    Raises:
        NotFound: no webhook can have the id of the path (and Postgres cannot hold every text).
    """
    if not is_record_id(connection.path_params["webhook_id"]):
        raise NotFound("Webhook不存在")


_ONE = (guards.admin, _possible_id)
"""The guards of calls about one webhook."""


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
    body = read(LenientAddBody, await body_of(request))
    endpoint, secret = await webhooks.add(
        url=body.url, events=wanted(body.events), tenant=body.tenant or None,
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
    guards=_ONE,
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
    guards=_ONE,
    summary="修改Webhook",
    tags=TAGS,
    operation_class=documented(CHANGE),
)
async def change_webhook(
    request: Request[Any, Any, Any], webhook_id: PathText, webhooks: NamedDependency[Webhooks]
) -> Answer[WebhookView]:
    """URL, types, name; and stopping it or going on."""
    body = read(LenientChangeBody, await body_of(request))
    if (body.url, body.name, body.events) != (UNSET, UNSET, UNSET):
        types = None if body.events is UNSET else wanted(body.events)
        await webhooks.change(
            webhook_id,
            url=None if body.url is UNSET else body.url,
            name=None if body.name is UNSET else body.name,
            events=types,
            all_events=body.events is not UNSET and types is None,
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
    guards=_ONE,
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
    guards=_ONE,
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
    guards=_ONE,
    status_code=200,
    summary="重新投递事件",
    tags=TAGS,
    operation_class=documented(REPLAY),
)
async def replay_webhook(
    request: Request[Any, Any, Any], webhook_id: PathText, webhooks: NamedDependency[Webhooks]
) -> Answer[IdView]:
    """Events are told once more, with the ids that they had."""
    body = read(ReplayBody, await body_of(request))
    await webhooks.replay(
        webhook_id,
        since=moment_of(body.since, "from") if body.since else None,
        log_id=body.room or None,
    )
    return Answer(data=IdView(id=webhook_id))


RETRY = Documentation(
    body=RetryBody,
    is_body_required=False,
    answer=RetriedView,
    security=STAFF,
    errors=[*ERRORS, NotFound],
    request_example={"room": "room_1234567_abc"},
    response_example={"retried": 1},
)


@post(
    "/api/webhooks/{webhook_id:str}/retry",
    guards=_ONE,
    status_code=200,
    summary="立即重试",
    tags=TAGS,
    operation_class=documented(RETRY),
)
async def retry_webhook(
    request: Request[Any, Any, Any], webhook_id: PathText, webhooks: NamedDependency[Webhooks]
) -> Answer[RetriedView]:
    """What failed or was parked is tried at once: one room or interview, or all."""
    body = read(RetryBody, await body_of(request) or b"{}")
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
    guards=_ONE,
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

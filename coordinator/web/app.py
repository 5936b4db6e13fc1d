"""The REST side of a node as one ASGI application: the handlers, and the fast path before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.datastructures import State

from coordinator.services.rooms import RoomService
from coordinator.settings import Settings
from coordinator.web import (
    client_files,
    console,
    console_pages,
    deployment,
    guards,
    guests,
    health,
    open_api,
    room_participants,
    rooms,
    webhooks,
    wechat,
    zego,
)
from coordinator.web.bodies import MAX_BODY_BYTES
from coordinator.web.cut_short import AnsweredAtTheEnd
from coordinator.web.dependencies import injected
from coordinator.web.errors import EXCEPTION_HANDLERS
from coordinator.web.fast_path import FastPath
from coordinator.web.guards import GUARDED
from coordinator.web.heads import AnsweredLikeGet, EveryMethodAllowed, allow
from coordinator.web.http_request import Meter, Metered
from coordinator.web.lighter import lighten
from coordinator.web.limits import Limits
from coordinator.web.openapi import asyncapi
from coordinator.web.openapi.operation import openapi_config
from coordinator.web.preflight import Preflights
from coordinator.web.rooms import view_room
from coordinator.web.whole_answers import WholeForHttp10

HANDLERS = [
    *health.HANDLERS,
    *rooms.HANDLERS,
    *room_participants.HANDLERS,
    *guests.HANDLERS,
    *zego.HANDLERS,
    *wechat.HANDLERS,
    *console.HANDLERS,
    *deployment.HANDLERS,
    *open_api.HANDLERS,
    *webhooks.HANDLERS,
    *client_files.HANDLERS,
    *asyncapi.HANDLERS,
    *console_pages.HANDLERS,
]

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


def rest_app(
    services: Mapping[str, Any],
    settings: Settings,
    *,
    lifespan: Lifespan,
    more_handlers: Sequence[Any] = (),
) -> FastPath:
    """All that is answered over HTTP.

    Args:
        services: what handlers and guards ask for, by name (`web/dependencies.py`).
        more_handlers: served beside the documented ones (the pages of development).
    """
    meter = Meter()
    app = litestar_app(services, settings, lifespan=lifespan, more_handlers=more_handlers)
    parts = {name: services[name] for name in ("rooms", "access", "limits")}
    view = partial(_view_room, rooms=services["rooms"], limits=services["limits"])
    answering: Any = EveryMethodAllowed(AnsweredLikeGet(app), _methods_by_path(app))
    if app.cors_config is not None:
        answering = Preflights(answering, app.cors_config)
    answering = AnsweredAtTheEnd(answering)
    return FastPath(
        Metered(WholeForHttp10(answering), meter),
        meter,
        posts={guests.JOIN_PATH: partial(guests.join_room, **parts)},
        gets={"/api/interview/room/": view},
        prompts={guests.JOIN_PATH: partial(guests.begin_join, **parts)},
    )


async def _view_room(scope: Any, _: bytes, rooms: RoomService, limits: Limits) -> Any:
    return await view_room(scope, scope["path"].rpartition("/")[2], rooms, limits)


def litestar_app(
    services: Mapping[str, Any],
    settings: Settings,
    *,
    lifespan: Lifespan,
    more_handlers: Sequence[Any] = (),
) -> Litestar:
    """The same without the fast path."""
    origins = list(settings.allowed_origins)
    app = Litestar(
        route_handlers=[*HANDLERS, *more_handlers],
        lifespan=[lifespan],
        dependencies=injected(services) | GUARDED,
        state=State(services),
        exception_handlers=EXCEPTION_HANDLERS,
        request_max_body_size=MAX_BODY_BYTES,
        cors_config=_cors(origins) if origins else None,
        openapi_config=openapi_config(settings.base_url, [guards.limited("view")]),
        logging_config=None,
    )
    lighten(app)
    return app


def _cors(origins: list[str]) -> CORSConfig:
    """What pages of other origins may call, and read beside the body."""
    return CORSConfig(allow_origins=origins, expose_headers=["Retry-After"])


def _methods_by_path(app: Litestar) -> dict[str, str]:
    """What `Allow` lists, by the path's template: Litestar keeps a route for each handler."""
    methods: dict[str, set[str]] = {}
    for route in app.routes:
        methods.setdefault(route.path_format, set()).update(route.methods)
    return {path: allow(of_path) for path, of_path in methods.items()}

"""What Litestar does at each request for applications unlike this one, and what is done instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute


def lighten(app: Litestar) -> None:
    """Spares each request of an application what it does not need of Litestar."""
    for handler, model in _handlers(app):
        # Dependencies are resolved in tasks of their own, so that none waits for another. Ours are
        # there already, and the tasks cost as much as a query.
        model.dependency_batches = [
            {dependency} for batch in model.dependency_batches for dependency in batch
        ]
        if handler.resolve_guards() and hasattr(handler, "__dict__"):  # those of `@route` have none
            _guard_uncopied(handler)


def _handlers(app: Litestar) -> Iterator[tuple[HTTPRouteHandler, Any]]:
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            yield from route.route_handler_map.values()


def _guard_uncopied(handler: HTTPRouteHandler) -> None:
    """Gives guards the handler itself, in place of a copy for each: none of ours changes it."""
    guards = handler.resolve_guards()

    async def authorize(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        for guard in guards:
            await guard(connection, handler)  # type: ignore[misc]  # as Litestar: it is async here

    handler.authorize_connection = authorize  # type: ignore[method-assign]  # of this one alone

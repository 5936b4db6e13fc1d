"""Logs: one event per line, as JSON or as text, with the node's id; never a secret.

Our own events come from structlog; what libraries say through `logging` is printed in the same
form, from warnings on. Members that could hold a secret are struck out whoever logs them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET_WORDS = ("token", "secret", "password", "authorization", "session_key", "phone", "apikey")


def configure(*, form: str, level: str, node: str) -> None:
    """Sets up this process's logs.

    Args:
        form: `json` or `text`.
        level: `debug`, `info`, `warning` or `error`.
        node: stands in every line.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_node(node),
        strike_secrets,
        structlog.processors.format_exc_info,
    ]
    last: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[_plain, last])
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(threshold, logging.WARNING))
    for name in ("httpx", "httpcore"):  # they print URLs, which hold WeChat's secrets
        logging.getLogger(name).setLevel(logging.CRITICAL)


def strike_secrets(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replaces the value of every member whose name speaks of a secret."""
    for name in event:
        if any(word in name.lower() for word in _SECRET_WORDS):
            event[name] = "***"
    return event


def _with_node(node: str) -> Any:
    def add(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
        event.setdefault("node", node)
        return event

    return add


def _plain(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
    """Drops what only `logging` itself needs."""
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event

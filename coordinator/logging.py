"""Logs: one event per line, as JSON or as text, with the node's id; never a secret.

What is logged in the task that serves a request has its `requestId`, whoever logs it.

Our own events come from structlog; what libraries say through `logging` is printed in the same
form, from warnings on. Members that could hold a secret are struck out whoever logs them.

A line that cannot be written (its reader is gone or does not read, the disk is full) is lost, and
nothing else: nobody who logs hears of it or waits for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import sys
import time
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from typing import Any, TextIO

import structlog
from prometheus_client import Counter

_SECRET_WORDS = ("token", "secret", "password", "authorization", "session_key", "phone", "apikey")

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
"""But for tabs and line feeds: the renderer escapes them in a value, and a stack wants them."""

_RAW_IN_JSON = re.compile(r"[\x80-\x9f\u2028\u2029]")
"""What JSON may hold as it is, though to many readers it ends a line, or commands a terminal."""

_AT_ONCE = select.PIPE_BUF
"""So many bytes a pipe takes without blocking, where it says that it takes any."""

RequestId = Callable[[], str | None]

request_underway: ContextVar[RequestId] = ContextVar("request under way", default=lambda: None)
"""Set in the task that serves a request: gives its id while it is served, None afterwards. (Tasks
that outlive the request have inherited it.)"""

LINES_LOST = Counter("coordinator_log_lines_lost_total", "Log lines that could not be written")


class LossyStream:
    """A text stream that never raises and never blocks: what it cannot write is lost, and counted.

    It writes to the file descriptor itself: what a buffer kept of a failed line would fail again
    with the next one. Where the stream has no descriptor it is written to as it is.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        try:
            self._fd: int | None = stream.fileno()
        except (OSError, ValueError):
            self._fd = None
        self._is_within_line = False
        """A line was cut off: the next one begins with a line feed."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            if self._fd is None:
                return self._stream.write(text)
            self._write(self._fd, text.encode("utf-8", "backslashreplace"))
            return len(text)
        LINES_LOST.inc()
        return len(text)

    def _write(self, fd: int, line: bytes) -> None:
        if self._is_within_line:
            line = b"\n" + line
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        rest = line
        while rest:
            if not poll.poll(0):
                raise BlockingIOError
            rest = rest[os.write(fd, rest[:_AT_ONCE]) :]
            self._is_within_line = bool(rest)

    def flush(self) -> None:
        """Nothing waits here."""

    def isatty(self) -> bool:
        return self._stream.isatty()


def configure(*, form: str, level: str, node: str) -> None:
    """Sets up this process's logs.

    Args:
        form: `json` or `text`.
        level: `debug`, `info`, `warning` or `error`.
        node: stands in every line.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    stream: Any = LossyStream(sys.stdout)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_node(node),
        _with_request,
        strike_secrets,
        structlog.processors.format_exc_info,
    ]
    last: list[Any] = (
        [structlog.processors.JSONRenderer(ensure_ascii=False), _escape_in_json]
        if form == "json"
        else [_escape_controls, structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[_plain, *last])
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(threshold, logging.WARNING))
    for name in ("httpx", "httpcore"):  # they print URLs, which hold WeChat's secrets
        logging.getLogger(name).setLevel(logging.CRITICAL)


RARE_SECONDS = 10.0


class RareWarning:
    """A warning that strangers can cause as often as they like: written every 10 s at most.

    The next line that is written says how often it happened since the last one (`times`).
    """

    def __init__(self, event: str) -> None:
        self._event = event
        self._times = 0
        self._quiet_until = float("-inf")

    def __call__(self, **members: Any) -> None:
        self._times += 1
        now = time.monotonic()
        if now < self._quiet_until:
            return
        self._quiet_until = now + RARE_SECONDS
        structlog.get_logger().warning(self._event, times=self._times, **members)
        self._times = 0


def strike_secrets(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replaces the value of every member whose name speaks of a secret."""
    for name in event:
        if any(word in name.lower() for word in _SECRET_WORDS):
            event[name] = "***"
    return event


def _escape_controls(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """What a stranger's text could do to the terminal that shows it is told and not done."""
    for name, value in event.items():
        if isinstance(value, str) and _CONTROL.search(value):
            event[name] = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], value)
    return event


def _escape_in_json(_logger: Any, _method: str, line: str) -> str:
    """The same where a line is JSON: a name that holds such a character is still read as it is."""
    if line.isascii():
        return line
    return _RAW_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def _with_node(node: str) -> Any:
    def add(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
        event.setdefault("node", node)
        return event

    return add


def _with_request(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    if "requestId" not in event and (identity := request_underway.get()()) is not None:
        event["requestId"] = identity
    return event


def _plain(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
    """Drops what only `logging` itself needs."""
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event

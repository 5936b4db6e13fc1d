"""Prompt requests: those whose answer waits for one future, and that no task is made for.

A guest's join waits for the writer, and for nothing else. An ASGI scope, a cycle, a task and the
events between them cost a third of such a join; so it goes from the parser's callback to the
writer, and from the callback of its future to the client:

    a head has come     the protocol finds it plain, and keeps a `PromptRequest` for a cycle
    its body has come   `Prompts.start`: the endpoint begins, and gives what is waited for
    it is decided       the answer of a join is made while PostgreSQL writes
    that is done        the answer is encoded, written and counted; for a join as soon as it is
                        committed, before the room is told of it

Whatever is special about a request (a browser's `Origin`, `Expect`, chunks, HTTP/1.0, a place in
the pipeline) goes the way of all others. What its caller has to wait for besides, a limit that
Redis is asked for, is a task that its endpoint makes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from coordinator.store.room_writer.pending_command import CommandAnswer
from coordinator.web.bodies import MAX_BODY_BYTES
from coordinator.web.http_request import Meter
from coordinator.web.json_answer import Outcome, failure, success

Begun = tuple[asyncio.Future[Any], Callable[[Any], Any]]
"""What is waited for, and what makes the answer of its result."""
Begin = Callable[[Any, bytes], Begun]
"""An endpoint: from a scope (that of a `PromptRequest`) and the body to what it
waits for; raises `CoordinatorError`."""
Tell = Callable[["PromptRequest", Outcome], None]

_NOTHING: tuple[object, Outcome] = (object(), (0, (), b""))
"""No result is this object."""

_SPECIAL = frozenset((b"origin", b"expect", b"transfer-encoding"))


class _Unheard:
    """The event of a cycle that nobody waits for."""

    def set(self) -> None:
        """Nothing."""


class PromptRequest(msgspec.Struct, eq=False):
    """A request under way, with the attributes that uvicorn reads of a cycle.

    Attributes:
        scope: as much of ASGI's as endpoints look at.
        started: `time.perf_counter` when its head had come.
    """

    begin: Begin
    scope: dict[str, Any]
    keep_alive: bool
    started: float
    body: bytes = b""
    more_body: bool = True
    disconnected: bool = False
    response_complete: bool = False
    message_event: ClassVar[_Unheard] = _Unheard()


def is_plain(headers: list[tuple[bytes, bytes]]) -> bool:
    """True where nothing is special about a request with these headers, and its body is short."""
    for name, value in headers:
        if name in _SPECIAL:
            return False
        if name == b"content-length" and (len(value) > 5 or int(value) > MAX_BODY_BYTES):
            return False
    return True


class Prompts:
    """The endpoints that are asked so, by path.

    Args:
        meter: counts what is answered.
    """

    def __init__(self, meter: Meter, posts: Mapping[str, Begin]) -> None:
        self._meter = meter
        self._paths = {path.encode(): path for path in posts}
        self.find = {path.encode(): begin for path, begin in posts.items()}.get
        """The endpoint of a request's target, or None."""
        self.path = self._paths.__getitem__
        self._tasks: set[asyncio.Future[Any]] = set()

    def start(self, request: PromptRequest, tell: Tell) -> None:
        """Begins what was asked; `tell` is called with the outcome, later and once."""
        try:
            waited_for, view = request.begin(request.scope, request.body)
        except Exception as error:
            waited_for, view = asyncio.get_running_loop().create_future(), _nothing
            waited_for.set_exception(error)
        if isinstance(waited_for, asyncio.Task):
            self._tasks.add(waited_for)
            waited_for.add_done_callback(self._tasks.discard)

        prepared = _NOTHING

        def prepare(result: Any) -> None:
            nonlocal prepared
            prepared = result, success(view(result))

        def done(future: asyncio.Future[Any]) -> None:
            outcome = _outcome(future, view, request.scope, prepared)
            tell(request, outcome)
            self._meter.answered(request.scope, outcome[0], request.started)

        if isinstance(waited_for, CommandAnswer):
            waited_for.call_first(done, prepare)
        else:
            waited_for.add_done_callback(done)


def _nothing(result: Any) -> Any:
    """The view of a request that failed before anything was waited for: never called."""


def _outcome(
    done: asyncio.Future[Any],
    view: Callable[[Any], Any],
    scope: Any,
    prepared: tuple[object, Outcome],
) -> Outcome:
    """What is answered; `prepared`: a result that was expected, and the answer of it."""
    try:
        result = done.result()
        return prepared[1] if result is prepared[0] else success(view(result))
    except (Exception, asyncio.CancelledError) as error:
        return failure(error, scope)

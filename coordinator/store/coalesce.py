"""Reads that go together: whoever asks while a query is in flight shares the next one.

Group commit for reads. Nobody is given anything older than its question: a question that comes
while a query runs waits for the next query, which is sent after it came.

A reader may have two queries under way at once, the second beside a short one. While few ask, a
caller then waits less for the query before its own, and the node makes some answers while
PostgreSQL reads for the others. While many ask, one query takes all who wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from coordinator.domain.errors import Unavailable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

PATIENCE_SECONDS = 4.0

MOST = 200
"""Questions of one query."""

SHORT = 4
"""A query of so many questions may have another one beside it."""

MOST_WAITING = 5_000
"""Different questions that wait; beyond it whoever asks is told at once."""


class ByKey:
    """A query by keys, in two forms.

    Where its plans are not forced (behind a pooler), PostgreSQL plans a statement with a list anew
    each time, since a plan for any length looks dearer to it than one for this length; the plan for
    a single key is kept. To plan takes longer than to read a room.

    Args:
        sql: with `{is_asked_for}` behind the column of the key.
    """

    def __init__(self, sql: str) -> None:
        self._one = sql.replace("{is_asked_for}", "= $1::varchar")
        self._many = sql.replace("{is_asked_for}", "= ANY($1::varchar[])")

    def of(self, keys: list[str]) -> tuple[str, str | list[str]]:
        """The statement for these, and its parameter."""
        return (self._one, keys[0]) if len(keys) == 1 else (self._many, keys)


class Coalesced(Generic[K, V]):
    """Answers single questions by a query for many.

    Args:
        read: the query; keys that it does not find are absent from its answer.
        at_once: how many queries may be under way; another one begins only beside short ones.
    """

    def __init__(
        self, read: Callable[[list[K]], Awaitable[dict[K, V]]], *, at_once: int = 1
    ) -> None:
        self._read = read
        self._at_once = at_once
        self._waiting: dict[K, list[asyncio.Future[V | None]]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._is_beginning = False
        """A worker has been made, and has not asked yet."""
        self._under_way: list[int] = []
        """The queries under way, each by its number of questions."""

    async def get(self, key: K) -> V | None:
        """What the query finds for `key`, or None.

        Raises:
            Unavailable: neither the query under way nor the next one ended within
                `PATIENCE_SECONDS`, or too many wait.
            whatever the query raises, to all who share it.
        """
        callers = self._waiting.get(key)
        if callers is None:
            if len(self._waiting) >= MOST_WAITING:
                raise Unavailable(retry_after=1)
            callers = self._waiting[key] = []
        loop = asyncio.get_running_loop()
        # A future for each caller: one that gives up cancels its own alone.
        answer: asyncio.Future[V | None] = loop.create_future()
        callers.append(answer)
        if not self._is_beginning and self._may_ask():
            self._is_beginning = True
            worker = loop.create_task(self._answer_all())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        alarm = loop.call_later(PATIENCE_SECONDS, _give_up, answer)
        try:
            return await answer
        finally:
            alarm.cancel()

    def _may_ask(self) -> bool:
        under_way = self._under_way
        return len(under_way) < self._at_once and all(count <= SHORT for count in under_way)

    async def _answer_all(self) -> None:
        self._is_beginning = False
        while self._waiting and self._may_ask():
            keys = list(self._waiting)[:MOST]
            asked = {key: self._waiting.pop(key) for key in keys}
            self._under_way.append(len(keys))
            try:
                await self._answer(asked)
            finally:
                self._under_way.remove(len(keys))

    async def _answer(self, asked: dict[K, list[asyncio.Future[V | None]]]) -> None:
        try:
            found = await self._read(list(asked))
        except Exception as error:
            for answer in _still_waited_for(asked.values()):
                answer.set_exception(error)
            return
        for key, callers in asked.items():
            for answer in _still_waited_for([callers]):
                answer.set_result(found.get(key))


def _still_waited_for(
    callers: Iterable[list[asyncio.Future[V]]],
) -> Iterator[asyncio.Future[V]]:
    return (answer for answers in callers for answer in answers if not answer.done())


def _give_up(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(Unavailable(retry_after=1))

"""Reads that go together: whoever asks while a query is in flight shares the next one.

Group commit for reads. Nobody is given anything older than its question: a question that comes
while a query runs waits for the next query, which is sent after it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from coordinator.domain.errors import Unavailable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

PATIENCE_SECONDS = 4.0

MOST = 200
"""Questions of one query."""

MOST_WAITING = 5_000
"""Different questions that wait; beyond it whoever asks is told at once."""


class ByKey:
    """A query by keys, in two forms.

    PostgreSQL plans a statement with a list anew each time, since a plan for any length looks
    dearer to it than one for this length; the plan for a single key is kept. To plan takes longer
    than to read a room.

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
    """

    def __init__(self, read: Callable[[list[K]], Awaitable[dict[K, V]]]) -> None:
        self._read = read
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._worker: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """What the query finds for `key`, or None.

        Raises:
            Unavailable: neither the query under way nor the next one ended within
                `PATIENCE_SECONDS`, or too many wait.
            whatever the query raises, to all who share it.
        """
        answer = self._waiting.get(key)
        if answer is None and len(self._waiting) >= MOST_WAITING:
            raise Unavailable(retry_after=1)
        if answer is None:
            loop = asyncio.get_running_loop()
            answer = self._waiting[key] = loop.create_future()
            if self._worker is None:
                self._worker = loop.create_task(self._answer_all())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                # Shielded: a caller that gives up must not cancel what others wait for.
                return await asyncio.shield(answer)
        except TimeoutError as error:
            raise Unavailable(retry_after=1) from error

    async def _answer_all(self) -> None:
        try:
            while self._waiting:
                keys = list(self._waiting)[:MOST]
                asked = {key: self._waiting.pop(key) for key in keys}
                await self._answer(asked)
        finally:
            self._worker = None

    async def _answer(self, asked: dict[K, asyncio.Future[V | None]]) -> None:
        try:
            found = await self._read(list(asked))
        except Exception as error:
            for answer in asked.values():
                answer.set_exception(error)
                answer.exception()  # callers that still wait raise it; there may be none
            return
        for key, answer in asked.items():
            answer.set_result(found.get(key))

"""Connections to PostgreSQL that are lent, each to one caller at a time.

asyncpg's own pool takes a connection back in a task, in which it can be reset: with the turn of the
loop that this takes, as dear as a query. Ours need no reset: their transactions end themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from coordinator.domain.errors import Unavailable

IDLE_SECONDS = 300.0
"""How long a connection that nobody needs stays open, at least."""


class Pool:
    """Lends connections, the one that was used last first; makes them when they are needed.

    Args:
        connect: makes a connection.
        most: connections at the same time. Whoever asks for one more waits, in order.
    """

    def __init__(self, connect: Callable[[], Awaitable[Any]], most: int) -> None:
        self._connect = connect
        self._most = most
        self._places = 0
        """Taken by connections that are idle, lent or being made."""
        self._idle: list[tuple[Any, float]] = []
        """Each with the loop's time at which it was given back; the last of them last."""
        self._lent: dict[Any, int] = {}
        """Each with its generation."""
        self._generation = 0
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._none_is_left: asyncio.Future[None] | None = None

    async def acquire(self) -> Any:
        """A connection; the caller gives it back (`release`), whatever has become of it.

        Raises:
            Unavailable: the pool closes.
            whatever making one raises.
        """
        if self._is_closing:
            raise Unavailable(retry_after=1)
        connection = self._idle_one()
        if connection is not None:
            self._lent[connection] = self._generation
            return connection
        if self._places < self._most:
            self._places += 1
        elif (connection := await self._next_given_back()) is not None:
            return connection
        return await self._made()

    def _idle_one(self) -> Any:
        while self._idle:
            connection, _ = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._places -= 1
        return None

    async def _next_given_back(self) -> Any:
        """The next connection that nobody else has waited for longer; None = the place of one."""
        given = asyncio.get_running_loop().create_future()
        self._waiting.append(given)
        try:
            return await given
        except asyncio.CancelledError:
            # Given in the very turn in which its caller gave up.
            if not given.cancelled() and given.exception() is None:
                connection = given.result()
                self.release(connection) if connection is not None else self._give(None)
            raise

    async def _made(self) -> Any:
        """A new connection, in a place that has been taken for it."""
        generation = self._generation
        try:
            connection = await self._connect()
        except BaseException:
            self._give(None)
            raise
        self._lent[connection] = generation
        if self._is_closing:
            self.release(connection)
            raise Unavailable(retry_after=1)
        return connection

    def release(self, connection: Any) -> None:
        """Takes a connection back. It is not lent again where it is closed, expired, or still in a
        transaction.
        """
        is_expired = self._lent.pop(connection) != self._generation or self._is_closing
        if is_expired or connection.is_closed() or connection.is_in_transaction():
            connection.terminate()
            connection = None
        self._give(connection)

    def _give(self, connection: Any) -> None:
        """Gives a connection, or (None) the place of one, to who has waited longest."""
        while self._waiting:
            given = self._waiting.popleft()
            if not given.done():
                if connection is not None:
                    self._lent[connection] = self._generation
                given.set_result(connection)
                return
        if connection is None:
            self._places -= 1
            if not self._places and self._none_is_left is not None:
                self._none_is_left.set_result(None)
                self._none_is_left = None
            return
        self._idle.append((connection, asyncio.get_running_loop().time()))
        if self._sweep is None:
            self._look_again()

    def _look_again(self) -> None:
        oldest = self._idle[0][1]
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_at(oldest + IDLE_SECONDS, self._end_idle)

    def _end_idle(self) -> None:
        """Ends the connections that have been idle for long."""
        self._sweep = None
        horizon = asyncio.get_running_loop().time() - IDLE_SECONDS
        while self._idle and self._idle[0][1] <= horizon:
            connection, _ = self._idle.pop(0)
            connection.terminate()
            self._places -= 1
        if self._idle:
            self._look_again()

    def expire(self) -> None:
        """No connection that there is now is lent again."""
        for connection, _ in self._without_idle():
            connection.terminate()

    def expire_like(self, connection: Any) -> None:
        """As `expire`, but once for all connections of a generation. This one is lent."""
        if self._lent[connection] == self._generation:
            self.expire()

    def _without_idle(self) -> list[tuple[Any, float]]:
        """Begins a generation; the idle connections, which are the caller's now."""
        self._generation += 1
        idle, self._idle = self._idle, []
        self._places -= len(idle)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        return idle

    async def close(self) -> None:
        """Ends all connections; waits for those that are lent, or being made.

        Whoever has none is told that there will be none: nobody would end it.
        """
        self._refuse()
        closing = [connection.close() for connection, _ in self._without_idle()]
        await asyncio.gather(*closing, return_exceptions=True)  # what cannot be closed is ended
        if self._places:
            self._none_is_left = asyncio.get_running_loop().create_future()
            try:
                await self._none_is_left
            finally:
                self._none_is_left = None

    def _refuse(self) -> None:
        self._is_closing = True
        while self._waiting:
            given = self._waiting.popleft()
            if not given.done():
                given.set_exception(Unavailable(retry_after=1))

    def terminate(self) -> None:
        """Ends all connections at once, also those that are lent."""
        self._refuse()
        self.expire()
        for connection in self._lent:
            connection.terminate()

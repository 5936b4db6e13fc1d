"""Every live connection of this node, by session."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.people import Staff
from coordinator.live.connection import Connection
from coordinator.live.participant import ParticipantConnection

GONE_SECONDS = 2.5
"""How long a drained connection may take to close, or to be aborted."""


class ConnectionRegistry:
    """The connections between their handshake and their end, those that only watch too."""

    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}
        self._of_staff: dict[str, Connection] = {}
        self.get = self._connections.get
        """The connection of a session, or None."""

    def add(self, connection: Connection) -> None:
        self._connections[connection.session_id] = connection
        if connection.proof is not None and isinstance(connection.proof.holder, Staff):
            self._of_staff[connection.session_id] = connection

    def forget(self, connection: Connection) -> None:
        self._connections.pop(connection.session_id, None)
        self._of_staff.pop(connection.session_id, None)

    def count(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def staff(self) -> Iterator[tuple[str, Staff, str]]:
        """The sessions of staff: who holds each, and the `jti` of its token ('' = it has none)."""
        for session_id, connection in self._of_staff.items():
            proof = connection.proof
            if proof is not None and isinstance(proof.holder, Staff):
                yield session_id, proof.holder, proof.session or ""

    def claimed(self) -> set[str]:
        """Sessions that have a row in `connections`, or are about to."""
        return {
            s
            for s, c in self._connections.items()
            if isinstance(c, ParticipantConnection) and c.holds_row
        }

    def confirmed(self) -> dict[str, tuple[str, str]]:
        """Sessions whose row has been written, with their room and user."""
        return {
            s: (c.room_id, c.user_id)
            for s, c in self._connections.items()
            if isinstance(c, ParticipantConnection) and c.row_is_confirmed
        }

    def close_session(self, session_id: str, code: CloseCode) -> None:
        """Closes one connection, where it is here."""
        connection = self._connections.get(session_id)
        if connection is not None:
            connection.say_bye(code)

    def close_sessions(self, session_ids: Sequence[str], code: CloseCode) -> None:
        for session_id in session_ids:
            self.close_session(session_id, code)

    def close_all(self, code: CloseCode) -> None:
        """Closes everything; clients return spread over two seconds."""
        for connection in list(self._connections.values()):
            connection.say_bye(code, after_ms=random.randrange(2000))

    async def drain(self, seconds: float) -> None:
        """Sends every client elsewhere (4200), spread over `seconds`."""
        connections = list(self._connections.values())
        random.shuffle(connections)
        loop = asyncio.get_running_loop()
        start = loop.time()
        for position, connection in enumerate(connections):
            due = start + seconds * position / len(connections)
            if due > loop.time() + 0.02:
                await asyncio.sleep(due - loop.time())
            # The drain spreads the clients already: each may return almost at once.
            connection.say_bye(CloseCode.DRAINING, after_ms=random.randrange(500))
        told_at = loop.time()
        while self._connections and loop.time() < told_at + GONE_SECONDS:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # until each peer has answered or been aborted

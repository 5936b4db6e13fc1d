"""Every live connection of this node, by session."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.people import Staff
from coordinator.live.connection import Connection
from coordinator.live.own_rows import OwnRows
from coordinator.live.participant_connection import ParticipantConnection


class ConnectionRegistry:
    """The connections between their handshake and their end, those that only watch too."""

    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}
        self._of_staff: dict[str, Connection] = {}
        self.rows = OwnRows()
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

    def all(self) -> list[Connection]:
        """All of them, in the order of their opening."""
        return list(self._connections.values())

    def staff(self) -> Iterator[tuple[str, Staff, str]]:
        """The sessions of staff: who holds each, and the `jti` of its token ('' = it has none)."""
        for session_id, connection in self._of_staff.items():
            proof = connection.proof
            if proof is not None and isinstance(proof.holder, Staff):
                yield session_id, proof.holder, proof.session or ""

    def claimed(self) -> set[str]:
        """Sessions that have a row now, or are about to have one."""
        return set(self.rows.claimed)

    def confirmed(self) -> set[str]:
        """Sessions whose row has been written, as of now."""
        return set(self.rows.confirmed)

    def marked(self) -> set[str]:
        """Sessions that are marked away, as of now."""
        return set(self.rows.marked)

    def participant(self, session_id: str) -> tuple[str, str] | None:
        """Of a session whose row has been written, its room and user; None of any other."""
        connection = self._connections.get(session_id)
        if session_id in self.rows.confirmed and isinstance(connection, ParticipantConnection):
            return connection.room_id, connection.user_id
        return None

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
        for connection in self.all():
            connection.say_bye(code, after_ms=random.randrange(2000))

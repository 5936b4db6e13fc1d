"""Staff who are disabled, lose a role or sign out lose the connections that this no longer allows.

Each node asks for the staff of its own connections, in one statement, so that a change holds on
every node within `LOOK_SECONDS`, whichever way it was made.
"""

from __future__ import annotations

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.people import Staff
from coordinator.live.connection import Connection
from coordinator.live.loop import Loop
from coordinator.live.registry import ConnectionRegistry
from coordinator.store.people import People

LOOK_SECONDS = 2.0


class Standing:
    """Looks again and again whether the staff who are connected may be."""

    def __init__(self, people: People, registry: ConnectionRegistry) -> None:
        self._people = people
        self._registry = registry
        self._looking = Loop(self.look, name="standing", seconds=LOOK_SECONDS)

    async def run(self) -> None:
        """Until cancelled."""
        await self._looking.run()

    async def look(self) -> None:
        """One look.

        Raises:
            Unavailable: Postgres is away; no connection ends because of that.
        """
        asked = {
            session_id: (holder.number, session)
            for session_id, holder, session in self._registry.staff()
        }
        if not asked:
            return
        users = {(number, "") for number, _ in asked.values()}
        found = await self._people.standings(sorted(users | set(asked.values())))
        for session_id, (number, session) in asked.items():
            connection = self._registry.get(session_id)
            if connection is None:
                continue
            code = _verdict(connection, found.get((number, "")), (number, session) in found)
            if code is not None:
                connection.say_bye(code)


def _verdict(
    connection: Connection, holder: Staff | None, is_signed_in: bool
) -> CloseCode | None:
    """What ends the connection; None where it may stay."""
    if holder is None or (connection.needs_admin and not holder.is_admin):
        return CloseCode.NOT_ALLOWED
    return None if is_signed_in else CloseCode.TOKEN_INVALID

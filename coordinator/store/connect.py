"""Opens connections to whichever of `DATABASE_URL`'s hosts serves us now."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from coordinator.postgres_url import PostgresTarget

NEXT_HOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.TargetServerAttributeNotMatched,
)
"""What makes the next host's turn: gone, going, coming, silent, or a standby. A refused login does
not (as in libpq): the same password is wrong everywhere."""


class Connector:
    """Tries the hosts one after the other, beginning with the one that served last.

    A silent host costs its time limit once, not at each connection; one that comes back is tried
    again when the one in use fails.
    """

    def __init__(self, target: PostgresTarget) -> None:
        self._attempts = target.attempts()
        self._first = 0

    async def __call__(self, **options: Any) -> Any:
        """A new connection, the caller's own.

        Args:
            options: asyncpg's, beside those of the URL; `server_settings` are added to the URL's,
                which win.

        Raises:
            Exception: what the driver raised for the last host that was tried.
        """
        hosts, first = len(self._attempts), self._first
        for step in range(hosts):
            place = (first + step) % hosts
            try:
                return await asyncpg.connect(**_merged(options, self._attempts[place]))
            except asyncio.CancelledError:  # the caller has waited long enough for this one
                self._turn_from(place)
                raise
            except NEXT_HOST:
                self._turn_from(place)
                if step == hosts - 1:
                    raise
        raise AssertionError("a target has at least one attempt")

    def _turn_from(self, place: int) -> None:
        """The next host is first from now on, unless another task has turned already."""
        if self._first == place:
            self._first = (place + 1) % len(self._attempts)


def _merged(options: dict[str, Any], attempt: dict[str, Any]) -> dict[str, Any]:
    settings = (options.get("server_settings") or {}) | attempt["server_settings"]
    return {**options, **attempt, "server_settings": settings}

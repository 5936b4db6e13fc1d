"""Piccolo's engine for Postgres, without its habit of connecting while it is being made."""

from __future__ import annotations

from typing import Any

from piccolo.engine.postgres import PostgresEngine

from coordinator.store.connect import Connector


class Engine(PostgresEngine):
    """Connects when it is told to (`start_connection_pool`), not in its constructor."""

    def __init__(self, connect: Connector, options: dict[str, Any]) -> None:
        super().__init__(config={**options, "connect": connect})
        self._connect, self._options = connect, options

    async def get_new_connection(self) -> Any:
        """A connection outside of the pool."""
        return await self._connect(**self._options)

    async def check_version(self) -> None:
        """Left to `coordinator check`: making an object is no reason to open a connection."""

    async def prep_database(self) -> None:
        """No extension is needed."""

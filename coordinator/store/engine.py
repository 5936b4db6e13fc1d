"""Piccolo's engine for Postgres, without its habit of connecting while it is being made."""

from __future__ import annotations

from piccolo.engine.postgres import PostgresEngine


class Engine(PostgresEngine):
    """Connects when it is told to (`start_connection_pool`), not in its constructor."""

    async def check_version(self) -> None:
        """Left to `coordinator check`: making an object is no reason to open a connection."""

    async def prep_database(self) -> None:
        """No extension is needed."""

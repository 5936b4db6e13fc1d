"""Servers of a command's own: thrown away when it is over."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from coordinator.standins.seed import seed
from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis
from coordinator.store.database import Database
from coordinator.store.migrations import migrate
from tests.harness.node import Deployment


@contextlib.asynccontextmanager
async def deployed() -> AsyncIterator[tuple[Deployment, Database, Path]]:
    """PostgreSQL and Valkey with every migration and the documents' data, and a folder."""
    folder = Path(tempfile.mkdtemp(prefix="coordinator-attack-"))
    try:
        with EmbeddedPostgres(folder / "postgres", options=("fsync=off",)) as postgres, \
                EmbeddedRedis(folder / "redis") as redis:  # fmt: skip
            database = Database(postgres.url)
            await migrate(database)
            await database.open()
            try:
                await seed(database)
                with Deployment(postgres.url, redis.url) as deployment:
                    yield deployment, database, folder
            finally:
                await database.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)

"""Databases for tests: copies of one in which every migration was run.

Migrating takes a second of a core, copying a tenth of it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from coordinator.store.database import Database
from coordinator.store.migrations import migrate

SERVER = "TEST_DATABASE_URL"
"""The environment variable with the URL of the server: of any database on it."""
TEMPLATE = "TEST_DATABASE_TEMPLATE"
"""That with the name of the database which is copied."""


def at(database: str) -> str:
    """The URL of a database on the tests' server."""
    return urlunsplit(urlsplit(os.environ[SERVER])._replace(path=f"/{database}"))


def make_template() -> None:
    """Makes the one that is copied; nobody may connect to it."""
    name = _new_name("template")
    asyncio.run(_does(f"CREATE DATABASE {name}"))
    asyncio.run(migrate(Database(at(name))))
    os.environ[TEMPLATE] = name


def drop_template() -> None:
    if name := os.environ.pop(TEMPLATE, None):
        asyncio.run(_does(f"DROP DATABASE {name} WITH (FORCE)"))


@asynccontextmanager
async def migrated_url(what_for: str) -> AsyncIterator[str]:
    """A new database with every table and no row; it is dropped at the end."""
    name = _new_name(what_for)
    await _does(f"CREATE DATABASE {name} TEMPLATE {os.environ[TEMPLATE]}")
    yield at(name)
    await _does(f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def own_database(what_for: str) -> AsyncIterator[Database]:
    """The same, open: no node of other tests judges, purges, sends or counts what is in it."""
    async with migrated_url(what_for) as url:
        opened = Database(url)
        await opened.open()
        yield opened
        await opened.close()


@asynccontextmanager
async def empty_url(what_for: str) -> AsyncIterator[str]:
    """The URL of a new database without tables."""
    name = _new_name(what_for)
    await _does(f"CREATE DATABASE {name}")
    yield at(name)
    await _does(f"DROP DATABASE {name} WITH (FORCE)")


async def _does(sql: str) -> None:
    connection = await asyncpg.connect(os.environ[SERVER])
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def _new_name(what_for: str) -> str:
    return f"coordinator_{what_for}_{secrets.token_hex(4)}"

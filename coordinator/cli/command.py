"""What the commands share: their settings, the database that they work on, their arguments."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import shlex
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from coordinator.domain.ids import staff_number
from coordinator.domain.people import Staff
from coordinator.environment import is_web_url, read_dotenv
from coordinator.settings import Settings
from coordinator.store import fitness, migrations
from coordinator.store.database import Database
from coordinator.store.people import People

DEV_FOLDER = Path(".coordinator")
DOTENV = Path(".env")

Work = Callable[[Database], Awaitable[int]]
N = TypeVar("N", int, float)


class CommandFailed(Exception):
    """A command that cannot do what it was asked to; its message is one sentence for people."""


def settings_of_command(
    environ: Mapping[str, str], *needed: str, folder: Path = DEV_FOLDER
) -> Settings:
    """The settings; where they name no database, those of the `dev` that runs in `folder`.

    Args:
        needed: what the command needs beside the database (`Settings.from_env`).

    Raises:
        SettingsError: they are not complete.
        CommandFailed: they name no database, and the folder's `dev` does not run.
    """
    if not means_dev(environ, folder=folder):
        return Settings.from_env(environ, dotenv=DOTENV, needed=needed)
    if not is_running(folder):
        raise CommandFailed(
            f"no database is set (DATABASE_URL), and the `coordinator dev` of {folder}/ is not"
            " running: start it, or set one"
        )
    of_file, _ = read_dotenv(DOTENV)
    own = {name: value for name, value in (of_file | dict(environ)).items() if value.strip()}
    values = _node_env(folder / "node.env") | own
    return Settings.from_env(values, dotenv=DOTENV, needed=needed)


def means_dev(environ: Mapping[str, str], *, folder: Path = DEV_FOLDER) -> bool:
    """True where a command that is given no database is one for the `dev` of this folder."""
    of_file, _ = read_dotenv(DOTENV)  # what is wrong with it is told with everything else
    named = of_file | dict(environ)
    has_own = any(named.get(name, "").strip() for name in ("DATABASE_URL", "DB_HOST"))
    return not has_own and (folder / "node.env").exists()


def is_running(folder: Path) -> bool:
    """True while a `coordinator dev` holds its folder."""
    try:
        with (folder / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _node_env(path: Path) -> dict[str, str]:
    """The file that `dev` keeps for a second node: lines of `export NAME='value'`."""
    pairs = (shlex.split(line)[1].partition("=") for line in path.read_text().splitlines() if line)
    return {name: value for name, _, value in pairs}


def run_with_database(settings: Settings, work: Work) -> int:
    """Runs `work` on the open database, at this version's schema; the command's status.

    Raises:
        SchemaMissing: the migrations have not run.
        Unavailable: Postgres is away.
    """

    async def run() -> int:
        async with opened_current(settings) as database:
            return await work(database)

    return asyncio.run(run())


@contextlib.asynccontextmanager
async def opened_current(settings: Settings) -> AsyncIterator[Database]:
    """The database, for one purpose, at this version's schema.

    Raises:
        SchemaMissing: the migrations have not run.
        Unavailable: Postgres is away.
    """
    async with opened(settings) as database:
        if not await migrations.is_current(database):
            raise migrations.SchemaMissing
        yield database


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Database]:
    """The database, for one purpose.

    Raises:
        Unavailable: Postgres is away.
    """
    database = Database(settings.database_url, pooler=settings.database_pooler)
    try:
        await database.open()
        yield database
    finally:
        await database.close()


async def migrated(settings: Settings, say: migrations.Say = lambda _: None) -> list[str]:
    """Brings the database to this version's schema (`migrations.migrate`); what has run.

    Raises:
        Unfit: no schema would make this Postgres one to serve with; nothing is made in it.
        Unavailable: Postgres is away.
    """
    async with opened(settings) as database:
        fitness.require_kind(await fitness.look(database))
    database = Database(settings.database_url, pooler=settings.database_pooler)
    return await migrations.migrate(database, say=say)


def command_settings(*needed: str) -> Settings:
    """`settings_of_command` in this process's environment."""
    return settings_of_command(os.environ, *needed)


async def member(people: People, public_id: str) -> Staff:
    """The staff member of a public id (`user_001`) who is not disabled.

    Raises:
        CommandFailed: there is none.
    """
    number = staff_number(public_id)
    staff = await people.staff(number) if number else None
    if staff is None:
        raise CommandFailed(
            f"there is no {public_id}, or it is disabled (see `coordinator users list`)"
        )
    return staff


def unknown(public_id: str) -> CommandFailed:
    """The failure of a command that names a member of staff who is not there."""
    return CommandFailed(f"there is no {public_id} (see `coordinator users list`)")


def as_json(told: Any, **how: Any) -> str:
    """JSON for stdout; characters that stdout's encoding lacks are escaped (`\\u5f20`).

    Args:
        how: `indent`, `separators` of `json.dumps`.
    """
    text = json.dumps(told, ensure_ascii=False, **how)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return json.dumps(told, **how)
    return text


def port(text: str) -> int:
    """An argument: a port, 0 for any."""
    return _number(text, int, lambda number: 0 <= number <= 65535, "from 0 to 65535")


def seq(text: str) -> int:
    """An argument: a `seq`, 0 for that before the first event."""
    return _number(text, int, lambda number: number >= 0, "of 0 or more")


def count(text: str) -> int:
    """An argument: a whole number of at least 1."""
    return _number(text, int, lambda number: number >= 1, "of at least 1")


def days(text: str) -> float:
    """An argument: days, at most ten years."""
    return _number(
        text, float, lambda number: 0 < number <= 3650, "of more than 0 and at most 3650"
    )


def _number(text: str, kind: Callable[[str], N], is_good: Callable[[N], bool], which: str) -> N:
    try:
        number = kind(text)
        if is_good(number):
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be a number {which}, not {text!r}")


def node_url(text: str) -> str:
    """An argument: where a node is reached."""
    if not is_web_url(text):
        raise argparse.ArgumentTypeError(f"must be a URL such as http://host:3000, not {text!r}")
    return text.rstrip("/")


def printable(text: str) -> str:
    """An argument: a name."""
    cleaned = text.strip()
    if not 0 < len(cleaned) <= 100 or not cleaned.isprintable():
        raise argparse.ArgumentTypeError("must be 1 to 100 printable characters")
    return cleaned

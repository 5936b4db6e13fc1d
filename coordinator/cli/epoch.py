"""`coordinator epoch`, `coordinator epoch new`: which history the database is in."""

from __future__ import annotations

import argparse
from typing import Any

from coordinator.cli.command import command_settings, run_with_database
from coordinator.store.database import Database


def add(commands: Any) -> None:
    epoch = commands.add_parser(
        "epoch", help="show the database's epoch; `new` after a restore from a backup or snapshot"
    )
    epoch.add_argument("action", nargs="?", choices=("new",))
    epoch.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    """Prints the epoch, bare, on stdout."""

    async def work(database: Database) -> int:
        epochs = database.epochs
        print(await (epochs.start_new() if options.action == "new" else epochs.check()))
        return 0

    return run_with_database(command_settings(), work)

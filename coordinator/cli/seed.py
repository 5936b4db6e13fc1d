"""`coordinator seed`: the Coze document's test data."""

from __future__ import annotations

import argparse
from typing import Any

from coordinator.cli.command import command_settings, run_with_database
from coordinator.standins.seed import seed
from coordinator.store.database import Database


def add(commands: Any) -> None:
    commands.add_parser("seed", help="the Coze document's test data").set_defaults(run=_run)


def _run(_: argparse.Namespace) -> int:
    return run_with_database(command_settings(), _seed)


async def _seed(database: Database) -> int:
    await seed(database)
    print("the documents' test data is there")
    return 0

"""`coordinator migrate`: the database at this version's schema."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from coordinator.cli.command import command_settings, migrated


def add(commands: Any) -> None:
    migrate = commands.add_parser("migrate", help="bring the database to the newest schema")
    migrate.set_defaults(run=_migrate)


def _migrate(_: argparse.Namespace) -> int:
    done = asyncio.run(migrated(command_settings(), say=print))
    print(f"{len(done)} migrations run" if done else "the schema is up to date")
    return 0

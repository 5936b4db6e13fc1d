"""`coordinator console [user_001]`: a link that signs somebody in at the console."""

from __future__ import annotations

import argparse
import os
from typing import Any

from coordinator.cli.command import command_settings, means_dev, member, run_with_database
from coordinator.services.console import sign_in_link
from coordinator.store.console import ConsoleSessions
from coordinator.store.database import Database
from coordinator.store.people import People


def add(commands: Any) -> None:
    console = commands.add_parser("console", help="print a sign-in link of the console")
    console.add_argument("user", nargs="?", default="user_001", help="default: user_001")
    console.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    """Prints the bare link on stdout: good once, within 2 minutes; for `dev` again and again."""
    settings = command_settings()
    is_reusable = means_dev(os.environ)

    async def work(database: Database) -> int:
        staff = await member(People(database), options.user)
        sessions = ConsoleSessions(database)
        link = await sign_in_link(
            sessions, staff, base_url=settings.base_url, is_reusable=is_reusable
        )
        print(link)
        return 0

    return run_with_database(settings, work)

"""`coordinator token user_001`: the bare staff JWT, for scripts and load tests."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from coordinator.cli.command import command_settings, days, member, run_with_database
from coordinator.services.access import Access
from coordinator.store.database import Database
from coordinator.store.people import People


def add(commands: Any) -> None:
    token = commands.add_parser("token", help="print a staff JWT")
    token.add_argument("user", help="user_001")
    token.add_argument("--days", type=days, default=7, help="at most 3650")
    token.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    settings = command_settings("JWT_SECRET")

    async def work(database: Database) -> int:
        people = People(database)
        staff = await member(people, options.user)
        access = Access(settings.jwt_secrets, people)
        print(access.issue_staff(staff, timedelta(days=options.days)))
        return 0

    return run_with_database(settings, work)

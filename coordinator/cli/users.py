"""`coordinator users list | add | role | disable`: staff."""

from __future__ import annotations

import argparse
from typing import Any

from coordinator.cli.command import command_settings, printable, run_with_database, unknown
from coordinator.domain.ids import staff_number
from coordinator.domain.people import Staff
from coordinator.store.database import Database
from coordinator.store.people import People


def add(commands: Any) -> None:
    users = commands.add_parser("users", help="staff")
    users.set_defaults(run=_run)
    actions = users.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="everybody: id, role, openid, name")
    add = actions.add_parser(
        "add", help="invite somebody, or let in again who is disabled; idempotent by openid"
    )
    add.add_argument("--openid", required=True, type=printable)
    add.add_argument("--name", type=printable)
    add.add_argument("--role", choices=("hr", "admin"))
    role = actions.add_parser("role", help="make somebody hr or admin")
    role.add_argument("user", help="user_001")
    role.add_argument("role", choices=("hr", "admin"))
    actions.add_parser("disable", help="shut somebody out").add_argument("user", help="user_001")


def _run(options: argparse.Namespace) -> int:
    async def work(database: Database) -> int:
        await _act(People(database), options)
        return 0

    return run_with_database(command_settings(), work)


async def _act(people: People, options: argparse.Namespace) -> None:
    if options.action == "list":
        for staff in await people.list_all():
            print(_line(staff))
        return
    if options.action == "add":
        print((await people.add(options.openid, options.name, options.role)).user_id)
        return
    number = staff_number(options.user) or 0
    if options.action == "role":
        changed = await people.set_role(number, options.role)
    else:
        changed = await people.disable(number)
    if changed is None:
        raise unknown(options.user)
    print(changed.user_id)


def _line(staff: Staff) -> str:
    state = "  disabled" if staff.disabled else ""
    return f"{staff.user_id}  {staff.role:5}  {staff.openid}  {staff.name or '-'}{state}"

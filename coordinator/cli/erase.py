"""`coordinator erase` and `coordinator export`: a person, or an interview, leaves the database.

    coordinator export guest_…        all that is kept of it, as JSON
    coordinator erase guest_…         takes it out, and says what was changed
"""

from __future__ import annotations

import argparse
from typing import Any

from coordinator.cli.command import CommandFailed, as_json, command_settings, run_with_database
from coordinator.data_cipher import DataCipher
from coordinator.domain.ids import staff_number
from coordinator.store.database import Database
from coordinator.store.erasure import Erasure


def add(commands: Any) -> None:
    whom = "user_001, guest_… or interview_… (an interview's id, with or without interview_)"
    erase = commands.add_parser("erase", help="take a person or an interview out of the database")
    erase.add_argument("who", help=whom)
    erase.set_defaults(run=lambda options: _run(options, erases=True))
    export = commands.add_parser("export", help="print all that is kept of a person or interview")
    export.add_argument("who", help=whom)
    export.set_defaults(run=lambda options: _run(options, erases=False))


def _run(options: argparse.Namespace, *, erases: bool) -> int:
    settings = command_settings()

    async def work(database: Database) -> int:
        erasure = Erasure(database, DataCipher(settings.data_keys))
        print(await (_erase if erases else _export)(erasure, options.who))
        return 0

    return run_with_database(settings, work)


async def _export(erasure: Erasure, who: str) -> str:
    """
    Raises:
        CommandFailed: nothing is kept of it.
    """
    if who.startswith(("user_", "guest_")):
        told: dict[str, Any] | None = await erasure.export_person(who, staff_number(who) or 0)
        if told and not told.get("user") and not told["participations"] and not told["events"]:
            told = None
    else:
        told = await erasure.export_interview(who.removeprefix("interview_"))
    if told is None:
        raise _nothing(who)
    return as_json(told, indent=2)


async def _erase(erasure: Erasure, who: str) -> str:
    """
    Raises:
        CommandFailed: nothing is kept of it.
    """
    if not who.startswith(("user_", "guest_")):
        interview_id = who.removeprefix("interview_")
        if not await erasure.erase_interview(interview_id):
            raise _nothing(who)
        return f"{who}: its person, questions, answers and report are gone; its log keeps its seq"
    done = await erasure.erase_person(who, staff_number(who) or 0)
    if not any(done.values()):
        raise _nothing(who)
    changed = ", ".join(f"{number} {name}" for name, number in done.items())
    return f"{who} is erased: {changed} changed; logs keep their seq, with the name 已删除"


def _nothing(who: str) -> CommandFailed:
    return CommandFailed(f"nothing is kept of {who}")

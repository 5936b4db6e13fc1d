"""`coordinator import-jobs FILE`: fills jobs and enterprises, with a progress bar."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from coordinator.cli.command import command_settings, run_with_database
from coordinator.cli.job_file import ImportRefused, import_jobs
from coordinator.store.database import Database


def add(commands: Any) -> None:
    jobs = commands.add_parser("import-jobs", help="fill jobs and enterprises")
    jobs.add_argument("file", type=Path, help="JSON or CSV")
    jobs.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    async def work(database: Database) -> int:
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("importing jobs", total=None)

            def show(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            try:
                count = await import_jobs(database, options.file, show)
            except ImportRefused as refused:
                return _refuse(options.file, refused)
        print(f"{count} jobs imported")
        return 0

    return run_with_database(command_settings(), work)


def _refuse(path: Path, refused: ImportRefused) -> int:
    print(f"coordinator: nothing was imported from {path}:", file=sys.stderr)
    for problem in refused.problems:
        print(f"  {problem}", file=sys.stderr)
    return 1

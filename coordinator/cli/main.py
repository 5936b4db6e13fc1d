"""The command `coordinator`: serving, and what operators do by hand."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import structlog
from rich.console import Console
from rich.progress import Progress

from coordinator import logging
from coordinator.cli.check import check
from coordinator.cli.console import print_link
from coordinator.cli.dev import run_dev
from coordinator.cli.import_jobs import ImportRefused, import_jobs
from coordinator.cli.workers import listen, serve_with_workers
from coordinator.domain.errors import Unavailable
from coordinator.domain.ids import staff_number
from coordinator.domain.people import Staff
from coordinator.node import SchemaMissing, deployment_id
from coordinator.server import server
from coordinator.services.access import Access
from coordinator.settings import Settings, SettingsError
from coordinator.standins.seed import seed
from coordinator.store import migrations
from coordinator.store.database import Database
from coordinator.store.people import People


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; ends the process with its status."""
    try:
        # A command prints its answer on stdout: what happens beside it is told on stderr.
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        sys.exit(_run(_parser().parse_args(arguments)))
    except SettingsError as error:
        _fail(str(error))
    except SchemaMissing:
        _fail("the database is not at this version's schema: run `coordinator migrate` first")
    except Unavailable as error:
        cause = error.__cause__
        _fail(f"PostgreSQL cannot be reached: {type(cause).__name__ if cause else error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError("must be from 0 to 65535")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _days(text: str) -> float:
    number = float(text)
    if not 0 < number <= 3650:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 3650")
    return number


def _text(text: str) -> str:
    cleaned = text.strip()
    if not 0 < len(cleaned) <= 100 or not cleaned.isprintable():
        raise argparse.ArgumentTypeError("must be 1 to 100 printable characters")
    return cleaned


def _fail(message: str) -> NoReturn:
    print(f"coordinator: {message}", file=sys.stderr)
    sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="coordinator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    dev = commands.add_parser("dev", help="everything on this machine, with embedded servers")
    dev.add_argument("--port", type=_port, help="default: PORT or 3000")
    dev.add_argument("--data", type=Path, default=Path(".coordinator"), help="folder of the data")

    serve = commands.add_parser("serve", help="serve in production; nothing embedded")
    serve.add_argument("--host", default="0.0.0.0")
    serve.add_argument("--port", type=_port, help="default: PORT or 3000")
    serve.add_argument("--workers", type=_count, default=1, help="processes; each is a node")
    serve.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    serve.add_argument("--parent", type=int, help=argparse.SUPPRESS)

    commands.add_parser("migrate", help="bring the database to the newest schema")
    commands.add_parser("seed", help="the Coze document's test data")
    commands.add_parser("check", help="settings, Postgres, migrations, Redis, ZEGO")

    jobs = commands.add_parser("import-jobs", help="fill jobs and enterprises")
    jobs.add_argument("file", type=Path, help="JSON or CSV")

    token = commands.add_parser("token", help="print a staff JWT")
    token.add_argument("user", help="user_001")
    token.add_argument("--days", type=_days, default=7, help="at most 3650")

    console = commands.add_parser("console", help="print a sign-in link of the console")
    console.add_argument("user", nargs="?", default="user_001", help="default: user_001")

    _add_users(commands.add_parser("users", help="staff"))
    return parser


def _add_users(users: argparse.ArgumentParser) -> None:
    actions = users.add_subparsers(dest="action", required=True)
    actions.add_parser("list")
    add = actions.add_parser("add", help="invite somebody; idempotent by openid")
    add.add_argument("--openid", required=True, type=_text)
    add.add_argument("--name", type=_text)
    add.add_argument("--role", choices=("hr", "admin"))
    role = actions.add_parser("role", help="make somebody hr or admin")
    role.add_argument("user", help="user_001")
    role.add_argument("role", choices=("hr", "admin"))
    actions.add_parser("disable", help="shut somebody out").add_argument("user", help="user_001")


def _run(options: argparse.Namespace) -> int:
    if options.command == "dev":
        return run_dev(os.environ, port=options.port, data=options.data)
    settings = Settings.from_env(os.environ, dotenv=Path(".env"))
    match options.command:
        case "serve":
            return _serve(settings, options)
        case "check":
            return asyncio.run(check(settings))
        case "migrate":
            return asyncio.run(_migrate(settings))
        case "seed":
            return asyncio.run(_with_database(settings, _seed))
        case "import-jobs":
            return asyncio.run(_with_database(settings, _importing(options.file)))
        case "token":
            return asyncio.run(_with_database(settings, _printing_token(settings, options)))
        case "console":
            return asyncio.run(_with_database(settings, _printing_link(settings, options)))
        case _:
            return asyncio.run(_with_database(settings, _users(options)))


def _serve(settings: Settings, options: argparse.Namespace) -> int:
    port = settings.port if options.port is None else options.port
    deployment = asyncio.run(deployment_id(settings))  # else refused here, once
    fd = options.fd
    if fd is None:
        try:
            listener = listen(options.host, port)
        except OSError as error:
            _fail(f"cannot listen on {options.host}:{port}: {error.strerror}")
        if options.workers > 1:
            return serve_with_workers(listener, options.workers, settings.drain_seconds)
        fd = listener.detach()
    logging.configure(form=settings.log_format, level=settings.log_level, node=f"pid-{os.getpid()}")
    serving = server(settings, deployment, host=options.host, port=port, fd=fd)
    serving.parent = options.parent
    serving.run()
    return serving.exit_status


async def _migrate(settings: Settings) -> int:
    database = Database(settings.database_url, pooler=settings.database_pooler)
    done = await migrations.migrate(database, say=print)
    print(f"{len(done)} migrations run" if done else "the schema is up to date")
    return 0


Work = Callable[[Database], Awaitable[int]]


async def _with_database(settings: Settings, work: Work) -> int:
    database = Database(settings.database_url, pooler=settings.database_pooler)
    await database.open()
    try:
        if not await migrations.is_current(database):
            raise SchemaMissing
        return await work(database)
    finally:
        await database.close()


async def _seed(database: Database) -> int:
    await seed(database)
    print("the documents' test data is there")
    return 0


def _importing(path: Path) -> Work:
    async def work(database: Database) -> int:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("importing jobs", total=None)

            def show(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            try:
                count = await import_jobs(database, path, show)
            except ImportRefused as refused:
                _list_problems(path, refused.problems)
                return 1
        print(f"{count} jobs imported")
        return 0

    return work


def _list_problems(path: Path, problems: Sequence[str]) -> None:
    print(f"coordinator: nothing was imported from {path}:", file=sys.stderr)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)


def _printing_token(settings: Settings, options: argparse.Namespace) -> Work:
    async def work(database: Database) -> int:
        people = People(database)
        staff = await _member(people, options.user)
        if staff is None:
            return _unknown(options.user)
        access = Access(settings.jwt_secrets, people)
        print(access.issue_staff(staff, timedelta(days=options.days)))
        return 0

    return work


def _printing_link(settings: Settings, options: argparse.Namespace) -> Work:
    async def work(database: Database) -> int:
        staff = await _member(People(database), options.user)
        if staff is None:
            return _unknown(options.user)
        await print_link(settings, database, staff)
        return 0

    return work


def _users(options: argparse.Namespace) -> Work:
    async def work(database: Database) -> int:
        people = People(database)
        if options.action == "list":
            for staff in await people.list_all():
                print(_line(staff))
            return 0
        if options.action == "add":
            staff = await people.add(options.openid, options.name, options.role)
            print(staff.user_id)
            return 0
        number = staff_number(options.user) or 0
        if options.action == "role":
            changed = await people.set_role(number, options.role)
        else:
            changed = await people.disable(number)
        if changed is None:
            return _unknown(options.user)
        print(changed.user_id)
        return 0

    return work


async def _member(people: People, public_id: str) -> Staff | None:
    number = staff_number(public_id)
    return await people.staff(number) if number else None


def _unknown(public_id: str) -> int:
    print(f"coordinator: there is no {public_id} (see `coordinator users list`)", file=sys.stderr)
    return 1


def _line(staff: Staff) -> str:
    state = "  disabled" if getattr(staff, "disabled", False) else ""
    return f"{staff.user_id}  {staff.role:5}  {staff.openid}  {staff.name or '-'}{state}"


if __name__ == "__main__":
    main()

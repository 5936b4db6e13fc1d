"""The command `coordinator`: serving, and what operators do by hand. A file for each command."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from logging import ERROR
from typing import NoReturn

import structlog

from coordinator.cli import (
    check,
    console,
    dev,
    epoch,
    erase,
    import_jobs,
    inspect,
    migrate,
    seed,
    serve,
    tail,
    token,
    users,
    webhooks,
)
from coordinator.cli.command import CommandFailed
from coordinator.node import SchemaMissing
from coordinator.settings import SettingsError
from coordinator.store.explain import DATABASE_ERRORS, explain
from coordinator.store.fitness import Unfit

COMMANDS = (
    dev,
    serve,
    migrate,
    check,
    users,
    token,
    console,
    import_jobs,
    inspect,
    seed,
    tail,
    epoch,
    erase,
    webhooks,
)
"""Each adds itself to the parser (`add`), with the function that runs it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; ends the process with its status."""
    _print_what_can_be_printed()
    try:
        # A command prints its answer on stdout, and its one sentence of failure on stderr: what the
        # parts have to warn of is for nodes, which say where their log goes.
        structlog.configure(
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
            wrapper_class=structlog.make_filtering_bound_logger(ERROR),
        )
        options = _parser().parse_args(arguments)
        sys.exit(options.run(options))
    except (SettingsError, CommandFailed) as error:
        _fail(str(error))
    except SchemaMissing:
        _fail("the database is not at this version's schema: run `coordinator migrate` first")
    except Unfit as error:
        _fail(f"PostgreSQL cannot be used: {error}")
    except BrokenPipeError:  # `coordinator users list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except DATABASE_ERRORS as error:
        _fail(f"PostgreSQL cannot be used: {explain(error)}")
    except KeyboardInterrupt:
        sys.exit(130)


def _print_what_can_be_printed() -> None:
    """A name that the terminal has no letters for comes out escaped; it ends no command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            with contextlib.suppress(OSError):  # nobody reads it: what is written is lost anyway
                stream.reconfigure(errors="backslashreplace")


def _fail(message: str) -> NoReturn:
    print(f"coordinator: {message}", file=sys.stderr)
    sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="coordinator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    main()

"""The command `coordinator`: serving, and what operators do by hand. A file for each command."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from logging import ERROR
from typing import Any, NoReturn

import structlog

from coordinator.cli.command import CommandFailed
from coordinator.settings import SettingsError
from coordinator.store.explain import DATABASE_ERRORS, explain
from coordinator.store.fitness import Unfit
from coordinator.store.migrations import SchemaMissing

COMMANDS = {
    "dev": "dev",
    "serve": "serve",
    "migrate": "migrate",
    "check": "check",
    "users": "users",
    "token": "token",
    "console": "console",
    "import-jobs": "import_jobs",
    "inspect": "inspect",
    "seed": "seed",
    "tail": "tail",
    "epoch": "epoch",
    "erase": "erase",
    "export": "erase",
    "webhooks": "webhooks",
}
"""The module of each command. It adds itself to the parser (`add`), with the function that runs it;
only the module of the command that is asked for is imported: the parts of a node take a second."""


_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Of a disk: no connection ends so."""


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
        given = sys.argv[1:] if arguments is None else arguments
        parser = _parser(given)
        options = parser.parse_args(given)
        _refuse_what_is_no_text(parser, options)
        status = options.run(options)
        if sys.stdout is not None:  # `>&-`
            sys.stdout.flush()  # here, where its failure has a message and a status
        sys.exit(status)
    except (SettingsError, CommandFailed) as error:
        _fail(str(error))
    except SchemaMissing:
        _fail("the database is not at this version's schema: run `coordinator migrate` first")
    except Unfit as error:
        _fail(f"PostgreSQL cannot be used: {error}")
    except BrokenPipeError:  # `coordinator users list | head`
        _print_no_more()
        sys.exit(1)
    except DATABASE_ERRORS as error:
        if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
            _print_no_more()
            _fail(f"what it prints cannot be written: {error.strerror}")
        _fail(f"PostgreSQL cannot be used: {explain(error)}")
    except KeyboardInterrupt:
        sys.exit(130)


def _print_what_can_be_printed() -> None:
    """A name that the terminal has no letters for comes out escaped; it ends no command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            with contextlib.suppress(OSError):  # nobody reads it: what is written is lost anyway
                stream.reconfigure(errors="backslashreplace")


def _print_no_more() -> None:
    """Drops what stdout has buffered: flushing it would fail again as the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> NoReturn:
    print(f"coordinator: {message}", file=sys.stderr)
    sys.exit(1)


class _Parser(argparse.ArgumentParser):
    def print_help(self, file: Any = None) -> None:
        """Help is an answer, too: argparse itself keeps silent where it cannot be written."""
        print(self.format_help(), end="", file=file, flush=True)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version  # as long to import as a command takes

        print(f"coordinator {version('coordinator')}", flush=True)
        parser.exit()


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """Knows the command that is asked for; where none is, as for `--help`, all of them."""
    parser = _Parser(prog="coordinator", description=__doc__)
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version this is")
    commands = parser.add_subparsers(dest="command", required=True)
    asked_for = COMMANDS.get(given[0]) if given else None
    for module in [asked_for] if asked_for else dict.fromkeys(COMMANDS.values()):
        import_module(f"coordinator.cli.{module}").add(commands)
    return parser


def _refuse_what_is_no_text(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Bytes that are no UTF-8 may name a file, and nothing in the database."""
    for value in vars(options).values():
        if isinstance(value, str) and any("\ud800" <= each <= "\udfff" for each in value):
            parser.error(f"not UTF-8 text: {value!r}")


if __name__ == "__main__":
    main()

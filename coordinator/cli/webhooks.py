"""`coordinator webhooks …`: what an operator does with them by hand."""

from __future__ import annotations

import argparse
import ssl
import sys
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from coordinator.cli.command import CommandFailed, command_settings, run_with_database
from coordinator.data_cipher import DataCipher
from coordinator.domain.errors import CoordinatorError, Unavailable
from coordinator.domain.events import timestamp
from coordinator.services.webhooks import Status, Webhooks
from coordinator.store.database import Database
from coordinator.store.webhook_repairs import WebhookRepairs
from coordinator.store.webhooks import Endpoints
from coordinator.web.webhook_views import wanted
from coordinator.webhooks.addresses import AddressGuard


def add(commands: Any) -> None:
    parser = commands.add_parser("webhooks", help="back ends that are told what happens")
    parser.set_defaults(run=_run)
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="tell a back end from now on; prints the secret once")
    add.add_argument("url", help="https://…")
    add.add_argument("--events", default="all", help="types, separated by commas, or: all")
    add.add_argument("--tenant", help="an enterprise: only its interviews are told")
    add.add_argument("--name", help="default: the URL's host")
    actions.add_parser("list", help="lag, last answer, state, what is parked")
    for action, said in (
        ("remove", "forget it, and where it was"),
        ("rotate", "a new secret; for a day both are valid; prints it once"),
        ("disable", "stop sending; nothing is lost"),
        ("enable", "go on where it stopped"),
        ("test", "send a ping now and print the answer"),
    ):
        actions.add_parser(action, help=said).add_argument("name")
    replay = actions.add_parser("replay", help="tell events once more")
    replay.add_argument("name")
    which = replay.add_mutually_exclusive_group(required=True)
    which.add_argument("--from", dest="since", type=_moment, help="2026-11-01T00:00:00Z")
    which.add_argument("--room", help="a room or an interview, as a whole")
    retry = actions.add_parser("retry", help="try what failed or was parked at once")
    retry.add_argument("name")
    retry.add_argument("--room", help="a room or an interview; default: all")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        has_zone = moment.tzinfo is not None
        return moment.astimezone(UTC) if has_zone else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("must look like 2026-11-01T00:00:00Z") from None


def _run(options: argparse.Namespace) -> int:
    settings = command_settings()

    async def work(database: Database) -> int:
        stories = Webhooks(
            Endpoints(database),
            WebhookRepairs(database),
            DataCipher(settings.data_keys),
            AddressGuard(settings.webhook_allow_private),
            ssl.create_default_context(),
            on_change=lambda: None,  # the nodes look every two seconds
        )
        try:
            return await _act(stories, options)
        except Unavailable as error:
            if error.__cause__ is not None:  # Postgres is away
                raise
            raise CommandFailed(error.in_english) from error
        except CoordinatorError as error:
            raise CommandFailed(error.in_english) from error

    return run_with_database(settings, work)


async def _act(stories: Webhooks, options: argparse.Namespace) -> int:
    if options.action == "add":
        return await _add(stories, options)
    if options.action == "list":
        _print_list(await stories.listed())
        return 0
    endpoint = await stories.by_name(options.name)
    match options.action:
        case "remove":
            await stories.remove(endpoint.id)
        case "disable":
            await stories.disable(endpoint.id)
        case "enable":
            await stories.enable(endpoint.id)
        case "rotate":
            secret, until = await stories.rotate(endpoint.id)
            print(secret)
            print(f"the old secret is signed with, too, until {timestamp(until)}", file=sys.stderr)
            return 0
        case "test":
            return await _test(stories, endpoint.id)
        case "replay":
            await stories.replay(endpoint.id, since=options.since, log_id=options.room)
        case _:
            print(f"{await stories.retry(endpoint.id, log_id=options.room)} tried again")
            return 0
    print(endpoint.name)
    return 0


async def _add(stories: Webhooks, options: argparse.Namespace) -> int:
    endpoint, secret = await stories.add(
        url=options.url, events=wanted(options.events), tenant=options.tenant, name=options.name,
        by="operator",
    )  # fmt: skip
    print(secret)
    print(f"{endpoint.name} is told from now on; the secret is not shown again", file=sys.stderr)
    return 0


async def _test(stories: Webhooks, endpoint_id: str) -> int:
    answer = await stories.test(endpoint_id)
    said = "no answer" if answer.status is None else str(answer.status)
    print(f"{said} after {answer.milliseconds} ms")
    if answer.body:
        print(_harmless(answer.body))
    return 0 if answer.is_success else 1


def _harmless(text: str) -> str:
    """What a stranger said, without the characters that steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def _print_list(listed: list[Status]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("name", "state", "lag", "last answer", "failing", "parked", "events", "url"):
        table.add_column(column, no_wrap=True)
    for status in listed:
        endpoint = status.endpoint
        table.add_row(
            endpoint.name,
            "enabled" if endpoint.disabled_at is None else f"disabled ({endpoint.disabled_reason})",
            "?" if status.lag is None else f"{status.lag.total_seconds():.1f} s",
            _last_answer(status), str(status.failing), str(status.parked),
            "all" if endpoint.events is None else ",".join(endpoint.events), endpoint.url,
        )  # fmt: skip
    # What is read by a script is not cut off at the edge of a screen; a URL may hold what Rich
    # takes for its markup.
    width = None if sys.stdout.isatty() else 10_000
    Console(width=width, markup=False, emoji=False).print(table, soft_wrap=True)
    for status in listed:
        for log in status.parked_logs:
            print(f"{status.endpoint.name}: parked {log.feed.kind} {log.feed.id} after seq "
                  f"{log.position}: {log.last_answer}")  # fmt: skip


def _last_answer(status: Status) -> str:
    endpoint = status.endpoint
    if endpoint.last_answer is None or endpoint.last_answer_at is None:
        return "-"
    return f"{endpoint.last_answer} at {timestamp(endpoint.last_answer_at)}"

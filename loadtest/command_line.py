"""The command line: `python -m loadtest <scenario> [--url URL --token JWT]`."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from rich.console import Console

from coordinator.server import raise_file_limit
from coordinator.standins.servers import EmbeddedError
from loadtest.compare import NAMES, compare
from loadtest.deployment import NotStarted
from loadtest.fanout import fanout
from loadtest.figures import Result
from loadtest.idle import idle
from loadtest.measure import Bench, CannotMeasure
from loadtest.presence import presence
from loadtest.report import page
from loadtest.rest import rest
from loadtest.screen import show
from loadtest.storm import storm
from loadtest.wave import wave
from loadtest.webhooks import webhooks
from tests.harness.http_lines import Answered
from tests.harness.node import NodeError
from tests.harness.outputs import output_file
from tests.harness.screen import Screen
from tests.harness.watchers import WatchError

NOT_MEASURED = (
    NotStarted, CannotMeasure, NodeError, WatchError, EmbeddedError, Answered, TimeoutError,
)  # fmt: skip
"""What the command line reports in one line."""

Scenario = Callable[..., Awaitable[Result]]
"""Gets the bench, and each of its own options by name."""

SHARED = ("url", "token", "watch_token", "clients", "seed", "json", "report", "scenario")


def parser() -> argparse.ArgumentParser:
    """One sub-command per scenario; what they share can be said to each."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--url", action="append", default=[],
        help="a node that runs already, such as http://10.0.0.5:3000; repeat it for several nodes;"
        " without it everything is started here",
    )  # fmt: skip
    shared.add_argument(
        "--token",
        default="",
        help="with --url: token of a member of the staff, who hosts the rooms of the test"
        " (`coordinator token user_001`)",
    )
    shared.add_argument(
        "--watch-token", default="",
        help="with --url: an admin's, not the same person's; it watches rooms unseen (without it,"
        " guests watch)",
    )  # fmt: skip
    shared.add_argument("--clients", type=int, default=1, help="watching processes (1)")
    shared.add_argument("--seed", type=int, default=1, help="of everything that is random (1)")
    shared.add_argument("--json", type=output_file, help="write the result as JSON")
    shared.add_argument("--report", type=output_file, help="write the result as one HTML page")
    top = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="scenario")

    def command(scenario: Scenario, text: str) -> argparse.ArgumentParser:
        name = scenario.__name__
        one = commands.add_parser(name, help=text, description=text, parents=[shared])
        one.set_defaults(scenario=scenario)
        return one

    one = command(presence, "people come and go; everybody checks everything")
    one.add_argument("--rooms", type=int, default=20)
    one.add_argument("--people", type=int, default=10, help="in each room")
    one.add_argument("--seconds", type=float, default=20)
    one.add_argument("--grace", type=float, default=30, help="with --url: its PRESENCE_GRACE (30)")
    one = command(fanout, "deliveries per second, and how late the last one is seen")
    one.add_argument("--seconds", type=float, default=5, help="for each shape")
    one.add_argument("--scale", type=float, default=1.0, help="below 1: fewer rooms and people")
    one = command(storm, "a join storm, and everybody's return after a node's death")
    one.add_argument("--joins", type=int, default=5000)
    one.add_argument("--connected", type=int, default=1000)
    one = command(wave, "everybody in one large room comes back at once")
    one.add_argument("--people", type=int, default=10_000)
    one = command(rest, "the documented endpoints, one by one")
    one.add_argument("--seconds", type=float, default=2, help="for each line")
    one.add_argument("--in-flight", type=int, nargs="+", default=[1, 8, 16, 64])
    one.add_argument(
        "--beside-fastify",
        action="store_true",
        help="GET room and guest/join, beside Fastify + pg and the least that Python does",
    )
    one = command(idle, "what connections cost that nothing happens on")
    one.add_argument("--connections", type=int, default=2000)
    one.add_argument("--seconds", type=float, default=10)
    one = command(webhooks, "how late a back end is told, how fast it catches up, what it costs")
    one.add_argument("--seconds", type=float, default=10, help="for each window")
    one.add_argument("--backlog", type=int, default=20_000, help="events while it is disabled")
    one = command(compare, "beside `ws`, Socket.IO and bare Python (joins kept), ChannelsPlugin")
    one.add_argument("--seconds", type=float, default=3, help="for each shape")
    one.add_argument("--repeat", type=int, default=3)
    one.add_argument("--scale", type=float, default=1.0, help="below 1: fewer rooms and people")
    one.add_argument("--only", nargs="+", default=[], choices=list(NAMES))
    return top


def main() -> int:
    """Exit status 0: measured, every promise held; 1: one did not; 2: it could not be measured."""
    arguments = parser().parse_args()
    if arguments.url and not arguments.token:
        parser().error("--url needs --token (`coordinator token user_001` prints one)")
    raise_file_limit()
    console = Console()
    bench = Bench(
        Screen(console), tuple(arguments.url), arguments.token, arguments.watch_token,
        arguments.seed, arguments.clients,
    )  # fmt: skip
    try:
        own = {name: value for name, value in vars(arguments).items() if name not in SHARED}
        result = uvloop.run(arguments.scenario(bench, **own))
    except NOT_MEASURED as error:
        console.print(f"[red]not measured:[/] {error}", highlight=False)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 2
    show(console, result)
    write(result, arguments.json, arguments.report)
    return 1 if result.broken else 0


def write(result: Result, json_file: Path | None, report_file: Path | None) -> None:
    """The files that were asked for."""
    if json_file is not None:
        json_file.write_text(
            json.dumps(result.as_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    if report_file is not None:
        report_file.write_text(page(result), encoding="utf-8")

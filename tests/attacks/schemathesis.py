"""Calls of what the API describes, in every way: schemathesis against a node, one command.

    python -m tests.attacks.schemathesis --examples 10000

starts PostgreSQL, Valkey, a stand-in for WeChat and a node that has everything set, and makes at
least so many calls, those of stateful walks included. It finds no 500, no status or body that is
not documented, no `Allow` that leaves a method out. That a request which fits the schema is
accepted is checked by our own rule (`tests/schemathesis_hooks.py`): a refusal has to be one that no
schema can tell.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import structlog

from coordinator.standins.wechat import WechatStandin
from coordinator.store.database import Database
from tests.attacks.servers import deployed
from tests.harness.node import NodeProcess
from tests.harness.patience import patient
from tests.harness.people import Api, Host
from tests.open_api import KEY, KEYS

SEED = 20261125
HOOKS = {
    "SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks",
    "PYTHONPATH": str(Path(__file__).parents[2]),
}
CONFIG = Path(__file__).with_suffix(".toml")
PHASES = ("examples", "coverage", "fuzzing", "stateful")

LEFT_OUT = {
    "negative_data_rejection": "Coze fills in zero values (null, '', numbers as texts), which the"
    " open API takes as absent, and path ids of any form are looked up: unknown ones are 404",
    "positive_data_acceptance": "our own rule stands in its place",
    "ignored_auth": "an admin's token opens what a key of the open API does",
    "missing_required_header": "likewise: X-API-Key is not required of an admin",
}
"""Checks of schemathesis that are not used here, and why."""


@dataclass(frozen=True, slots=True)
class SchemathesisRun:
    """What came of it.

    Attributes:
        calls: how many requests the node answered meanwhile.
        server_errors: how many of them with 500.
        unforeseen: the node's log lines about requests that failed.
    """

    is_clean: bool
    told: str
    calls: int
    server_errors: int
    unforeseen: Sequence[str]


async def run_against(
    node: NodeProcess, database: Database, *, path: str, per_operation: int, folder: Path,
    phases: Sequence[str] = PHASES, seconds: int | None = None, seed: int = SEED,
) -> SchemathesisRun:  # fmt: skip
    """One run as an admin of the node's.

    Args:
        path: a regular expression of the paths that are called.
        per_operation: how many examples at most in a phase.
        folder: where schemathesis keeps what it remembers.
        seconds: fuzzing and walking go on for as long.
        seed: the same makes the same calls.
    """
    api = Api(node)
    admin = await Host.hired(database, api, "admin")
    await admin.creates()
    await api.aclose()
    before = await _answers(node)
    limit = [] if seconds is None else ["--max-time", str(seconds)]
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run",
        f"{node.url}/schema/openapi.json",
        "--include-path-regex", path, "--header", f"Authorization: Bearer {admin.token}",
        "--header", f"X-API-Key: {KEY['X-API-Key']}", "--seed", str(seed),
        "--max-examples", str(per_operation), "--phases", ",".join(phases), *limit,
        "--request-timeout", "30",  # a webhook's receiver has 10 s to answer its test
        "--exclude-checks", ",".join(LEFT_OUT), "--continue-on-failure", "--no-color",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=folder,
        env=os.environ | HOOKS,
    )  # fmt: skip
    try:
        told, _ = await run.communicate()
    finally:
        if run.returncode is None:
            run.kill()
    after = await _answers(node)
    lines = [line for line in node.logs().splitlines() if "request_failed" in line]
    return SchemathesisRun(
        is_clean=run.returncode == 0, told=told.decode(errors="replace"),
        calls=sum(after.values()) - sum(before.values()),
        server_errors=after.get("500", 0) - before.get("500", 0), unforeseen=lines,
    )  # fmt: skip


async def _answers(node: NodeProcess) -> dict[str, int]:
    """How many answers of each status the node has given."""
    async with httpx.AsyncClient(trust_env=False, timeout=patient(60)) as http:
        text = (await http.get(f"{node.url}/metrics")).text
    counts: dict[str, int] = {}
    for line in re.findall(r"^coordinator_http_requests_total\{.*$", text, re.MULTILINE):
        status = re.search(r'status="(\d+)"', line)
        if status is not None:
            counts[status[1]] = counts.get(status[1], 0) + int(float(line.rpartition(" ")[2]))
    return counts


def settings_of(standin: WechatStandin) -> dict[str, str]:
    """A node that has everything set: a 503 is a failure of its own."""
    return {
        **standin.settings, "OPEN_API_KEYS": KEYS, "WX_CONSOLE_PAGE": "pages/console/confirm",
        "ZEGO_APP_ID": "123456789", "ZEGO_SERVER_SECRET": "0" * 32,
    }  # fmt: skip


async def _main(examples: int, seconds: int | None, path: str) -> int:
    quiet = structlog.make_filtering_bound_logger(logging.WARNING)  # the stand-in tells of scans
    structlog.configure(wrapper_class=quiet)
    async with deployed() as (deployment, database, folder):
        with WechatStandin() as standin:
            node = deployment.node(**settings_of(standin))
            async with httpx.AsyncClient(trust_env=False) as http:
                document = (await http.get(f"{node.url}/schema/openapi.json")).json()
            operations = sum(
                len(methods) for at, methods in document["paths"].items() if re.search(path, at)
            )
            calls, is_good, seed = 0, True, SEED
            while is_good and calls < examples:
                run = await run_against(
                    node, database, path=path, folder=folder, seconds=seconds, seed=seed,
                    per_operation=-(-(examples - calls) // operations),
                )  # fmt: skip
                print(run.told, *run.unforeseen, sep="\n")  # noqa: T201
                calls, seed = calls + run.calls, seed + 1
                is_good = run.is_clean and not run.server_errors and not run.unforeseen
    verdict = "none answered with 500, nothing contradicts the description"
    print(  # noqa: T201
        f"{calls} calls of {operations} operations:",
        verdict if is_good else f"{run.server_errors} answered with 500; see above",
    )
    return 0 if is_good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tests.attacks.schemathesis", description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000, help="calls, at least")
    parser.add_argument("--seconds", type=int, help="how long fuzzing and walks go on")
    parser.add_argument("--path", default="^/", help="a regular expression of paths")
    chosen = parser.parse_args()
    raise SystemExit(asyncio.run(_main(chosen.examples, chosen.seconds, chosen.path)))

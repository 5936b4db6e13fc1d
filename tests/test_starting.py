"""Migrating, and refusing to serve."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.harness.commands import at_once, command
from tests.harness.node import COORDINATOR, JWT_SECRET, Deployment, NodeProcess


async def test_many_nodes_migrate_at_once_and_each_migration_runs_once(
    deployment: Deployment, empty_url: str
) -> None:
    def migrate() -> subprocess.CompletedProcess[str]:
        return deployment.run("migrate", DATABASE_URL=empty_url)

    unready = await asyncio.to_thread(
        lambda: deployment.run("serve", "--port", "0", DATABASE_URL=empty_url)
    )
    done = await at_once(*[migrate] * 4)
    again = await asyncio.to_thread(migrate)

    assert unready.returncode == 1
    assert "coordinator migrate" in unready.stderr
    assert [each.returncode for each in done] == [0] * 4, [each.stderr for each in done]
    assert again.stdout == "the schema is up to date\n"
    connection = await asyncpg.connect(empty_url)
    names = [row["name"] for row in await connection.fetch("SELECT name FROM migration")]
    tables = await connection.fetchval("SELECT count(*) FROM deployment")
    await connection.close()
    assert names
    assert len(names) == len(set(names))
    ran = [re.findall(r"^(\S+): done$", each.stdout, re.MULTILINE) for each in done]
    assert sorted(itertools.chain(*ran)) == sorted(names), "each by one of them"
    for each, own in zip(done, ran, strict=True):
        told = f"{len(own)} migrations run" if own else "the schema is up to date"
        assert each.stdout.splitlines()[-1] == told
    assert tables == 1


def test_serve_refuses_with_one_message_that_lists_all_that_is_wrong() -> None:
    refused = command("serve", PORT="many", IDENTITY_PROOF="perhaps", ZEGO_SERVER_SECRET="short",
                      PRESENCE_GRACE="-1", RATE_LIMITS="join=often", LOG_FORMAT="xml",
                      TRUSTED_PROXIES="here", NODE_ENV="production", DB_PORT="x")  # fmt: skip

    assert refused.returncode == 1
    assert refused.stderr.count("coordinator:") == 1
    assert "Traceback" not in refused.stderr
    for name in ("DATABASE_URL", "REDIS_URL", "JWT_SECRET", "PORT", "IDENTITY_PROOF",
                 "ZEGO_SERVER_SECRET", "ZEGO_APP_ID", "PRESENCE_GRACE", "RATE_LIMITS", "LOG_FORMAT",
                 "TRUSTED_PROXIES"):  # fmt: skip
        assert refused.stderr.count(f"- {name}") >= 1, name
    assert "NODE_ENV" not in refused.stderr


def test_a_short_secret_is_refused_and_not_printed(deployment: Deployment) -> None:
    for value in ("only-31-bytes-only-31-bytes-aaa", f"{JWT_SECRET},short-one"):
        refused = deployment.run("serve", JWT_SECRET=value)

        assert refused.returncode == 1
        assert "JWT_SECRET" in refused.stderr
        assert value.split(",")[-1] not in refused.stderr


@pytest.mark.parametrize("arguments", [("serve",), ("serve", "--workers", "2"), ("migrate",)])
def test_without_postgres_it_says_so_once_and_ends(
    deployment: Deployment, arguments: tuple[str, ...]
) -> None:
    url = "postgresql://somebody:the-password@127.0.0.1:1/nothing"

    refused = deployment.run(*arguments, DATABASE_URL=url, PORT="0")

    assert refused.returncode == 1
    assert refused.stderr.count("coordinator:") == 1
    assert "PostgreSQL" in refused.stderr
    assert "the-password" not in refused.stderr + refused.stdout
    assert "Traceback" not in refused.stderr


def test_a_port_that_is_taken_ends_it_with_a_message(deployment: Deployment) -> None:
    taken = deployment.shared_node("a").port

    for workers in ("1", "2"):
        refused = deployment.run("serve", "--host", "127.0.0.1", "--port", str(taken),
                                 "--workers", workers)  # fmt: skip
        assert refused.returncode != 0
        assert "in use" in refused.stdout + refused.stderr
        assert "Traceback" not in refused.stdout + refused.stderr


def test_a_node_uses_nothing_that_is_deprecated(deployment: Deployment) -> None:
    """The next version of Python or of a library would start no node."""
    node = deployment.node(program=("-W", "default", *COORDINATOR))
    node.get("/health/ready")

    assert node.stop() == 0
    assert "DeprecationWarning" not in node.logs()


SIGNALLED_AT_ONCE = """
import os, signal, sys
from coordinator.cli.main import main
from coordinator.node import Node

start = Node.start

async def start_and_be_signalled(node):
    await start(node)
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGHUP)

Node.start = start_and_be_signalled
sys.exit(main())
"""
"""A node that is sent signals in the very moment in which it has said that it has started."""


def test_signals_are_heard_from_when_a_node_says_that_it_has_started(
    deployment: Deployment, tmp_path: Path
) -> None:
    node = NodeProcess(tmp_path / "log", program=("-P", "-c", SIGNALLED_AT_ONCE))
    node.start(deployment.env())
    node.wait(30)

    assert node.process.poll() == 0
    said = [line["event"] for line in node.lines()]
    assert said.index("node_started") < said.index("inspected") < said.index("node_stopped")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_node_tells_the_port_that_it_was_given(deployment: Deployment, workers: str) -> None:
    """In links and codes, where no `PUBLIC_BASE_URL` is set."""
    node = deployment.node("--workers", workers, PORT="3999")

    told = httpx.get(f"{node.url}/openapi/coze.json", trust_env=False).json()

    assert told["servers"] == [{"url": f"http://localhost:{node.port}"}]
    assert node.stop() == 0


@pytest.mark.parametrize(
    "arguments",
    [("serve", "--port", "65536"), ("serve", "--port", "x"), ("serve", "--workers", "0"),
     ("token", "user_001", "--days", "many"), ("token", "user_001", "--days", "nan"),
     ("users", "add", "--openid", " "), ("users", "add", "--openid", "o" * 101), ("dance",), ()],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(arguments: tuple[str, ...]) -> None:
    refused = command(*arguments)

    assert refused.returncode == 2
    assert "usage: coordinator" in refused.stderr
    assert "Traceback" not in refused.stderr

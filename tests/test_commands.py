"""Commands end in sentences, `check` tries what `serve` uses, and both find a running `dev`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import resource
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from coordinator.cli import tail as tail_command
from coordinator.cli.command import CommandFailed, settings_of_command
from coordinator.settings import Settings
from tests.harness.node import JWT_SECRET, Deployment, NodeProcess
from tests.harness.patience import patient
from tests.harness.people import Guest, Host


def at(url: str, **parts: str) -> str:
    """`url` with another path or login."""
    return urlunsplit(urlsplit(url)._replace(**parts))


async def answers(deployment: Deployment, *arguments: str, **settings: str) -> tuple[int, str, str]:
    """Status, stdout and stderr of a command; none of them has a traceback."""
    done = await asyncio.to_thread(lambda: deployment.run(*arguments, **settings))
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


@contextlib.asynccontextmanager
async def made(*statements: str, undo: tuple[str, ...]) -> AsyncIterator[None]:
    """Statements on the tests' server, undone afterwards."""
    connection = await asyncpg.connect(os.environ["TEST_DATABASE_URL"])
    try:
        for statement in statements:
            await connection.execute(statement)
        yield
    finally:
        for statement in undo:
            await connection.execute(statement)
        await connection.close()


@pytest.fixture
def name() -> str:
    """Of a database or role, for one test."""
    return f"coordinator_{secrets.token_hex(4)}"


async def test_a_command_says_which_version_it_is(deployment: Deployment) -> None:
    told = f"coordinator {version('coordinator')}\n"
    assert await answers(deployment, "--version") == (0, told, "")


# -- settings ------------------------------------------------------------------------------------


async def test_check_and_the_log_of_serve_warn_of_what_is_risky(deployment: Deployment) -> None:
    settings = {"OPEN_API_KEYS": f"coze:wehan_open_api_key_2026,crm:{'k' * 16}:ro:ent_nowhere"}

    status, out, _ = await answers(deployment, "check", **settings, DATA_KEYS="")
    node = deployment.node(**settings)

    warnings = [line for line in out.splitlines() if line.startswith("warn")]
    assert status == 0
    for told in ("printed", "IDENTITY_PROOF=first-use", "DATA_KEYS", "ent_nowhere"):
        assert len([line for line in warnings if told in line]) == 1, told
    assert "kkkk" not in out
    logged = [json.loads(line) for line in node.logs().splitlines()]
    problems = [line["problem"] for line in logged if line["event"] == "setting_is_risky"]
    assert any("printed" in problem for problem in problems)
    node.stop()


async def test_a_deployment_that_keeps_to_the_advice_has_no_warning(deployment: Deployment) -> None:
    _, out, _ = await answers(deployment, "check", IDENTITY_PROOF="required")

    assert "warn" not in out


def test_without_a_database_the_running_dev_is_found(tmp_path: Path) -> None:
    values = {"DATABASE_URL": "postgresql:///of_dev", "REDIS_URL": "redis://r",
              "JWT_SECRET": JWT_SECRET}  # fmt: skip
    (tmp_path / "node.env").write_text(
        "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())
    )
    own = {"DATABASE_URL": "postgresql:///mine", "REDIS_URL": "redis://mine",
           "JWT_SECRET": JWT_SECRET}  # fmt: skip

    with pytest.raises(CommandFailed, match="not running"):
        settings_of_command({}, folder=tmp_path)
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = settings_of_command({"ROOM_CAPACITY": "7"}, folder=tmp_path)

        assert (found.database_url, found.room_capacity) == ("postgresql:///of_dev", 7)
        assert settings_of_command(own, folder=tmp_path).database_url == "postgresql:///mine"


def test_what_is_set_to_nothing_takes_nothing_from_the_running_dev(tmp_path: Path) -> None:
    """As a compose file or a script hands on variables that nobody has set."""
    values = {"DATABASE_URL": "postgresql:///of_dev", "REDIS_URL": "redis://r",
              "JWT_SECRET": JWT_SECRET}  # fmt: skip
    (tmp_path / "node.env").write_text(
        "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())
    )

    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = settings_of_command(dict.fromkeys([*values, "DB_HOST"], " "), folder=tmp_path)

    assert (found.database_url, found.redis_url) == ("postgresql:///of_dev", "redis://r")


async def test_a_command_needs_no_more_than_it_uses(deployment: Deployment) -> None:
    """A job that migrates has the database's address, and no secret."""
    bare = {"REDIS_URL": "", "JWT_SECRET": ""}

    for command in (("migrate",), ("seed",), ("users", "list"), ("epoch",), ("webhooks", "list")):
        status, _, err = await answers(deployment, *command, **bare)
        assert (status, err) == (0, ""), command
    for line, missing in (("serve", 2), ("check", 2), ("token user_001", 1), ("tail r", 1)):
        status, _, err = await answers(deployment, *line.split(), **bare)
        assert status == 1
        assert err.count(" is missing (for example") == missing, line


NAMELESS = """
import pwd, sys

def nobody(_):
    raise KeyError("uid not found")

pwd.getpwuid = nobody
from coordinator.cli.main import main
main(sys.argv[1:])
"""
"""`coordinator`, run by a user id that has no name, as containers are made to."""


def test_a_user_without_a_name_and_a_home_can_run_it(deployment: Deployment) -> None:
    environ = {**deployment.env(), "DATABASE_URL": at(deployment.database_url, netloc="h")}
    nameless = [sys.executable, "-P", "-c", NAMELESS]
    assert "HOME" not in environ

    shown = subprocess.run([*nameless, "--version"], env=environ, capture_output=True, text=True)
    refused = subprocess.run(
        [*nameless, "users", "list"], env=environ, capture_output=True, text=True
    )

    assert (shown.returncode, shown.stderr) == (0, "")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 2), refused.stderr
    assert "DATABASE_URL cannot be used: it names no user" in refused.stderr


FIRST = """
import os, signal
os.getpid, own = lambda: 1, os.getpid()
import coordinator.cli
os.kill(own, signal.SIGTERM)
import time; time.sleep(60)
"""
"""The first process of a container, told to end while it starts."""


def test_the_first_process_of_a_container_ends_when_it_is_told_to() -> None:
    """The kernel does not do that for it, which has no default for signals."""
    done = subprocess.run([sys.executable, "-P", "-c", FIRST], capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, b"")


async def test_names_come_out_of_a_terminal_without_letters_for_them(
    deployment: Deployment,
) -> None:
    openid = "o" + secrets.token_hex(6)
    deployment.run("users", "add", "--openid", openid, "--name", "王芳")

    status, out, _ = await answers(deployment, "users", "list", PYTHONIOENCODING="ascii")

    assert status == 0
    assert "\\u738b\\u82b3" in next(line for line in out.splitlines() if openid in line)


def test_a_reader_that_goes_away_ends_a_command_quietly(deployment: Deployment) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "coordinator.cli.main", "users", "list"],
        env=deployment.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()

    assert (process.returncode, told) == (1, "")


@pytest.mark.parametrize(
    ("line", "python"),
    [("epoch", {}), ("--help", {}), ("users list --help", {"PYTHONUNBUFFERED": "1"})],
)
def test_a_disk_that_is_full_is_said_and_is_not_postgres(
    deployment: Deployment, tmp_path: Path, line: str, python: dict[str, str]
) -> None:
    with (tmp_path / "out").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "coordinator.cli.main", *line.split()],
            env=deployment.env(**python), stdout=full, stderr=subprocess.PIPE, text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr == "coordinator: what it prints cannot be written: File too large\n"


async def test_epoch_is_shown_and_a_new_one_begun(deployment: Deployment, name: str) -> None:
    async with made(f"CREATE DATABASE {name}", undo=(f"DROP DATABASE {name} WITH (FORCE)",)):
        url = at(deployment.database_url, path=f"/{name}")
        await answers(deployment, "migrate", DATABASE_URL=url)
        told = [
            (await answers(deployment, *command, DATABASE_URL=url))[1].strip()
            for command in (("epoch",), ("epoch",), ("epoch", "new"), ("epoch",))
        ]

    assert told[0] == told[1] != told[2] == told[3]
    assert all(told)


# -- tail ----------------------------------------------------------------------------------------


async def tail_of(
    deployment: Deployment, node: NodeProcess, room: str
) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader]:
    """The command at a node, from the room's first event on, and what it prints."""
    tail = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "coordinator.cli.main", "tail", room, "--since", "0",
        env=deployment.env(PUBLIC_BASE_URL=node.url), stdout=subprocess.PIPE,
    )  # fmt: skip
    assert tail.stdout is not None
    return tail, tail.stdout


async def test_tail_prints_the_rooms_events_until_its_end(
    deployment: Deployment, host: Host, admin: Host, room: str
) -> None:
    guest = await Guest(admin.api).joins(room)
    tail, lines = await tail_of(deployment, host.api.node, room)
    async with asyncio.timeout(patient(60)):
        first = [json.loads(await lines.readline()) for _ in range(2)]
        await guest.leaves()
        await host.ends(room)
        rest = [json.loads(line) async for line in lines]
        status = await tail.wait()

    assert status == 0
    assert [event["seq"] for event in first + rest] == [1, 2, 3, 4]
    assert [event["type"] for event in first + rest] == [
        "room_created", "participant_joined", "participant_left", "room_ended",
    ]  # fmt: skip


async def test_tail_prints_what_came_while_no_node_answered_also_the_end(
    deployment: Deployment, host: Host, room: str
) -> None:
    node = await asyncio.to_thread(deployment.node)
    tail, lines = await tail_of(deployment, node, room)
    async with asyncio.timeout(patient(60)):
        first = json.loads(await lines.readline())
        await asyncio.to_thread(node.kill)
        await Guest(host.api).joins(room)
        await host.ends(room)
        await asyncio.to_thread(node.start(deployment.env()).wait_ready)
        rest = [json.loads(line) async for line in lines]
        status = await tail.wait()

    assert status == 0
    assert [event["seq"] for event in [first, *rest]] == [1, 2, 3]
    assert rest[-1]["type"] == "room_ended"


async def test_tail_of_an_ended_room_prints_its_log_or_says_that_it_has_ended(
    deployment: Deployment, host: Host, room: str
) -> None:
    await host.ends(room)
    url = ("--url", host.api.node.url)

    status, out, _ = await answers(deployment, "tail", room, "--since", "0", *url)
    assert (status, [json.loads(line)["seq"] for line in out.splitlines()]) == (0, [1, 2])
    for since in ([], ["--since", "2"]):
        refused = await answers(deployment, "tail", room, *since, *url)
        assert refused == (1, "", "coordinator: the room has ended\n")


async def test_tail_outlives_its_token(
    deployment: Deployment,
    host: Host,
    room: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tail_command, "TOKEN_LIFE", timedelta(seconds=2))
    settings = Settings.from_env(deployment.env())
    asked = argparse.Namespace(room=room, since=0, url=host.api.node.url)

    async with asyncio.timeout(patient(60)):
        command = asyncio.create_task(tail_command._tail(settings, asked))
        await asyncio.wait([command], timeout=3)
        await host.ends(room)
        status = await command

    assert status == 0
    assert [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()] == [1, 2]


async def test_tail_of_a_room_that_is_not_there_says_so(deployment: Deployment) -> None:
    status, out, err = await answers(deployment, "tail", "room_nowhere")

    assert (status, out) == (1, "")
    assert err == "coordinator: there is no room room_nowhere\n"


@pytest.mark.parametrize(
    "line", ["tail", "erase", "export", "users disable", "webhooks test", "webhooks add http://h/"]
)
async def test_an_argument_that_is_no_text_is_a_mistake(deployment: Deployment, line: str) -> None:
    first, *more = (*line.split(), "a\udcff")
    if line.startswith("webhooks add"):
        more.insert(-1, "--name")

    status, _, err = await answers(deployment, first, *more)

    assert status == 2
    assert "not UTF-8 text: 'a\\udcff'" in err


async def test_tail_asks_for_the_migrations_as_every_command_does(
    deployment: Deployment, empty_url: str
) -> None:
    status, _, err = await answers(deployment, "tail", "room_1", DATABASE_URL=empty_url)

    assert status == 1
    assert "run `coordinator migrate` first" in err


async def test_tail_prints_all_of_a_log_that_is_too_long_to_resume(
    host: Host, room: str, deployment: Deployment
) -> None:
    """The live connection tells a snapshot in place of more than 300 events."""
    guests = [await Guest(host.api).joins(room) for _ in range(30)]
    for _ in range(6):
        await asyncio.gather(*(guest.leaves(token=guest.token) for guest in guests))
        await asyncio.gather(*(guest.joins(room) for guest in guests))
    tail, lines = await tail_of(deployment, host.api.node, room)

    async with asyncio.timeout(patient(20)):
        past = [json.loads(await lines.readline()) for _ in range(31 + 12 * 30)]
        await host.ends(room)
        rest = [json.loads(line) async for line in lines]
        await tail.wait()

    assert [event["seq"] for event in past + rest] == list(range(1, 31 + 12 * 30 + 2))
    assert rest[-1]["type"] == "room_ended"


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://h", "http://", "http://h/?x", ""])
async def test_where_no_node_can_be_is_a_mistake_in_words(deployment: Deployment, url: str) -> None:
    status, _, err = await answers(deployment, "tail", "room_nowhere", "--url", url)

    assert status == 2
    assert f"must be a URL such as http://host:3000, not {url!r}" in err

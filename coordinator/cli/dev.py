"""`coordinator dev`: everything on one machine, ready in seconds, kept in one folder.

Real PostgreSQL and Valkey run as children (unless `DATABASE_URL` or `REDIS_URL` name others); the
documents' test data is put in, so that their printed examples can be pasted. The secrets of this
folder are made once; the two API keys are those printed in the Coze document.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import secrets
import shlex
import socket
import sys
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from coordinator import logging
from coordinator.cli import command
from coordinator.cli.workers import listen
from coordinator.data_cipher import DataCipher
from coordinator.domain.people import Staff
from coordinator.environment import read_dotenv
from coordinator.node import deployment_id
from coordinator.server import server
from coordinator.services.access import Access
from coordinator.services.console import sign_in_link
from coordinator.settings import DOCUMENTED_KEYS, Settings, SettingsError
from coordinator.standins import mini_program
from coordinator.standins.seed import reset_example, seed
from coordinator.standins.servers import EmbeddedError, EmbeddedPostgres, EmbeddedRedis
from coordinator.standins.wechat import DOCUMENTED_OPENID, WechatStandin
from coordinator.store.console import ConsoleSessions
from coordinator.store.database import Database
from coordinator.store.people import People

ADMIN_OPENID = "oDevelopmentAdmin"
"""The admin of development, beside the documents' 张经理."""

CONSOLE_PAGE = "pages/console/confirm/confirm"
"""The page of the mini-program that confirms sign-ins; its stand-in plays it here."""

_NODE_SETTINGS = (
    "DATABASE_URL", "REDIS_URL", "JWT_SECRET", "OPEN_API_KEYS", "ZEGO_APP_ID", "ZEGO_SERVER_SECRET",
    "PUBLIC_BASE_URL", "PORT", "DATA_KEYS", "WX_API_BASE", "WX_APPID", "WX_SECRET",
    "WX_CONSOLE_PAGE", "LOG_FORMAT", "WEBHOOK_ALLOW_PRIVATE",
)  # fmt: skip


def add(commands: Any) -> None:
    dev = commands.add_parser("dev", help="everything on this machine, with embedded servers")
    dev.add_argument("--port", type=command.port, help="default: PORT or 3000")
    dev.add_argument("--data", type=Path, default=command.DEV_FOLDER, help="folder of the data")
    dev.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        return run_dev(os.environ, port=options.port, data=options.data)
    except EmbeddedError as error:
        raise command.CommandFailed(str(error)) from error


def run_dev(environ: Mapping[str, str], *, port: int | None, data: Path) -> int:
    """Serves until Ctrl-C or SIGTERM; stops everything that it started.

    Raises:
        SettingsError, CommandFailed: it cannot serve. Raised before a server is started, except for
            what a server itself refuses.
    """
    _make_folder(data)
    values = _given(environ, port)
    with contextlib.ExitStack() as started:
        if not _is_mine(data, started):
            print(
                f"coordinator: another `coordinator dev` is using {data}/"
                " (end it first, or give --data another folder)",
                file=sys.stderr,
            )
            return 1
        to_come = {} if values.get("DB_HOST") else {"DATABASE_URL": "postgresql:///embedded"}
        expected = _settings({**to_come, "REDIS_URL": "redis://embedded", **values}, data)
        listener = started.enter_context(listen("0.0.0.0", expected.port))
        values["PORT"] = str(listener.getsockname()[1])  # also where it was 0
        if not values.get("DATABASE_URL") and not values.get("DB_HOST"):
            postgres = started.enter_context(EmbeddedPostgres(data))
            values["DATABASE_URL"] = postgres.url
        if not values.get("REDIS_URL"):
            redis = started.enter_context(EmbeddedRedis(data))
            values["REDIS_URL"] = redis.url
        standin = None
        if not values.get("WX_API_BASE") and not values.get("WX_APPID"):
            standin = started.enter_context(WechatStandin())
            values |= standin.settings
        settings = _settings(values, data)
        values = _with_defaults(values, data)
        values["PUBLIC_BASE_URL"] = settings.base_url
        _keep_for_a_second_node(values | {"PORT": str(settings.port)}, data / "node.env")
        if standin is not None:
            standin.page_url = settings.base_url + mini_program.PATH
        logging.configure(form=settings.log_format, level=settings.log_level, node="dev")
        greeting = asyncio.run(_prepare(settings))
        deployment = asyncio.run(deployment_id(settings))
        lan = _lan_address()
        pages = mini_program.routes() if mini_program.is_wanted(settings.wx_api_base) else []
        running = server(
            settings, deployment, host="0.0.0.0", port=settings.port, fd=listener.detach(),
            more_routes=pages, host_names=_host_names(settings, lan),
        )  # fmt: skip
        running.on_ready = lambda: _say_where_to_look(settings, greeting, data, lan)
        running.run()
    return 0


def _given(environ: Mapping[str, str], port: int | None) -> dict[str, str]:
    """What is set, by the environment or the `.env` file: neither embedded nor defaulted then.

    Raises:
        SettingsError: the file cannot be read.
    """
    of_file, problems = read_dotenv(command.DOTENV)
    if problems:
        raise SettingsError(problems)
    values = {name: value for name, value in (of_file | dict(environ)).items() if value.strip()}
    return values if port is None else {**values, "PORT": str(port)}


def _settings(values: Mapping[str, str], data: Path) -> Settings:
    """
    Raises:
        SettingsError
    """
    return Settings.from_env(_with_defaults(values, data), dotenv=command.DOTENV)


def _make_folder(data: Path) -> None:
    """The folder, closed to others: it holds secrets. One that holds other things is left alone.

    Raises:
        CommandFailed: there is something else in it.
    """
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = {path.name for path in data.iterdir()}
    except OSError as error:
        raise command.CommandFailed(f"{data}/ cannot be used: {error.strerror}") from error
    if found and not found & {"lock", "node.env"}:
        raise command.CommandFailed(
            f"{data}/ holds other things: give --data an empty folder, or a new one"
        )
    data.chmod(0o700)


def _lan_address() -> str | None:
    """This machine's address in its network; None without one. Nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: an address of nobody
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith("127.") else address


def _host_names(settings: Settings, lan: str | None) -> frozenset[str]:
    """What `dev` answers to: a page of the web whose name suddenly means this machine does not
    reach it (DNS rebinding).
    """
    own = urlsplit(settings.base_url).hostname
    names = {"localhost", "127.0.0.1", "[::1]", own, lan, *settings.dev_hosts}
    return frozenset(name for name in names if name)


def _is_mine(data: Path, started: contextlib.ExitStack) -> bool:
    """Takes the folder for this run; False where another one has it. A killed run holds nothing."""
    lock = started.enter_context((data / "lock").open("w"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _with_defaults(values: Mapping[str, str], data: Path) -> dict[str, str]:
    """What development needs and nobody has set."""
    defaults = {
        "JWT_SECRET": _kept_secret(data / "jwt-secret"),
        "OPEN_API_KEYS": DOCUMENTED_KEYS,
        "ZEGO_APP_ID": "123456789",
        "ZEGO_SERVER_SECRET": _kept_secret(data / "zego-secret")[:32],
        "WX_CONSOLE_PAGE": CONSOLE_PAGE,
        "DATA_KEYS": b64encode(bytes.fromhex(_kept_secret(data / "data-key"))).decode(),
        "WEBHOOK_ALLOW_PRIVATE": "127.0.0.0/8,::1/128",  # receivers on this machine
        "LOG_FORMAT": "text",
        "DRAIN_SECONDS": "0",  # no proxy has to see it, and Ctrl-C is for now
    }
    return {**defaults, **values}


def _keep_for_a_second_node(values: Mapping[str, str], path: Path) -> None:
    """A file to source before `coordinator serve`: another node on the same Postgres and Redis."""
    names = sorted(name for name in values if name in _NODE_SETTINGS)
    path.touch(mode=0o600)
    path.write_text("".join(f"export {name}={shlex.quote(values[name])}\n" for name in names))


def _kept_secret(path: Path) -> str:
    """A random secret of this folder, the same at every start."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path.read_text().strip()


@dataclass(frozen=True, slots=True)
class _Greeting:
    """What is printed for the people of development."""

    token: str
    manager_link: str
    admin_link: str


async def _prepare(settings: Settings) -> _Greeting:
    """Schema, the documents' people and test data; what signs them in."""
    await command.migrated(settings)
    database = Database(settings.database_url, pooler=settings.database_pooler)
    await database.open()
    try:
        cipher = DataCipher(settings.data_keys)
        people, sessions = People(database, cipher), ConsoleSessions(database)
        staff = await _document_user(people)
        admin = await people.by_openid(ADMIN_OPENID) or await people.add(
            ADMIN_OPENID, "管理员", "admin"
        )
        await seed(database)
        await reset_example(database)
        manager_link, admin_link = [
            await sign_in_link(sessions, who, base_url=settings.base_url, is_reusable=True)
            for who in (staff, admin)
        ]
        token = Access(settings.jwt_secrets, people).issue_staff(staff)
        return _Greeting(token, manager_link, admin_link)
    finally:
        await database.close()


async def _document_user(people: People) -> Staff:
    """张经理 of the REST document, as it is printed there: the first user of a new database."""
    found = await people.by_openid(DOCUMENTED_OPENID)
    if found is not None:
        return found
    staff = await people.add(DOCUMENTED_OPENID, "张经理", "hr")
    await people.set_profile(staff.number, name="张经理", avatar="https://xxx.com/avatar.png")
    await people.set_phone(staff.number, "13800138888")
    return staff


def _say_where_to_look(
    settings: Settings, greeting: _Greeting, data: Path, lan: str | None
) -> None:
    base = f"http://localhost:{settings.port}"
    nearby = f"\n  from a phone nearby   http://{lan}:{settings.port}" if lan else ""
    print(
        f"""
coordinator is ready on {base}  (data in {data}/, Ctrl-C stops everything){nearby}

  console         sign in (each link works for 12 hours):
    张经理        {greeting.manager_link}
    admin         {greeting.admin_link}
  documentation   {base}/schema
  health          {base}/health/ready
  staff token     of user_001 (张经理), good for 7 days:

export TOKEN={greeting.token}

  try it:

curl -s {base}/api/interview/create-room -H "Authorization: Bearer $TOKEN" \\
  -d '{{"roomId": "room_1234567_abc", "roomName": "张经理的面试房间", "hostName": "张经理"}}'

  then join it as a guest, in a browser:

{base}/join/room_1234567_abc
""",
        flush=True,
    )

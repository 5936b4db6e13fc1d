"""`coordinator inspect`: a page about each node that runs on this machine."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from typing import Any

from coordinator.cli.command import CommandFailed
from coordinator.control_socket import ask, folder, sockets


def add(commands: Any) -> None:
    inspect = commands.add_parser("inspect", help="what the nodes of this machine are doing")
    inspect.set_defaults(run=lambda options: asyncio.run(_inspect(options)))


async def _inspect(_: Namespace) -> int:
    pages = {}
    for path in sockets():
        page = await ask(path, "inspect")
        if page is not None:
            pages[path.stem.partition("-")[2]] = page.decode()
    if not pages:
        raise CommandFailed(f"no node of this user runs here (looked in {folder()})")
    for pid, text in pages.items():
        print(f"process {pid}\n{text}")
    return 0

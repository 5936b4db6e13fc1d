"""`coordinator serve`: one node, or several behind one listening socket."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from coordinator import logging
from coordinator.cli.command import count, port
from coordinator.cli.workers import listen, serve_with_workers
from coordinator.node import deployment_id
from coordinator.server import server
from coordinator.settings import Settings

log = structlog.get_logger()


def add(commands: Any) -> None:
    serve = commands.add_parser("serve", help="serve in production; nothing embedded")
    serve.add_argument("--host", default="0.0.0.0")
    serve.add_argument("--port", type=port, help="default: PORT or 3000")
    serve.add_argument("--workers", type=count, default=1, help="processes; each is a node")
    serve.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    serve.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until there is a node that can answer it
    settings = Settings.from_env(os.environ, dotenv=Path(".env"))
    port = settings.port if options.port is None else options.port
    deployment = asyncio.run(deployment_id(settings))  # else refused here, once
    fd = options.fd
    if fd is None:
        listener = listen(options.host, port)
        if options.workers > 1:
            return serve_with_workers(listener, options.workers, settings.drain_seconds)
        fd = listener.detach()
    settings = replace(settings, port=_port_of(fd))  # also where it was 0
    logging.configure(form=settings.log_format, level=settings.log_level, node=f"pid-{os.getpid()}")
    for warning in settings.warnings():
        log.warning("setting_is_risky", problem=warning)
    serving = server(
        settings, deployment, host=options.host, port=settings.port, fd=fd, parent=options.parent
    )
    serving.run()
    return serving.exit_status


def _port_of(fd: int) -> int:
    """Where a listening socket listens: `PUBLIC_BASE_URL` is that where none is set."""
    with socket.socket(fileno=os.dup(fd)) as listener:
        port: int = listener.getsockname()[1]
        return port

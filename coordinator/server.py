"""A node as a process that serves: uvicorn around it, signals, the drain, the limit of open files.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import structlog
import uvicorn

from coordinator.metrics import TCP_CONNECTIONS
from coordinator.node import Node
from coordinator.settings import Settings
from coordinator.web.http_protocol import http_protocol
from coordinator.web.tcp_connections import TcpConnections

log = structlog.get_logger()

SHUTDOWN_SECONDS = 3
ACCEPTING_TURNS = 3
"""Of the loop, between the end of a drain and closing the listener."""
FILES_KEPT = 200
"""Open files of a node that are no connections of clients: Postgres, Redis, WeChat, its own."""


class Server(uvicorn.Server):
    """uvicorn, draining before it shuts down, and ending with status 0 when it was told to."""

    def __init__(
        self,
        config: uvicorn.Config,
        node: Node,
        sockets: list[socket.socket] | None,
        parent: int | None,
    ) -> None:
        """`parent`: the process that a worker serves for; without it nobody could end the worker.
        """
        super().__init__(config)
        self.node = node
        self.sockets = sockets
        self.on_ready: Callable[[], None] | None = None
        self.exit_status = 0
        node.on_loss = self._end_after_loss
        self.parent = parent

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        super().run(sockets or self.sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Before the node says that it has started: from then on it is sent signals.
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # `nohup` has it ignored
            signal.signal(signal.SIGHUP, self.handle_exit)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.node.inspect)
        await super().startup(sockets)
        if self.started and self.on_ready is not None:
            self.on_ready()

    async def on_tick(self, counter: int) -> bool:
        if self.parent is not None and os.getppid() != self.parent and not self.should_exit:
            log.warning("supervisor_is_gone", parent=self.parent)
            self.should_exit = True
        return await super().on_tick(counter)

    def _end_after_loss(self) -> None:
        """The node cannot go on: its clients are sent elsewhere, and status 1 asks for a new one.
        """
        self.exit_status = 1
        self.should_exit = self.node.is_draining = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains; a second one does not wait.

        A worker may be told twice, by its supervisor and by who ends both (Ctrl-C, a process
        group): it leaves to the supervisor what a second signal is.
        """
        if self.should_exit and self.parent is None:
            self.force_exit = True
        self.should_exit = self.node.is_draining = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains while the listener is open, then closes it; what is asked now is answered yet."""
        draining = asyncio.create_task(self.node.drain())
        while not draining.done() and not self.force_exit:
            await asyncio.wait([draining], timeout=0.1)
        draining.cancel()
        # A connection that is not accepted yet is reset when the listener closes.
        for _ in range(ACCEPTING_TURNS):
            await asyncio.sleep(0)
        await super().shutdown(sockets)
        # A second signal skips `Node.stop`: the node would start its cancelled tasks anew.
        if self.force_exit:
            await self.node.tasks.end()
            logging.getLogger("uvicorn.error").disabled = True  # what is cancelled now is no fault


def server(
    settings: Settings,
    deployment: str,
    *,
    host: str,
    port: int,
    fd: int | None = None,
    parent: int | None = None,
    more_routes: Sequence[Any] = (),
    host_names: frozenset[str] = frozenset(),
) -> Server:
    """A server of one node, ready to `run`.

    Args:
        fd: a listening socket that it shares.
        parent: the supervisor's process, where this is one of its workers.
        host_names: those that it answers, in small letters; empty = any.
    """
    files = raise_file_limit()
    most = max(files - FILES_KEPT, files // 2)
    tcp_connections = TcpConnections(
        most=most,
        per_address=0 if settings.limits_are_off else settings.connections_per_address,
        trusted=settings.trusted_proxies,
    )
    TCP_CONNECTIONS.set_function(lambda: tcp_connections.open)
    node = Node(settings, deployment, more_routes=more_routes, parent=parent)
    node.handshake.limit_places(most * 9 // 10)  # the rest is for HTTP
    config = uvicorn.Config(
        node.asgi,
        host=host,
        port=port,
        loop="uvloop",
        http=http_protocol(
            node.handshake, tcp_connections, node.asgi.prompts, host_names=host_names
        ),
        ws="websockets-sansio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=4096,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        proxy_headers=False,
    )
    listeners = [socket.socket(fileno=fd)] if fd is not None else None
    return Server(config, node, listeners, parent)


def raise_file_limit() -> int:
    """A live connection is an open file: the soft limit is raised to the hard one, and told."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard

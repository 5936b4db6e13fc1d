"""The watching processes, as a scenario uses them: open, listen, until, drop, reopen."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection as Pipe
from multiprocessing.process import BaseProcess
from typing import Any, Self

from tests.harness import watch
from tests.harness.held import Heard, Opened, Place
from tests.harness.wire import Address


class WatchError(Exception):
    """A watching process ended or did not answer; the message says which command it was on."""


class _Process:
    """One watching process: a pipe to it, and what it told last."""

    def __init__(self, addresses: list[Address], dialect: str, cores: frozenset[int]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe: Pipe
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=watch.main, args=(theirs, addresses, dialect, cores), daemon=True
        )
        self.process.start()
        theirs.close()
        self.ready = 0
        self.deliveries = 0
        self._answer: asyncio.Future[Any] | None = None
        self._loop = asyncio.get_running_loop()
        # A thread, since an event loop would make the pipe non-blocking, for sending too.
        self._hearing = threading.Thread(target=self._hear, daemon=True)
        self._hearing.start()

    def _hear(self) -> None:
        """In the thread: until the other end is gone."""
        while True:
            try:
                message = self.pipe.recv()
            except (EOFError, OSError):
                message = WatchError("a watching process has ended")
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._arrived, message)
            if isinstance(message, WatchError):
                return

    def _arrived(self, message: Any) -> None:
        if isinstance(message, tuple):
            self.ready, self.deliveries = message
        elif self._answer is None or self._answer.done():
            return
        elif isinstance(message, WatchError):
            self._answer.set_exception(message)
        else:
            self._answer.set_result(message)

    async def ask(self, seconds: float, *command: Any) -> Any:
        """Sends a command and waits for its answer.

        Raises:
            WatchError: no answer within `seconds`, or the process has ended.
        """
        self._answer = self._loop.create_future()
        self.pipe.send(command)
        try:
            return await asyncio.wait_for(self._answer, seconds)
        except TimeoutError:
            raise WatchError(f"no answer to {command[0]} within {seconds:g} s") from None

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send(("stop",))
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(5)
        self._hearing.join(5)
        self.pipe.close()


class Watchers:
    """Connections to watch with, shared out over a few processes.

    Use inside a running loop: `with Watchers(addresses, processes=1, cores=cores) as watchers`.
    """

    def __init__(
        self,
        addresses: list[Address],
        *,
        processes: int,
        cores: frozenset[int],
        dialect: str = "live",
    ) -> None:
        self._all = [_Process(addresses, dialect, cores) for _ in range(processes)]

    @property
    def pids(self) -> list[int]:
        return [one.process.pid or 0 for one in self._all]

    @property
    def ready(self) -> int:
        """Connections that stand, as far as told."""
        return sum(one.ready for one in self._all)

    @property
    def deliveries(self) -> int:
        """Deliveries of this window so far, as far as told."""
        return sum(one.deliveries for one in self._all)

    async def open(
        self, places: list[Place], *, in_flight: int = 64, seconds: float = 120
    ) -> Opened:
        """Opens a connection for each place; returns when each stands or was refused."""
        share = len(self._all)
        return _opened(
            await asyncio.gather(*(
                one.ask(seconds, "open", places[i::share], max(1, in_flight // share))
                for i, one in enumerate(self._all)
            ))
        )  # fmt: skip

    async def reopen(
        self, addresses: list[Address], *, in_flight: int = 64, seconds: float = 120
    ) -> Opened:
        """All connections that were lost come back at these nodes, each after its last event."""
        each = max(1, in_flight // len(self._all))
        return _opened(await self._ask_all(seconds, "reopen", addresses, each))

    async def drop(self) -> None:
        """Cuts every connection, as a lost network does."""
        await self._ask_all(30, "drop")

    async def all_lost(self, *, seconds: float) -> None:
        """Returns when no connection stands, or after `seconds`."""
        await self._ask_all(seconds + 30, "gone", seconds)

    async def listen(self, *, nap: float) -> None:
        """Starts a window; `nap` seconds between two looks at the sockets, 0 = read at once."""
        await self._ask_all(30, "listen", nap)

    async def until(self, targets: Mapping[str, int], *, seconds: float) -> Heard:
        """Ends the window when everybody has the events of its room up to `targets[room]`, or
        after `seconds`.
        """
        heard = Heard(reached=True)
        for part in await self._ask_all(seconds + 30, "until", dict(targets), seconds):
            heard.deliveries += part.deliveries
            heard.reads += part.reads
            heard.reached = heard.reached and part.reached
            heard.first_ns = min(filter(None, (heard.first_ns, part.first_ns)), default=0)
            heard.last_ns = max(heard.last_ns, part.last_ns)
            heard.latency.merge(part.latency)
            heard.slots.update(part.slots)
            heard.wrong.update(part.wrong)
        return heard

    async def leave(self) -> None:
        """Closes all connections in order."""
        await self._ask_all(60, "leave")

    async def _ask_all(self, seconds: float, *command: Any) -> list[Any]:
        return await asyncio.gather(*(one.ask(seconds, *command) for one in self._all))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._all:
            one.end()


def _opened(parts: list[Opened]) -> Opened:
    total = Opened()
    for part in parts:
        total.ready += part.ready
        total.seconds = max(total.seconds, part.seconds)
        total.took.merge(part.took)
        total.refused.update(part.refused)
    return total

"""A process that holds thousands of live connections and counts what they receive.

It is plain sockets on a selector, without an event loop in between, since it must be far cheaper
than the server. Two ways to listen: *at once*, for latencies; or with a *nap* between two looks, so
that one read brings several frames (a client that wakes for every frame costs as much as a server).

It takes commands from `watchers.Watchers` through a pipe, and answers each with one message; in
between it tells how far it is, four times a second.
"""

from __future__ import annotations

import errno
import gc
import os
import selectors
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from multiprocessing.connection import Connection as Pipe
from typing import Any

from tests.harness.held import Heard, Held, Opened, Place
from tests.harness.node import pin
from tests.harness.wire import CLOSE, Address, Reader, Stream, WireError, frame

SLOT_NS = 100_000_000
"""Width of a slot of the timeline."""

_READ_BYTES = 256 * 1024
_PROGRESS_SECONDS = 0.25
_LOOK_SECONDS = 0.02
_PER_TURN = 16
"""Sockets that are read before others who want this core get it."""


class Watcher:
    """The process's whole state and its loop."""

    def __init__(self, pipe: Pipe, addresses: list[Address], dialect: str) -> None:
        self.pipe = pipe
        self.addresses = addresses
        self.reader = Reader(dialect)
        self.streams: defaultdict[str, Stream] = defaultdict(partial(Stream, self.reader))
        self.held: list[Held] = []
        self.selector = selectors.DefaultSelector()
        self.selector.register(pipe.fileno(), selectors.EVENT_READ, None)
        self.waiting: list[Held] = []  # to be opened, last first
        self.opening = 0
        self.in_flight = 64
        self.opened: Opened | None = None
        self.opening_since = 0.0
        self.heard = Heard()
        self.nap = 0.0
        self.targets: Mapping[str, int] | None = None
        self.give_up_at = 0.0
        self.next_look = 0.0
        self.next_progress = 0.0
        self.ready = 0
        self.stopped = False

    def run(self) -> None:
        """Until told to stop, or until the other end of the pipe is gone."""
        try:
            while not self.stopped:
                self._turn()
        except (EOFError, BrokenPipeError, KeyboardInterrupt):
            pass
        finally:
            self._close_all()

    def _turn(self) -> None:
        while self.waiting and self.opening < self.in_flight:
            self._open(self.waiting.pop())
        self._read_once()
        self._look(time.monotonic())
        if self.nap and not self.opening:
            time.sleep(self.nap)

    def _read_once(self) -> None:
        for number, (key, events) in enumerate(self.selector.select(_LOOK_SECONDS)):
            if self.nap and number % _PER_TURN == 0:
                _give_way()
            if key.data is None:
                self._command(*self.pipe.recv())
            elif events & selectors.EVENT_WRITE:
                self._connected(key.data)
            else:
                self._readable(key.data)

    # -- commands

    def _command(self, name: str, *arguments: Any) -> None:
        getattr(self, f"do_{name}")(*arguments)

    def do_open(self, seats: list[Place], in_flight: int) -> None:
        """Opens new connections; answers `Opened` when each stands or was refused."""
        new = [Held(seat) for seat in seats]
        self.held += new
        self._begin_opening(new, in_flight)

    def do_reopen(self, addresses: list[Address], in_flight: int) -> None:
        """The same for all that have lost theirs, at other nodes, each after its last event."""
        self.addresses = addresses
        self._begin_opening([one for one in self.held if one.sock is None], in_flight)

    def do_drop(self) -> None:
        """Cuts all connections, as a lost network does."""
        for one in self.held:
            self._forget(one)
        self.pipe.send(None)

    def do_gone(self, seconds: float) -> None:
        """Answers when no connection stands any more, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.ready and time.monotonic() < deadline:
            self._read_once()
        self.pipe.send(None)

    def do_listen(self, nap: float) -> None:
        """Starts a window. `nap`: seconds between two looks; 0 = read at once."""
        self.heard = Heard()
        self.nap = nap
        gc.collect()
        gc.freeze()
        self.pipe.send(None)

    def do_until(self, targets: Mapping[str, int], seconds: float) -> None:
        """Ends the window when every connection has its room's events up to the target."""
        self.targets = targets
        self.give_up_at = time.monotonic() + seconds

    def do_leave(self) -> None:
        """Closes all connections in order."""
        for one in self.held:
            if one.sock is not None:
                self._send(one, frame(CLOSE, (1000).to_bytes(2, "big")))
        self._close_all()
        self.pipe.send(None)

    def do_stop(self) -> None:
        self.stopped = True

    # -- opening

    def _begin_opening(self, those: list[Held], in_flight: int) -> None:
        self.in_flight = in_flight
        self.opened = Opened()
        self.opening_since = time.monotonic()
        self.waiting = those[::-1]
        self.nap = 0.0

    def _open(self, one: Held) -> None:
        self.opening += 1
        address = self.addresses[one.seat.node % len(self.addresses)]
        try:
            sock = one.connect(address)
        except OSError as error:
            self._refused(one, f"cannot connect: {error.strerror or error}")
            return
        self.selector.register(sock, selectors.EVENT_WRITE, one)

    def _connected(self, one: Held) -> None:
        if one.sock is None:  # given up by a command of the same turn
            return
        error = one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._refused(one, f"cannot connect: {errno.errorcode.get(error, error)}")
            return
        self.selector.modify(one.sock, selectors.EVENT_READ, one)
        self._send(one, one.request(self.addresses[one.seat.node % len(self.addresses)]))

    def _refused(self, one: Held, why: str) -> None:
        self._forget(one)
        self.opening -= 1
        if self.opened is not None:
            self.opened.refused[why] += 1

    def _welcomed(self, one: Held, seq: int, now_ns: int) -> None:
        one.seq = seq
        if one.ready:
            return
        one.ready = True
        self.ready += 1
        self.opening -= 1
        if self.opened is not None:
            self.opened.ready += 1
            self.opened.took.add(now_ns - one.opened_ns)

    # -- reading

    def _readable(self, one: Held) -> None:
        if one.sock is None:
            return
        try:
            data = one.sock.recv(_READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            self._lost(one, error.strerror or str(error))
            return
        now_ns = time.monotonic_ns()
        if not data:
            self._lost(one, "closed without a word")
            return
        self.heard.reads += 1
        if one.rest:
            data, one.rest = one.rest + data, b""
        if not one.header:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                one.rest = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                self._lost(one, data[: data.find(b"\r\n")].decode("latin-1"))
                return
            one.header = True
            data = data[end + 4 :]
            if not data:
                return
        self._take(one, data, now_ns)

    def _take(self, one: Held, data: bytes, now_ns: int) -> None:
        try:
            if self.nap and one.ready:
                found = self.streams[one.seat.room].read(one.seq, data)
            else:  # each read by itself: it tells when the events in it were sent
                found = self.reader.read(data)
        except (WireError, ValueError) as error:
            self._lost(one, f"not a frame of ours: {error}")
            return
        if found.taken < len(data):
            one.rest = data[found.taken :]
        if found.welcome is not None:
            self._welcomed(one, found.welcome, now_ns)
        if found.events:
            heard = self.heard
            if found.first != one.seq + 1 or not found.gapless:
                late = found.first <= one.seq
                heard.wrong["an event came twice or late" if late else "an event is missing"] += 1
            one.seq = found.last
            heard.deliveries += found.events
            heard.slots[now_ns // SLOT_NS] += found.events
            heard.last_ns = now_ns
            if not heard.first_ns:
                heard.first_ns = now_ns
            if not self.nap:  # after a nap the moment says when we looked, not when it came
                for sent in found.sent:
                    heard.latency.add(now_ns - sent)
        if found.answer:
            self._send(one, found.answer)
        if found.bye or found.closed:
            self._lost(one, f"bye {found.bye}" if found.bye else "closed by the server")

    def _send(self, one: Held, data: bytes) -> None:
        assert one.sock is not None
        try:
            one.sock.send(data)  # tiny frames on an idle socket always fit
        except OSError as error:
            self._lost(one, error.strerror or str(error))

    def _lost(self, one: Held, why: str) -> None:
        if one.ready:
            self.heard.wrong[f"a connection ended: {why}"] += 1
            self._forget(one)
        elif one.sock is not None:
            self._refused(one, why)

    def _forget(self, one: Held) -> None:
        sock, one.sock = one.sock, None
        if sock is not None:
            if sock in self.selector.get_map():
                self.selector.unregister(sock)
            sock.close()
        if one.ready:
            one.ready = False
            self.ready -= 1

    def _close_all(self) -> None:
        for one in self.held:
            self._forget(one)
        self.held = []

    # -- between reads

    def _look(self, now: float) -> None:
        """Answers a command whose end has come, and tells how far we are."""
        if self.opened is not None and not self.waiting and not self.opening:
            opened, self.opened = self.opened, None
            opened.seconds = now - self.opening_since
            self.pipe.send(opened)
        if self.targets is not None and now >= self.next_look:
            self.next_look = now + _LOOK_SECONDS
            self._look_for_the_end(self.targets, now)
        if now >= self.next_progress:
            self.next_progress = now + _PROGRESS_SECONDS
            self.pipe.send((self.ready, self.heard.deliveries))

    def _look_for_the_end(self, targets: Mapping[str, int], now: float) -> None:
        behind = sum(one.ready and one.seq < targets.get(one.seat.room, 0) for one in self.held)
        if behind and now < self.give_up_at:
            return
        self.targets = None
        self.nap = 0.0
        self.heard.reached = not behind
        if behind:
            self.heard.wrong["a connection did not get its last events in time"] += behind
        heard, self.heard = self.heard, Heard()
        self.pipe.send(heard)


def main(pipe: Pipe, addresses: list[Address], dialect: str, cores: frozenset[int]) -> None:
    """Where the process starts."""
    pin(cores)
    Watcher(pipe, addresses, dialect).run()


def _give_way() -> None:
    """Lets others have this core first.

    What gathers in a nap is read for milliseconds, and the system may let a PostgreSQL that has
    just been asked wait for as long, though another core is free.
    """
    if hasattr(os, "sched_yield"):
        os.sched_yield()

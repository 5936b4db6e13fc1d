"""One connection to a Redis server, without waiting: the bus writes to it and hears it.

RESP3 (`HELLO 3`, Redis 6 and newer): commands, their replies and what subscriptions push share one
connection. A command is bytes made once; a reply is waited for by a future, or not at all:

    connection.send(command(b"PUBLISH", channel, message))       # an error reply ends it
    await connection.ask(b"ROLE")                                # the reply
    await connection.subscribe(b"SUBSCRIBE", [channel, …])       # until each is confirmed

Replies come in the order of the commands; what confirms a subscription comes as a push, in that
order, too.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import hiredis

from coordinator.redis_url import RedisTarget

CONNECT_SECONDS = 1.5
WRITE_LIMIT = 4 * 1024 * 1024
"""Bytes that may wait to be sent: beyond it the server does not read, and is taken for dead."""

_NOTHING: Any = object()

OnPush = Callable[[bytes, bytes, bytes], None]
"""Hears of (kind, channel, message): `message` or `smessage`, and `sunsubscribe` unasked for."""


def command(*parts: bytes | str | int) -> bytes:
    """A command as it goes over the wire."""
    encoded = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    lines = [b"*%d\r\n" % len(encoded)]
    lines += [b"$%d\r\n%b\r\n" % (len(part), part) for part in encoded]
    return b"".join(lines)


def publish(verb: bytes, channel: bytes, message: bytes) -> bytes:
    """`command(verb, channel, message)`, made in one go: there are thousands a second."""
    return b"*3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        len(verb), verb, len(channel), channel, len(message), message,
    )  # fmt: skip


class ConnectionFailed(OSError):
    """The server refused, answered wrongly, or the connection is gone; the message says which."""


class RedisConnection(asyncio.Protocol):
    """Made by `connect`. Its owner closes it.

    Attributes:
        lost: done once the connection is gone; its result says why.
    """

    def __init__(self, on_push: OnPush) -> None:
        self._on_push = on_push
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._pending: deque[asyncio.Future[Any] | bytes | None] = deque()
        """What replies are for: a future, a channel to be confirmed, or nobody."""
        self._confirming: dict[bytes, asyncio.Future[None]] = {}
        self._transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    # -- asyncio's side -----------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while self._transport is not None:
            try:
                reply = self._reader.gets()
            except hiredis.HiredisError as error:
                self.abort(f"not understood: {error}")
                return
            if reply is _NOTHING:
                return
            if isinstance(reply, hiredis.PushNotification):
                self._take_push(reply)
            else:
                self._take_reply(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(type(error).__name__ if error else "closed by the server")

    # -- replies ------------------------------------------------------------------------------

    def _take_push(self, push: Any) -> None:
        kind = push[0]
        if kind in (b"subscribe", b"ssubscribe"):
            if self._pending and self._pending[0] == push[1]:
                self._pending.popleft()
            confirmed = self._confirming.pop(push[1], None)
            if confirmed is not None and not confirmed.done():
                confirmed.set_result(None)
        elif kind in (b"message", b"smessage"):
            self._on_push(kind, push[1], push[2])
        elif kind == b"sunsubscribe" and push[1] is not None:
            self._on_push(kind, push[1], b"")

    def _take_reply(self, reply: Any) -> None:
        asked = self._pending.popleft() if self._pending else None
        if isinstance(reply, hiredis.ReplyError):
            if isinstance(asked, asyncio.Future):
                if not asked.done():
                    asked.set_exception(ConnectionFailed(str(reply)))
            else:
                self.abort(str(reply))
        elif isinstance(asked, asyncio.Future) and not asked.done():
            asked.set_result(reply)

    # -- its owner's side -----------------------------------------------------------------------

    def send(self, data: bytes, *, replies: int = 1) -> None:
        """Sends commands whose replies nobody needs; an error among them ends the connection."""
        transport = self._transport
        if transport is None:
            return
        if transport.get_write_buffer_size() > WRITE_LIMIT:
            self.abort("it does not read")
            return
        self._pending.extend([None] * replies)
        transport.write(data)

    async def ask(self, *parts: bytes | str | int, seconds: float = CONNECT_SECONDS) -> Any:
        """Sends one command and waits for its reply.

        Raises:
            ConnectionFailed: the server refused, or the connection is gone.
            TimeoutError: no reply in time.
        """
        async with asyncio.timeout(seconds):
            return await self.request(*parts)

    def request(self, *parts: bytes | str | int) -> asyncio.Future[Any]:
        """Sends one command; its reply, which the caller waits for as long as it likes.

        Raises:
            ConnectionFailed: the connection is gone. The future fails with it, too.
        """
        if self._transport is None:
            raise ConnectionFailed("the connection is gone")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.append(answer)
        self._transport.write(command(*parts))
        return answer

    async def subscribe(
        self, verb: bytes, channels: Iterable[bytes], *, seconds: float = CONNECT_SECONDS
    ) -> None:
        """Subscribes, and returns when each channel is confirmed. `verb` may be `SSUBSCRIBE`.

        Raises:
            ConnectionFailed: the connection is gone.
            TimeoutError: not all were confirmed in time.
        """
        if self._transport is None:
            raise ConnectionFailed("the connection is gone")
        waits = []
        for channel in channels:
            if channel not in self._confirming:
                self._confirming[channel] = asyncio.get_running_loop().create_future()
                self._pending.append(channel)
                self._transport.write(command(verb, channel))
            waits.append(self._confirming[channel])
        async with asyncio.timeout(seconds):
            for wait in waits:
                await asyncio.shield(wait)

    def unsubscribe(self, verb: bytes, channel: bytes) -> None:
        """Hears no more of a channel. Its confirmation is a push that nobody waits for."""
        if self._transport is not None:
            self._transport.write(command(verb, channel))

    def abort(self, why: str) -> None:
        """Ends the connection at once."""
        transport = self._transport
        self._end(why)
        if transport is not None:
            transport.abort()

    def _end(self, why: str) -> None:
        self._transport = None
        if not self.lost.done():
            self.lost.set_result(why)
        gone = ConnectionFailed(why)
        waiting = [*self._pending, *self._confirming.values()]
        self._pending.clear()
        self._confirming.clear()
        for answer in waiting:
            if isinstance(answer, asyncio.Future) and not answer.done():
                answer.set_exception(gone)
                answer.exception()  # it may be that nobody waits any more


async def connect(
    target: RedisTarget,
    address: tuple[str, int] | None,
    on_push: OnPush,
    *,
    login: tuple[str | None, str | None] | None = None,
) -> RedisConnection:
    """An open connection that has said hello.

    Args:
        address: host and port; None for the target's unix socket.
        login: user and password in place of the target's.

    Raises:
        ConnectionFailed, OSError, TimeoutError: it cannot be had.
    """
    loop = asyncio.get_running_loop()
    connection = RedisConnection(on_push)
    async with asyncio.timeout(CONNECT_SECONDS):
        if address is None:
            await loop.create_unix_connection(lambda: connection, target.path)
        else:
            tls = tls_context(target)
            host, port = address
            await loop.create_connection(
                lambda: connection, host, port, ssl=tls,
                server_hostname=host if tls and tls.check_hostname else None,
            )  # fmt: skip
        try:
            user, password = login if login is not None else (target.username, target.password)
            secret = ("AUTH", user or "default", password) if password is not None else ()
            await connection.ask("HELLO", "3", *secret)
            if target.db and login is None:
                await connection.ask("SELECT", target.db)
        except BaseException:
            connection.abort("given up")
            raise
    return connection


def tls_context(target: RedisTarget) -> ssl.SSLContext | None:
    """How the server's certificate is checked; None where the connection is plain."""
    if target.tls is None:
        return None
    options = target.tls
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    context.check_hostname = bool(options.get("ssl_check_hostname", True))
    wanted = options.get("ssl_cert_reqs", "required")
    context.verify_mode = {
        "required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE,
    }[wanted]  # fmt: skip
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context

"""One HTTP/1.1 connection to a webhook, kept alive: a request at a time, its answer bounded.

An HTTP client of our own, since it must choose the address by itself (`addresses.py`), follow no
redirect, and cost a tenth of what a general one costs.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast
from urllib.parse import SplitResult

import httptools

from coordinator.webhooks.addresses import AddressGuard, AddressRefused

ANSWER_SECONDS = 10.0
NEXT_ADDRESS_SECONDS = 1.0
"""A connection that takes so long is not given up, but the name's next address is tried, too."""
BODY_SECONDS = 1.0
"""How long the rest of an answer is waited for, once its head has come."""
MAX_ANSWER_BYTES = 64 * 1024
MAX_HEAD_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class EndpointAnswer:
    """What the receiver said. `body` is cut off after 64 KiB."""

    status: int
    retry_after: str | None
    body: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


class NoAnswer(Exception):
    """There was none.

    Attributes:
        outcome: `timeout`, `refused_address`, `unreachable` (no connection) or `closed` (it ended
            before it answered).
    """

    def __init__(self, outcome: str, detail: str) -> None:
        self.outcome = outcome
        super().__init__(detail)


class Target:
    """Where a webhook's requests go: its URL, and the start of each request's head."""

    def __init__(self, parts: SplitResult) -> None:
        assert parts.hostname is not None
        self.scheme = parts.scheme
        self.host = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.head = (
            f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\n"
            "content-type: application/json\r\nuser-agent: coordinator-webhooks\r\n"
            "accept: */*\r\n"
        ).encode()


class WebhookConnection:
    """At most one TCP connection to the target, opened when it is needed. One request at a time."""

    def __init__(self, target: Target, guard: AddressGuard, tls: ssl.SSLContext) -> None:
        self._target = target
        self._guard = guard
        self._tls = tls
        self._protocol: _Protocol | None = None

    async def post(self, headers: bytes, body: bytes) -> EndpointAnswer:
        """Sends one request.

        A connection kept alive that turns out to have been closed by the other side is replaced
        once: it happens between two requests, and says nothing about this one.

        Raises:
            NoAnswer
        """
        request = b"%bcontent-length: %d\r\n%b\r\n%b" % (
            self._target.head, len(body), headers, body,
        )  # fmt: skip
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                kept = self._protocol
                if kept is not None and kept.is_reusable:
                    try:
                        return await kept.exchange(request)
                    except _ClosedUnanswered:
                        pass
                return await (await self._connect()).exchange(request)
        except TimeoutError:
            self.close()
            raise NoAnswer("timeout", f"no answer within {ANSWER_SECONDS:g} s") from None
        except AddressRefused as error:
            raise NoAnswer("refused_address", str(error)) from error
        except _ClosedUnanswered as error:
            raise NoAnswer("closed", "the connection ended before an answer") from error
        except OSError as error:  # before ValueError: a bad certificate is both
            raise NoAnswer("unreachable", _reason(error)) from error
        except (httptools.HttpParserError, ValueError) as error:
            self.close()
            raise NoAnswer("closed", "the answer is not HTTP") from error
        except asyncio.CancelledError:
            self.close()
            raise

    async def _connect(self) -> _Protocol:
        self.close()
        target = self._target
        addresses = await self._guard.resolve(target.scheme, target.host, target.port)
        self._protocol = await _first(self._open, list(dict.fromkeys(addresses)))
        return self._protocol

    async def _open(self, address: str) -> _Protocol:
        """Connects to one address of the target.

        Raises:
            OSError
        """
        target = self._target
        is_tls = target.scheme == "https"
        _, protocol = await asyncio.get_running_loop().create_connection(
            _Protocol,
            address,
            target.port,
            ssl=self._tls if is_tls else None,
            server_hostname=target.host if is_tls else None,
        )
        return protocol

    def close(self) -> None:
        """Ends the connection at once."""
        if self._protocol is not None:
            self._protocol.abort()
            self._protocol = None


async def _first(
    connect: Callable[[str], Awaitable[_Protocol]], addresses: Sequence[str]
) -> _Protocol:
    """The first connection that there is, to any of the addresses; they are tried in their order.

    Raises:
        OSError: there is none; of the last address that said so.
    """
    untried = iter(addresses)
    patience = min(NEXT_ADDRESS_SECONDS, ANSWER_SECONDS / 2 / max(1, len(addresses)))
    failure: OSError = OSError("the name has no address")
    tasks: list[asyncio.Task[_Protocol]] = []
    open_one: _Protocol | None = None
    try:
        while open_one is None:
            address = next(untried, None)
            if address is not None:
                tasks.append(asyncio.ensure_future(connect(address)))
            elif not tasks:
                raise failure
            limit = None if address is None else patience
            await asyncio.wait(tasks, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in tasks if task.done()]:
                tasks.remove(task)
                try:
                    open_one = task.result()
                    break
                except OSError as error:
                    failure = error
        return open_one
    finally:
        for task in tasks:
            task.cancel()
        for late in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(late, _Protocol):
                late.abort()


def _reason(error: OSError) -> str:
    """Why there is no connection, in words that hold no address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'failed'}"
    if error.errno is not None and error.errno > 0:  # asyncio's own words name the address
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


class _ClosedUnanswered(Exception):
    """The connection ended before the answer's head was complete."""


class _Protocol(asyncio.Protocol):
    """The parser's callbacks, and the future of the answer under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[EndpointAnswer] | None = None
        self._giving_up: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._begin()

    def _begin(self) -> None:
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._retry_after: str | None = None
        self._has_head = False

    @property
    def is_reusable(self) -> bool:
        """True where the next request may be sent on it."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and self._answer is None

    async def exchange(self, request: bytes) -> EndpointAnswer:
        """Sends a request and returns its answer.

        Raises:
            _ClosedUnanswered
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise _ClosedUnanswered
        self._begin()
        self._head_bytes = 0
        self._answer = asyncio.get_running_loop().create_future()
        transport.write(request)
        return await self._answer

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of its subclasses

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nobody asked: the connection is no good any more
            self.abort()
            return
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(error)
        else:
            if not self._has_head and self._head_bytes > MAX_HEAD_BYTES:
                self._fail(ValueError("the answer's head is too long"))

    def _fail(self, error: Exception) -> None:
        """The answer cannot be read on: what its head said counts, where that was complete."""
        if self._has_head:
            self._settle(keep=False)
            return
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.abort()

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        if self._has_head:
            self._settle(keep=False)
        elif self._answer is not None and not self._answer.done():
            self._answer.set_exception(_ClosedUnanswered())

    # -- the parser's callbacks ---------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._retry_after = None
        if self._answer is None:  # nobody asked: it must not count as the next request's answer
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 and status != HTTPStatus.SWITCHING_PROTOCOLS:
            return  # 100 Continue, 103 Early Hints: the answer comes later
        self._has_head = True
        loop = asyncio.get_running_loop()
        self._giving_up = loop.call_later(BODY_SECONDS, self._settle)

    def on_body(self, data: bytes) -> None:
        room = MAX_ANSWER_BYTES - self._body_bytes
        self._body.append(data[:room])
        self._body_bytes += len(data[:room])
        if len(data) > room:
            self._settle(keep=False)

    def on_message_complete(self) -> None:
        if self._has_head:
            self._settle(keep=self._parser.should_keep_alive())

    def _settle(self, *, keep: bool = False) -> None:
        """The answer is there, as far as it is waited for."""
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            status = self._parser.get_status_code()
            answer.set_result(EndpointAnswer(status, self._retry_after, b"".join(self._body)))
        self._has_head = False
        if not keep:
            self.abort()

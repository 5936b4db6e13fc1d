"""The handshake of a websocket: from the upgrade request to the greeting, or to the refusal.

A refusal is told after the upgrade, as a `bye` frame and a close code: clients in browsers and in
WeChat cannot see an HTTP status. What is the same for every feed (origin, limits, `since`, the
three ways to present a token) stands here once; a `LiveEndpoint` is what differs: rooms in
`room_live.py`, interviews in `interview_live.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import msgspec
import structlog

from coordinator.domain.close_codes import CloseCode, Retry
from coordinator.domain.errors import (
    CoordinatorError,
    LeaseLost,
    NotFound,
    RateLimited,
    Removed,
    RoomEnded,
    RoomFull,
    TokenExpired,
    Unauthorized,
    Unavailable,
)
from coordinator.domain.events import FeedKey
from coordinator.live.connection import Connection
from coordinator.live.frames import bye_frame
from coordinator.live.hub import Hub
from coordinator.live.registry import ConnectionRegistry
from coordinator.live.websocket import LiveSocket, offered_subprotocols
from coordinator.web.http_request import bearer
from coordinator.web.limits import Limits

log = structlog.get_logger()

SUBPROTOCOL = "room.v1"
AUTH_SECONDS = 5.0
UNAUTHENTICATED = 1000
"""Sockets of a node that may wait for their first frame."""
EARLY_FRAMES = 40

CLOSE_CODES: tuple[tuple[type[CoordinatorError], CloseCode], ...] = (
    (LeaseLost, CloseCode.CANNOT_CONTINUE),
    (Unavailable, CloseCode.SERVER_ERROR),
    (RateLimited, CloseCode.RATE_LIMITED),
    (RoomFull, CloseCode.OVER_CAPACITY),
    (RoomEnded, CloseCode.ENDED),
    (Removed, CloseCode.REMOVED),
    (NotFound, CloseCode.NOT_FOUND),
    (TokenExpired, CloseCode.TOKEN_EXPIRED),
    (Unauthorized, CloseCode.TOKEN_INVALID),
    (CoordinatorError, CloseCode.NOT_ALLOWED),
)


class Refusal(Exception):
    """A connection that is not let in, with its close code."""

    def __init__(self, code: CloseCode) -> None:
        self.code = code
        super().__init__(code.reason)


class LiveEndpoint(Protocol):
    """A kind of feed that can be listened to."""

    kind: str
    """The kind of its feeds."""
    path: re.Pattern[str]
    """Matches the path; its group 1 is the feed's id."""

    def credential(self, socket: LiveSocket) -> str | None:
        """What the upgrade request presents; a header wins over a subprotocol."""

    def credential_of(self, frame: dict[str, Any]) -> str | None:
        """What a first frame of type `auth` presents."""

    async def admit(self, socket: LiveSocket, feed_id: str, credential: str) -> Connection:
        """Makes the connection, where the credential allows it.

        Raises:
            Refusal, CoordinatorError: it does not.
        """


class Handshake:
    """Lets websockets in, each in a task of its own until it is greeted.

    Args:
        endpoints: what can be listened to.
        is_moving: True where clients are better off on another node.
    """

    def __init__(
        self,
        endpoints: list[LiveEndpoint],
        *,
        hub: Hub,
        registry: ConnectionRegistry,
        limits: Limits,
        allowed_origins: tuple[str, ...],
        own_url: str,
        max_connections: int,
        is_moving: Callable[[], bool],
    ) -> None:
        self._endpoints = endpoints
        self._hub = hub
        self._registry = registry
        self._limits = limits
        self._allowed_origins = allowed_origins
        self._own_host = urlsplit(own_url).netloc
        self._max_connections = max_connections
        self._is_moving = is_moving
        self._openings: set[asyncio.Task[None]] = set()
        self._unauthenticated = 0

    def is_moving(self) -> bool:
        return self._is_moving()

    def matches(self, path: str) -> bool:
        return any(endpoint.path.fullmatch(path.rstrip("/")) for endpoint in self._endpoints)

    def choose(self, offered: list[str]) -> str | None:
        return SUBPROTOCOL if SUBPROTOCOL in offered else None

    def accept(self, socket: LiveSocket) -> None:
        opening = socket.loop.create_task(self._open(socket))
        self._openings.add(opening)
        opening.add_done_callback(self._openings.discard)

    async def close(self) -> None:
        """Ends the openings under way."""
        openings = list(self._openings)
        for opening in openings:
            opening.cancel()
        await asyncio.gather(*openings, return_exceptions=True)

    async def _open(self, socket: LiveSocket) -> None:
        try:
            await self._greet(socket)
        except Refusal as refusal:
            refuse(socket, refusal.code)
        except CoordinatorError as error:
            code = next(code for kind, code in CLOSE_CODES if isinstance(error, kind))
            if isinstance(error, Unauthorized):
                await self._count_failure(socket)
            refuse(socket, code)
        except Exception as error:
            log.error("live_failed", path=socket.path, exc_info=error)
            refuse(socket, CloseCode.SERVER_ERROR)

    async def _greet(self, socket: LiveSocket) -> None:
        early = _EarlyFrames()
        socket.receiver = early
        if self.is_moving():
            raise Refusal(CloseCode.DRAINING)
        if self._registry.count() >= self._max_connections:
            raise Refusal(CloseCode.OVER_CAPACITY)
        if not self._origin_is_allowed(socket):
            raise Refusal(CloseCode.NOT_ALLOWED)
        await self._limits.check("live", self._address(socket))
        endpoint, key = self._endpoint(socket.path)
        since = _since(socket.query)
        credential = endpoint.credential(socket)
        if credential is None:
            credential = await self._wait_for_credential(endpoint, early)
        connection = await endpoint.admit(socket, key.id, credential)
        socket.seat.authenticated()
        await self._attach(socket, connection, key, since, early)

    async def _attach(
        self,
        socket: LiveSocket,
        connection: Connection,
        key: FeedKey,
        since: int | None,
        early: _EarlyFrames,
    ) -> None:
        """From the decision to the greeting; what the client says meanwhile waits."""
        if socket.is_lost:
            return
        if self.is_moving():  # since the handshake began; the drain has not seen this one
            raise Refusal(CloseCode.DRAINING)
        socket.receiver = connection
        connection.hold(early.frames)
        self._registry.add(connection)
        try:
            connect_seq = await connection.open()
            since = connection.starts_after(since)
            feed = await self._hub.resume.attach(
                key, connection, since=since, connect_seq=connect_seq
            )
        except CoordinatorError:
            connection.give_up_row()
            raise
        connection.start(feed)

    async def _wait_for_credential(self, endpoint: LiveEndpoint, early: _EarlyFrames) -> str:
        """The first frame's, within 5 s; nothing is sent before it."""
        if self._unauthenticated >= UNAUTHENTICATED:
            raise Refusal(CloseCode.OVER_CAPACITY)
        self._unauthenticated += 1
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                first = await early.first()
        except TimeoutError:
            raise Refusal(CloseCode.TOKEN_INVALID) from None
        finally:
            self._unauthenticated -= 1
        credential = _auth_frame(first)
        presented = endpoint.credential_of(credential) if credential is not None else None
        if presented is None:
            raise Refusal(CloseCode.TOKEN_INVALID)
        return presented

    def _endpoint(self, path: str) -> tuple[LiveEndpoint, FeedKey]:
        for endpoint in self._endpoints:
            match = endpoint.path.fullmatch(path.rstrip("/"))
            if match is not None:
                return endpoint, FeedKey(endpoint.kind, match[1])
        raise Refusal(CloseCode.NOT_FOUND)

    def _origin_is_allowed(self, socket: LiveSocket) -> bool:
        """None at all (not a browser), our own, or one that the operator lists."""
        origin = socket.headers.get("origin")
        if not origin:
            return True
        if origin.rstrip("/") in self._allowed_origins or "*" in self._allowed_origins:
            return True
        return urlsplit(origin).netloc in (socket.headers.get("host"), self._own_host)

    def _address(self, socket: LiveSocket) -> str:
        forwarded = [
            (b"x-forwarded-for", value.encode("latin-1", "replace"))
            for value in socket.headers.get_all("x-forwarded-for")
        ]
        return self._limits.address({"client": (socket.peer, 0), "headers": forwarded})

    async def _count_failure(self, socket: LiveSocket) -> None:
        """Failed authentications count twice against the address."""
        try:
            await self._limits.check("live", self._address(socket))
        except RateLimited:
            log.info("many_failed_authentications", path=socket.path)


def presented_token(socket: LiveSocket) -> str | None:
    """A bearer token of the upgrade request: of its header, else of its subprotocols."""
    header = bearer(socket.headers.get("authorization"))
    return header or subprotocol_value(socket, "bearer.")


def subprotocol_value(socket: LiveSocket, prefix: str) -> str | None:
    """What follows `prefix` in the first offered subprotocol that starts with it."""
    for offered in offered_subprotocols(socket.headers):
        if offered.startswith(prefix):
            return offered[len(prefix) :]
    return None


def refuse(socket: LiveSocket, code: CloseCode) -> None:
    """Says bye and closes."""
    after_ms = 1000 if code.retry is Retry.SOON else None
    socket.close(code, code.reason, bye_frame(code, after_ms=after_ms))


class _EarlyFrames:
    """Hears a socket until its connection does."""

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._is_over = False

    async def first(self) -> bytes | None:
        """The first message; None where it was not text, or the socket went."""
        await self._arrived.wait()
        return None if self._is_over or not self.frames else self.frames.popleft()

    def on_text(self, text: bytes) -> None:
        if len(self.frames) < EARLY_FRAMES:
            self.frames.append(text)
        self._arrived.set()

    def on_other(self) -> None:
        if not self.frames:
            self._is_over = True
        self._arrived.set()

    def on_ping(self) -> None:
        """Not the first frame."""

    def on_slow(self) -> None:
        """Nothing has been sent yet."""

    def on_lost(self) -> None:
        self._is_over = True
        self._arrived.set()


def _since(query: str) -> int | None:
    values = parse_qs(query, keep_blank_values=True).get("since")
    if values is None:
        return None
    text = values[0]
    if not (text.isascii() and text.isdigit()):
        raise Refusal(CloseCode.BAD_REQUEST)
    return int(text) if len(text) < 20 else 10**20  # past any end


def _auth_frame(text: bytes | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        message = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    is_auth = isinstance(message, dict) and message.get("type") == "auth"
    return message if is_auth else None

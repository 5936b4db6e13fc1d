"""The handshake of a websocket: from the upgrade request to the greeting, or to the refusal.

A refusal is told after the upgrade, as a `bye` frame and a close code: clients in browsers and in
WeChat cannot see an HTTP status. What is the same for every feed (origin, limits, `since`, the
three ways to present a token) stands here once; a `LiveEndpoint` is what differs: rooms in
`room_live.py`, interviews in `interview_live.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

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
from coordinator.environment import NO_LIMIT
from coordinator.environment import origin as normalised_origin
from coordinator.live.connection import Connection
from coordinator.live.frames import bye_frame
from coordinator.live.hub import Hub
from coordinator.live.registry import ConnectionRegistry
from coordinator.live.upgrade import offered_subprotocols
from coordinator.live.websocket import LiveSocket
from coordinator.logging import RareWarning
from coordinator.web.early_frames import EarlyFrames
from coordinator.web.http_request import bearer
from coordinator.web.limits import Limits
from coordinator.web.live_query import BadQuery, LiveQuery

log = structlog.get_logger()
_foreign = RareWarning("foreign_origins")

SUBPROTOCOL = "room.v1"
WECHAT_ORIGIN = "weapp://"
"""How WeChat's client on iOS names itself (`weapp://wechat-game-runtime`); no web page can."""
_NO_ORIGINS = frozenset({"", "undefined"})
AUTH_SECONDS = 5.0
UNAUTHENTICATED = 1000
"""Sockets of a node that may wait for their first frame."""

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
    """A connection that is not let in: its close code, and why in words."""

    def __init__(self, code: CloseCode, reason: str | None = None) -> None:
        self.code = code
        self.reason = reason or code.reason
        super().__init__(self.reason)


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

    def limit_of(self, credential: str | None) -> str:
        """The name of the rate limit that a failed proof counts against; None: there was none."""

    async def admit(
        self, socket: LiveSocket, feed_id: str, credential: str, query: LiveQuery
    ) -> Connection:
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
        self._own_origin = normalised_origin(own_url)
        self._max_connections = max_connections
        self._is_moving = is_moving
        self._openings: set[asyncio.Task[None]] = set()
        self._places: set[LiveSocket] = set()
        """Sockets that take a place although the registry does not have them yet."""
        self._unauthenticated = 0

    def is_moving(self) -> bool:
        return self._is_moving()

    def limit_places(self, most: int) -> None:
        """At most so many connections, where the process cannot hold as many as were set."""
        if most < self._max_connections:
            if self._max_connections != NO_LIMIT:
                log.warning("fewer_live_connections", set=self._max_connections, possible=most)
            self._max_connections = most

    def matches(self, path: str) -> bool:
        return any(endpoint.path.fullmatch(path.rstrip("/")) for endpoint in self._endpoints)

    def choose(self, offered: list[str]) -> str | None:
        """`room.v1`; where a client offers its credential alone, that: it would hang up on none."""
        return SUBPROTOCOL if SUBPROTOCOL in offered else _lone_credential(offered)

    def accept(self, socket: LiveSocket) -> None:
        early = EarlyFrames()
        socket.receiver = early
        if self.is_moving():
            refuse(socket, CloseCode.DRAINING)
        elif self._registry.count() + len(self._places) >= self._max_connections:
            refuse(socket, CloseCode.OVER_CAPACITY)
        else:
            self._places.add(socket)
            opening = socket.loop.create_task(self._open(socket, early))
            self._openings.add(opening)
            opening.add_done_callback(self._openings.discard)

    async def close(self) -> None:
        """Ends the openings under way."""
        openings = list(self._openings)
        for opening in openings:
            opening.cancel()
        await asyncio.gather(*openings, return_exceptions=True)

    async def _open(self, socket: LiveSocket, early: EarlyFrames) -> None:
        try:
            await self._greet(socket, early)
        except Refusal as refusal:
            refuse(socket, refusal.code, refusal.reason)
        except CoordinatorError as error:
            refuse(socket, next(code for kind, code in CLOSE_CODES if isinstance(error, kind)))
        except Exception as error:
            log.error("live_failed", path=socket.path, exc_info=error)
            refuse(socket, CloseCode.SERVER_ERROR)
        finally:
            self._places.discard(socket)

    async def _greet(self, socket: LiveSocket, early: EarlyFrames) -> None:
        if not self._origin_is_allowed(socket):
            raise Refusal(CloseCode.NOT_ALLOWED)
        if _lone_credential(offered_subprotocols(socket.headers)):
            raise Refusal(CloseCode.BAD_REQUEST, f"offer {SUBPROTOCOL} too")
        endpoint, key = self._endpoint(socket.path)
        try:
            query = LiveQuery.read(socket.query)
        except BadQuery as error:
            raise Refusal(CloseCode.BAD_REQUEST) from error
        connection = await self._authenticate(socket, early, endpoint, key, query)
        socket.slot.authenticated()
        await self._attach(socket, connection, key, query, early)

    async def _authenticate(
        self,
        socket: LiveSocket,
        early: EarlyFrames,
        endpoint: LiveEndpoint,
        key: FeedKey,
        query: LiveQuery,
    ) -> Connection:
        """The connection that the presented credential allows.

        Raises:
            Refusal, CoordinatorError: there is none.
            RateLimited: its address has presented too many bad ones.
        """
        credential = endpoint.credential(socket)
        try:
            if credential is None:
                credential = await self._wait_for_credential(endpoint, early)
            return await endpoint.admit(socket, key.id, credential, query)
        except Unauthorized:
            name = endpoint.limit_of(credential)
            await self._limits.check(name, self._address(socket))
            raise

    async def _attach(
        self,
        socket: LiveSocket,
        connection: Connection,
        key: FeedKey,
        query: LiveQuery,
        early: EarlyFrames,
    ) -> None:
        """From the decision to the greeting; what the client says meanwhile waits."""
        if socket.is_lost:
            return
        if self.is_moving():  # the drain began after this handshake, and does not know its socket
            raise Refusal(CloseCode.DRAINING)
        socket.receiver = connection
        connection.hold(early.frames)
        self._registry.add(connection)
        self._places.discard(socket)
        try:
            connect_seq = await connection.open()
            since = connection.starts_after(query.since)
            feed = await self._hub.resume.attach(
                key, connection, since=since, epoch=query.epoch, connect_seq=connect_seq
            )
        except CoordinatorError:
            connection.give_up_row()
            raise
        connection.start(feed)

    async def _wait_for_credential(self, endpoint: LiveEndpoint, early: EarlyFrames) -> str:
        """The first frame's, within 5 s; nothing is sent before it.

        Raises:
            Unauthorized: silence, or another frame.
        """
        if self._unauthenticated >= UNAUTHENTICATED:
            raise Refusal(CloseCode.OVER_CAPACITY)
        self._unauthenticated += 1
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                first = await early.first()
        except TimeoutError:
            raise Unauthorized from None
        finally:
            self._unauthenticated -= 1
        credential = _auth_frame(first)
        presented = endpoint.credential_of(credential) if credential is not None else None
        if presented is None:
            raise Unauthorized
        return presented

    def _endpoint(self, path: str) -> tuple[LiveEndpoint, FeedKey]:
        for endpoint in self._endpoints:
            match = endpoint.path.fullmatch(path.rstrip("/"))
            if match is not None:
                return endpoint, FeedKey(endpoint.kind, match[1])
        raise Refusal(CloseCode.NOT_FOUND)

    def _origin_is_allowed(self, socket: LiveSocket) -> bool:
        """None at all (not a browser), our own, or one that the operator lists."""
        host = socket.headers.get("host") or ""
        for value in socket.headers.get_all("origin"):
            # No browser sends a list. WeChat's client does: `https://<our host>,undefined`.
            if not all(self._is_own_origin(part.strip(), host) for part in value.split(",")):
                _foreign(origin=value[:200])
                return False
        return True

    def _is_own_origin(self, given: str, host: str) -> bool:
        if given in _NO_ORIGINS or given.startswith(WECHAT_ORIGIN) or "*" in self._allowed_origins:
            return True
        try:
            origin = normalised_origin(given)
        except ValueError:
            return False
        is_listed = origin in (*self._allowed_origins, self._own_origin)
        return is_listed or _is_of_host(origin, host)

    def _address(self, socket: LiveSocket) -> str:
        forwarded = [
            (b"x-forwarded-for", value.encode("latin-1", "replace"))
            for value in socket.headers.get_all("x-forwarded-for")
        ]
        return self._limits.address({"client": (socket.peer, 0), "headers": forwarded})


def _is_of_host(origin: str, host: str) -> bool:
    """True where a `Host` names an origin, also by the port that a browser leaves out."""
    try:
        return origin == normalised_origin(f"{urlsplit(origin).scheme}://{host}")
    except ValueError:
        return False


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


def refuse(socket: LiveSocket, code: CloseCode, reason: str | None = None) -> None:
    """Says bye and closes."""
    after_ms = 1000 if code.retry is Retry.SOON else None
    socket.close(code, reason or code.reason, bye_frame(code, reason=reason, after_ms=after_ms))


def _lone_credential(offered: list[str]) -> str | None:
    """The credential that a client offers as a subprotocol without `room.v1`."""
    if SUBPROTOCOL in offered:
        return None
    return next((each for each in offered if each.startswith(("bearer.", "key."))), None)


def _auth_frame(text: bytes | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        message = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    is_auth = isinstance(message, dict) and message.get("type") == "auth"
    return message if is_auth else None

"""The door of the websockets: who may listen to what, and what a refusal looks like.

A refusal is told after the upgrade, as a `bye` frame and a close code: clients in browsers and in
WeChat cannot see an HTTP status. What is the same for every feed (origin, limits, `since`, the
three ways to present a token) stands here once; `LiveEndpoint` is what differs.
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
from coordinator.domain.events import ROOM, FeedKey
from coordinator.domain.ids import is_room_id, new_session_id
from coordinator.domain.people import Guest, Proof, Staff
from coordinator.live.connection import Connection, ConnectionContext
from coordinator.live.frames import BYES, bye_frame
from coordinator.live.hub import Hub
from coordinator.live.participant import ParticipantConnection
from coordinator.live.registry import ConnectionRegistry
from coordinator.live.websocket import LiveSocket, offered_subprotocols
from coordinator.services.access import Access
from coordinator.store.room_writer.queue import Writer
from coordinator.store.rooms import Rooms, StoredRoom
from coordinator.web.http_request import bearer
from coordinator.web.limits import Limits

log = structlog.get_logger()

SUBPROTOCOL = "room.v1"
AUTH_SECONDS = 5.0
UNAUTHENTICATED = 1000
"""Sockets of a node that may wait for their first frame."""
EARLY_FRAMES = 40

CLOSE_CODES: tuple[tuple[type[CoordinatorError], int], ...] = (
    (LeaseLost, 4201),
    (Unavailable, 4103),
    (RateLimited, 4102),
    (RoomFull, 4100),
    (RoomEnded, 4010),
    (Removed, 4005),
    (NotFound, 4004),
    (TokenExpired, 4300),
    (Unauthorized, 4301),
    (CoordinatorError, 4003),
)


class Refusal(Exception):
    """A connection that is not let in, with its close code."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(BYES[code][0])


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
        is_moving: True where clients are better off on another node (4200).
    """

    def __init__(
        self,
        endpoints: list[LiveEndpoint],
        *,
        hub: Hub,
        register: ConnectionRegistry,
        limits: Limits,
        allowed_origins: tuple[str, ...],
        own_url: str,
        max_connections: int,
        is_moving: Callable[[], bool],
    ) -> None:
        self._endpoints = endpoints
        self._hub = hub
        self._register = register
        self._limits = limits
        self._allowed_origins = allowed_origins
        self._own_host = urlsplit(own_url).netloc
        self._max_connections = max_connections
        self._is_moving = is_moving
        self._openings: set[asyncio.Task[None]] = set()
        self._unauthenticated = 0

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
            await self._let_in(socket)
        except Refusal as refusal:
            refuse(socket, refusal.code)
        except CoordinatorError as error:
            code = next(code for kind, code in CLOSE_CODES if isinstance(error, kind))
            if isinstance(error, Unauthorized):
                await self._count_failure(socket)
            refuse(socket, code)
        except Exception as error:
            log.error("live_failed", path=socket.path, exc_info=error)
            refuse(socket, 4103)

    async def _let_in(self, socket: LiveSocket) -> None:
        early = _EarlyFrames()
        socket.receiver = early
        if self._is_moving():
            raise Refusal(4200)
        if self._register.count() >= self._max_connections:
            raise Refusal(4100)
        if not self._origin_is_allowed(socket):
            raise Refusal(4003)
        await self._limits.check("live", self._address(socket))
        endpoint, key = self._endpoint(socket.path)
        since = _since(socket.query)
        credential = endpoint.credential(socket)
        if credential is None:
            credential = await self._wait_for_credential(endpoint, early)
        connection = await endpoint.admit(socket, key.id, credential)
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
        if self._is_moving():  # since it was asked at the door; the drain has not seen this one
            raise Refusal(4200)
        socket.receiver = connection
        connection.hold(early.frames)
        self._register.add(connection)
        try:
            connect_seq = await connection.enter()
            since = connection.starts_after(since)
            feed = await self._hub.attach(key, connection, since=since, connect_seq=connect_seq)
        except CoordinatorError:
            connection.give_up_row()
            raise
        connection.start(feed)

    async def _wait_for_credential(self, endpoint: LiveEndpoint, early: _EarlyFrames) -> str:
        """The first frame's, within 5 s; nothing is sent before it."""
        if self._unauthenticated >= UNAUTHENTICATED:
            raise Refusal(4100)
        self._unauthenticated += 1
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                first = await early.first()
        except TimeoutError:
            raise Refusal(4301) from None
        finally:
            self._unauthenticated -= 1
        credential = _auth_frame(first)
        presented = endpoint.credential_of(credential) if credential is not None else None
        if presented is None:
            raise Refusal(4301)
        return presented

    def _endpoint(self, path: str) -> tuple[LiveEndpoint, FeedKey]:
        for endpoint in self._endpoints:
            match = endpoint.path.fullmatch(path.rstrip("/"))
            if match is not None:
                return endpoint, FeedKey(endpoint.kind, match[1])
        raise Refusal(4004)

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


class RoomEndpoint:
    """`/api/interview/room/{roomId}/live`: the host, a guest of the room, an admin as observer."""

    kind = ROOM
    path = re.compile(r"/api/interview/room/([^/]+)/live")

    def __init__(
        self,
        rooms: Rooms,
        writer: Writer,
        access: Access,
        terms: ConnectionContext,
        boot: Callable[[], str],
    ) -> None:
        self._rooms = rooms
        self._writer = writer
        self._access = access
        self._terms = terms
        self._boot = boot

    def credential(self, socket: LiveSocket) -> str | None:
        return presented_token(socket)

    def credential_of(self, frame: dict[str, Any]) -> str | None:
        token = frame.get("token")
        return token if isinstance(token, str) and token else None

    async def admit(self, socket: LiveSocket, feed_id: str, credential: str) -> Connection:
        proof = await self._access.proof(credential)
        if not is_room_id(feed_id):
            raise Refusal(4004)
        if isinstance(proof.holder, Guest) and proof.holder.room_id == feed_id:
            return self._seat(socket, feed_id, proof, "guest")  # the writer checks the rest
        room = await self._rooms.room(feed_id)
        if room is None:
            raise Refusal(4004)
        return self._for_staff(socket, room, proof)

    def _for_staff(self, socket: LiveSocket, room: StoredRoom, proof: Proof) -> Connection:
        if not isinstance(proof.holder, Staff):
            raise Refusal(4003)
        if room.host_id == proof.user_id:
            return self._seat(socket, room.room_id, proof, "host")
        if not proof.holder.is_admin:
            raise Refusal(4003)
        if room.is_ended:
            raise Refusal(4010)
        observer = Connection(
            socket,
            self._terms,
            session_id=new_session_id(),
            identity={"userId": proof.user_id, "role": "observer"},
            expires_at=proof.expires_at,
        )
        observer.connect_seq = room.last_seq
        return observer

    def _seat(
        self, socket: LiveSocket, room_id: str, proof: Proof, role: str
    ) -> ParticipantConnection:
        return ParticipantConnection(
            socket,
            self._terms,
            session_id=new_session_id(),
            identity={"userId": proof.user_id, "role": role},
            expires_at=proof.expires_at,
            writer=self._writer,
            boot=self._boot(),
            room_id=room_id,
        )


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


def refuse(socket: LiveSocket, code: int) -> None:
    """Says bye and closes."""
    after_ms = 1000 if BYES[code][1] == "soon" else None
    socket.close(code, BYES[code][0], bye_frame(code, after_ms=after_ms))


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
        raise Refusal(4001)
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

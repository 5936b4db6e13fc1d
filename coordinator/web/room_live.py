"""A room's live endpoint: who may listen, and as what."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.events import ROOM
from coordinator.domain.ids import is_room_id, new_session_id
from coordinator.domain.people import Proof, ProvenGuest, Staff
from coordinator.live.connection import Connection, ConnectionContext
from coordinator.live.observer import Observer
from coordinator.live.participant_connection import ParticipantConnection
from coordinator.live.websocket import LiveSocket
from coordinator.services.access import Access
from coordinator.store.room_writer.queue import Writer
from coordinator.store.rooms import Rooms, StoredRoom
from coordinator.web.handshake import Refusal, presented_token
from coordinator.web.live_query import LiveQuery


class RoomEndpoint:
    """`/api/interview/room/{roomId}/live`: the host, a guest of the room, an admin as observer."""

    kind = ROOM
    path = re.compile(r"/api/interview/room/([^/]+)/live")

    def __init__(
        self,
        rooms: Rooms,
        writer: Writer,
        access: Access,
        context: ConnectionContext,
        node_epoch: Callable[[], str],
    ) -> None:
        self._rooms = rooms
        self._writer = writer
        self._access = access
        self._context = context
        self._node_epoch = node_epoch

    def credential(self, socket: LiveSocket) -> str | None:
        return presented_token(socket)

    def credential_of(self, frame: dict[str, Any]) -> str | None:
        token = frame.get("token")
        return token if isinstance(token, str) and token else None

    def limit_of(self, credential: str | None) -> str:
        return "live"

    async def admit(
        self, socket: LiveSocket, feed_id: str, credential: str, query: LiveQuery
    ) -> Connection:
        proof = await self._access.proof(credential)
        if not is_room_id(feed_id):
            raise Refusal(CloseCode.NOT_FOUND)
        is_guest = isinstance(proof.holder, ProvenGuest) and proof.holder.room_id == feed_id
        if is_guest and not query.observes:
            # The writer checks the rest.
            return self._participant(socket, feed_id, proof, "guest", query)
        room = await self._rooms.room(feed_id)
        if room is None:
            raise Refusal(CloseCode.NOT_FOUND)
        return self._for_staff(socket, room, proof, query)

    def _for_staff(
        self, socket: LiveSocket, room: StoredRoom, proof: Proof, query: LiveQuery
    ) -> Connection:
        if not isinstance(proof.holder, Staff):
            raise Refusal(CloseCode.NOT_ALLOWED)
        is_host = room.host_id == proof.user_id
        if is_host and not query.observes:
            return self._participant(socket, room.room_id, proof, "host", query)
        if not is_host and not proof.holder.is_admin:
            raise Refusal(CloseCode.NOT_ALLOWED)
        if room.is_ended:
            raise Refusal(CloseCode.ENDED)
        return self._observer(socket, room, proof, query)

    def _observer(
        self, socket: LiveSocket, room: StoredRoom, proof: Proof, query: LiveQuery
    ) -> Observer:
        observer = Observer(
            socket,
            self._context,
            session_id=new_session_id(),
            identity={"userId": proof.user_id, "role": "observer"},
            proof=proof,
            counts_only=query.counts_only,
            needs_admin=room.host_id != proof.user_id,
        )
        observer.connect_seq = room.last_seq
        return observer

    def _participant(
        self, socket: LiveSocket, room_id: str, proof: Proof, role: str, query: LiveQuery
    ) -> ParticipantConnection:
        return ParticipantConnection(
            socket,
            self._context,
            session_id=new_session_id(),
            identity={"userId": proof.user_id, "role": role},
            proof=proof,
            counts_only=query.counts_only,
            writer=self._writer,
            node_epoch=self._node_epoch(),
            room_id=room_id,
        )

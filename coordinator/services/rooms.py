"""Rooms and guests: who may do what, and what is told to the writer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from coordinator.domain.errors import (
    CoordinatorError,
    Forbidden,
    RoomNotFound,
    Unauthorized,
    Unavailable,
)
from coordinator.domain.events import Event
from coordinator.domain.ids import is_room_id, new_guest_id
from coordinator.domain.people import Guest, Proof, Staff
from coordinator.domain.room import Room
from coordinator.services.access import Access
from coordinator.store.room_writer.commands import (
    AdmitTokenRequest,
    End,
    Join,
    Joined,
    LeaveById,
    Remove,
    Return,
)
from coordinator.store.room_writer.queue import OnCommit, Writer
from coordinator.store.rooms import Attendance, ListedRoom, Rooms, StoredRoom


class RoomService:
    """Every REST call about rooms and guests ends here.

    All methods raise `Unavailable` where Postgres is away, and `RoomNotFound` for an unknown room
    or an id that cannot be one.
    """

    def __init__(
        self, rooms: Rooms, writer: Writer, access: Access, on_commit: OnCommit, *,
        proof_required: bool, events_keep_days: float,
    ) -> None:  # fmt: skip
        self._rooms = rooms
        self._writer = writer
        self._access = access
        self._on_commit = on_commit
        self._proof_required = proof_required
        self._events_keep = timedelta(days=events_keep_days)

    async def create(self, staff: Staff, *, room_id: str, room_name: str, host_name: str) -> Room:
        """Makes a room; the caller is its host and at once its first participant.

        Raises:
            RoomExists: also where the room of that id has ended.
        """
        room = await self._rooms.create(
            room_id=room_id, room_name=room_name, host_name=host_name, host=staff
        )
        self._on_commit(room.events, ())
        return room

    async def view(self, room_id: str) -> tuple[StoredRoom, list[Attendance]]:
        """The room, and who is in it (ended: who attended)."""
        found = await self._rooms.room_with_people(_checked(room_id))
        if found is None:
            raise RoomNotFound
        return found

    async def end(self, staff: Staff, room_id: str) -> datetime:
        """Ends the room, once; when it (first) ended. `staff` may (`require_host`)."""
        return await self._writer.submit(End(room_id=room_id, by=staff.user_id))

    async def listed(
        self, staff: Staff, *, status: str | None, page: int, page_size: int
    ) -> tuple[int, list[ListedRoom]]:
        """How many rooms the caller sees, and one page of them: its own, an admin everybody's."""
        return await self._rooms.listed(
            host=None if staff.is_admin else staff.number,
            status=status,
            limit=page_size,
            offset=min((page - 1) * page_size, 2**62),
        )

    async def events(
        self, proof: Proof, room_id: str, *, after: int, limit: int
    ) -> tuple[list[Event], int]:
        """The log after a seq, and its last seq; of a room that ended long ago nothing is left.

        Raises:
            Forbidden: neither its host, nor an admin, nor one of its participants.
        """
        room = await self._room(room_id)
        await self._require_reader(room, proof.holder)
        if room.ended_at is not None and room.ended_at < datetime.now(UTC) - self._events_keep:
            return [], room.last_seq
        events = await self._rooms.events_after(room_id, min(after, 2**62), limit)
        return events, max(room.last_seq, events[-1].seq if events else 0)

    async def remove(self, room_id: str, user_id: str) -> None:
        """Puts a guest out for good, for somebody who may (`require_host`).

        Raises:
            NotFound, RoomEnded
            InvalidParams: the host.
        """
        await self._writer.submit(Remove(room_id=room_id, user_id=_clean(user_id)))

    async def join(
        self, *, room_id: str, user_name: str, identity: str | None, tokens: list[str]
    ) -> Joined:
        """A guest comes; with a token of this room among `tokens` it is a return.

        Raises:
            RoomEnded, RoomFull, Removed
        """
        _checked(room_id)
        for token in tokens:
            guest = self._access.returning_guest(token)
            if guest is not None and guest.room_id == room_id:
                return await self._writer.submit(
                    Return(
                        room_id=room_id,
                        user_id=guest.user_id,
                        user_name=user_name,
                        identity=identity,
                    )
                )
        return await self._writer.submit(
            Join(room_id=room_id, user_id=new_guest_id(), user_name=user_name, identity=identity)
        )

    async def leave(self, *, room_id: str, guest_id: str, token: str | None) -> None:
        """A guest leaves by its ids; a token is looked at where it is presented or due.

        Raises:
            NotFound: no such guest here.
            Unauthorized, TokenExpired, Forbidden: no proof, a broken one, somebody else's.
        """
        _checked(room_id)
        bad_proof = await self._what_is_wrong(token, room_id, guest_id) if token else None
        await self._writer.submit(
            LeaveById(
                room_id=room_id,
                user_id=guest_id,
                proven=token is not None,
                proof_required=self._proof_required,
                bad_proof=bad_proof,
            )
        )

    async def _what_is_wrong(
        self, token: str, room_id: str, user_id: str
    ) -> CoordinatorError | None:
        try:
            proof = await self._access.proof(token)
        except Unavailable:
            raise
        except Unauthorized as error:
            return error
        return None if _is_of(proof, room_id, user_id) else Forbidden()

    async def admit_token_request(self, room_id: str, user_id: str, proof: Proof | None) -> None:
        """Whether somebody may have a ZEGO token for this participant.

        Raises:
            RoomEnded
            Forbidden: not in the room now, or the proof is somebody else's.
            Unauthorized: a proof is due, and none was presented.
        """
        _checked(room_id)
        if proof is not None and not _is_of(proof, room_id, user_id):
            await self._room(room_id)
            raise Forbidden
        await self._writer.submit(
            AdmitTokenRequest(
                room_id=room_id,
                user_id=_clean(user_id),
                proven=proof is not None,
                proof_required=self._proof_required,
            )
        )

    async def require_host(self, room_id: str, staff: Staff) -> None:
        """Nothing for the room's host and for admins.

        Raises:
            Forbidden: everybody else.
        """
        room = await self._room(room_id)
        if room.host_id != staff.user_id and not staff.is_admin:
            raise Forbidden

    async def _require_reader(self, room: StoredRoom, holder: Staff | Guest) -> None:
        if isinstance(holder, Staff):
            allowed = holder.is_admin or room.host_id == holder.user_id
        else:
            allowed = holder.room_id == room.room_id and await self._rooms.is_participant(
                room.room_id, holder.user_id
            )
        if not allowed:
            raise Forbidden

    async def _room(self, room_id: str) -> StoredRoom:
        room = await self._rooms.room(_checked(room_id))
        if room is None:
            raise RoomNotFound
        return room


def _checked(room_id: str) -> str:
    """An id of a strange form is no room's: only create-room says what is wrong with it."""
    if not is_room_id(room_id):
        raise RoomNotFound
    return room_id


def _clean(user_id: str) -> str:
    """An id that Postgres can be asked about; whatever it cannot hold is nobody's."""
    return user_id if user_id.isprintable() and user_id.isascii() else ""


def _is_of(proof: Proof, room_id: str, user_id: str) -> bool:
    """True where a token is the participant's own; a guest's is good for its room alone."""
    return proof.user_id == user_id and getattr(proof.holder, "room_id", room_id) == room_id

"""Rooms and guests: who may do what, and what is told to the writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from coordinator.domain.errors import (
    CoordinatorError,
    Forbidden,
    RoomEnded,
    RoomNotFound,
    Unauthorized,
    Unavailable,
)
from coordinator.domain.events import Event
from coordinator.domain.identity_claim import IdentityClaim
from coordinator.domain.ids import is_room_id, new_guest_id
from coordinator.domain.people import Proof, ProvenGuest, Staff
from coordinator.domain.room import Room
from coordinator.services.access import Access
from coordinator.services.seat_limit import SeatLimit
from coordinator.store.room_lists import ListedRoom, listed_rooms
from coordinator.store.room_pages import RoomPage, RoomPages
from coordinator.store.room_writer.commands import (
    AdmitTokenRequest,
    End,
    Join,
    Joined,
    LeaveById,
    Remove,
    RemoveUnconnected,
    Return,
)
from coordinator.store.room_writer.queue import Writer
from coordinator.store.room_writer.telling import OnCommit
from coordinator.store.rooms import Rooms, StoredRoom

Enter = Callable[[type[Return], str], asyncio.Future[Joined]]
"""Submits a `Join` or a `Return` of the guest with this id."""


@dataclass(frozen=True, slots=True)
class LogPart:
    """Some of a room's log, its last seq, and the epoch that it belongs to."""

    events: list[Event]
    last_seq: int
    epoch: str


class RoomService:
    """Every REST call about rooms and guests ends here.

    All methods raise `Unavailable` where Postgres is away, and `RoomNotFound` for an unknown room
    or an id that cannot be one.
    """

    def __init__(
        self, rooms: Rooms, pages: RoomPages, writer: Writer, access: Access, on_commit: OnCommit,
        seat_limit: SeatLimit, *,
        proof_required: bool, events_keep_days: float, participants_keep_days: float,
    ) -> None:  # fmt: skip
        """Does no I/O.

        Args:
            events_keep_days: how long after its end a room's log is told; 0 = for ever.
            participants_keep_days: how long its people are; 0 = for ever.
        """
        self._rooms = rooms
        self._pages = pages
        self._seat_limit = seat_limit
        self._writer = writer
        self._access = access
        self._on_commit = on_commit
        self._proof_required = proof_required
        self._events_keep = timedelta(days=events_keep_days)
        self._participants_keep = timedelta(days=participants_keep_days)

    async def create(self, staff: Staff, *, room_id: str, room_name: str, host_name: str) -> Room:
        """Makes a room; the caller is its host and at once its first participant.

        Raises:
            RoomExists: also where the room of that id has ended.
        """
        room = await self._rooms.create(
            room_id=room_id, room_name=room_name, host_name=host_name, host=staff
        )
        self._on_commit(room.events, ())
        self._writer.remember(room)
        return room

    async def view(self, room_id: str) -> RoomPage:
        """The room, and who is in it (ended: who attended): at most the first 500 of them."""
        page = await self._pages.first(_checked(room_id), kept_since=self._people_kept_since())
        return _found(page)

    async def participants(self, room_id: str, *, limit: int, offset: int) -> RoomPage:
        """The room with one page of those whom `view` shows, however many they are."""
        page = await self._pages.page(
            _checked(room_id), limit=limit, offset=offset, kept_since=self._people_kept_since()
        )
        return _found(page)

    def _people_kept_since(self) -> datetime | None:
        keep = self._participants_keep
        return datetime.now(UTC) - keep if keep else None

    async def end(self, staff: Staff, room_id: str) -> datetime:
        """Ends the room, once; when it (first) ended. `staff` may (`require_host`)."""
        return await self._writer.submit(End(room_id=room_id, by=staff.user_id))

    async def listed(
        self, staff: Staff, *, status: str | None, part: str | None, page: int, page_size: int
    ) -> tuple[int, list[ListedRoom]]:
        """How many rooms the caller sees, and one page of them: its own, an admin everybody's.

        `part`: of the id or the name, in capital or small letters; None = any.
        """
        return await listed_rooms(
            self._rooms.database,
            host=None if staff.is_admin else staff.number,
            status=status,
            part=part,
            limit=page_size,
            offset=min((page - 1) * page_size, 2**62),
        )

    async def events(
        self, proof: Proof, room_id: str, *, after: int, epoch: str | None, limit: int
    ) -> LogPart:
        """The log after a seq, and its last seq; of a room that ended long ago nothing is left.

        Args:
            epoch: the history in which `after` was told; None = this one. A seq of another history
                is no place in this log, which is then told from its beginning.

        Raises:
            Forbidden: neither its host, nor an admin, nor one of its participants.
        """
        room = await self._room(room_id)
        await self._require_reader(room, proof.holder)
        current = self._rooms.database.epochs.current
        if self._log_is_gone(room):
            return LogPart([], room.last_seq, current)
        start = min(after, 2**62) if epoch in (None, current) else 0
        events = await self._rooms.events_after(room_id, start, limit)
        return LogPart(events, max(room.last_seq, events[-1].seq if events else 0), current)

    def _log_is_gone(self, room: StoredRoom) -> bool:
        if room.ended_at is None or not self._events_keep:
            return False
        return room.ended_at < datetime.now(UTC) - self._events_keep

    async def remove(self, room_id: str, user_id: str) -> None:
        """Puts a guest out for good; whoever asks has passed `require_host`.

        Raises:
            NotFound, RoomEnded
            InvalidParams: the host.
        """
        await self._writer.submit(Remove(room_id=room_id, user_id=_clean(user_id)))

    async def remove_unconnected(self, room_id: str) -> int:
        """Puts out every guest who has not connected; how many. They may come back.

        Raises:
            RoomEnded
        """
        if (await self._room(room_id)).is_ended:
            raise RoomEnded
        commands = [
            RemoveUnconnected(room_id=room_id, user_id=user_id)
            for user_id in await self._pages.unconnected(room_id)
        ]
        return sum(await asyncio.gather(*(self._writer.submit(each) for each in commands)))

    def join(
        self, *, room_id: str, user_name: str, identity: str | None, tokens: list[str],
        address: Callable[[], str], join_key: str | None = None,
    ) -> asyncio.Future[Joined]:  # fmt: skip
        """A guest joins; await the future. `address`: whence, called only where addresses count.

        With a token of this room among `tokens` it is a return, and so it is with a `join_key` that
        the guest has used in this room before, even while that call is under way on another node.

        Raises:
            RoomEnded, RoomFull, Removed
            RateLimited: too many guests of this address have not connected.
        """
        _checked(room_id)
        known = self._returning(room_id, tokens) if tokens else None
        enter = partial(self._enter, room_id, user_name, identity)
        if not self._seat_limit.is_on:
            if known is not None:
                return enter(Return, known)
            if join_key is None:
                return enter(Join, new_guest_id())  # most joins: Postgres is asked nothing first
        coming = self._join_after_asking(room_id, known, join_key, address(), enter)
        return asyncio.create_task(coming)

    def _enter(
        self, room_id: str, user_name: str, identity: str | None, kind: type[Return], user_id: str
    ) -> asyncio.Future[Joined]:
        return self._writer.submit(
            kind(room_id=room_id, user_id=user_id, user_name=user_name, identity=identity)
        )

    async def _join_after_asking(
        self, room_id: str, known: str | None, join_key: str | None, address: str, enter: Enter
    ) -> Joined:
        """`join` where Postgres is asked first: whose key it is, who holds seats.

        Who comes back takes a seat again, unless it holds one still; who was put out is told so.
        """
        if known is None and join_key is not None:
            known = await self._guest_of_key(room_id, join_key)
        if known is None:
            new = partial(enter, Join, new_guest_id())
            return await self._seat_limit.admit(room_id, address, new)
        back = partial(enter, Return, known)
        if self._seat_limit.is_on:
            standing = await self._rooms.standing(room_id, known)
            if standing in ("present", "removed"):
                return await back()
        return await self._seat_limit.admit(room_id, address, back)

    def _returning(self, room_id: str, tokens: list[str]) -> str | None:
        """Whom one of the tokens lets return into this room."""
        guests = (self._access.returning_guest(token) for token in tokens)
        return next((g.user_id for g in guests if g is not None and g.room_id == room_id), None)

    async def _guest_of_key(self, room_id: str, join_key: str) -> str:
        """The id of the guest with this key: the newest, where none has come with it yet."""
        newest, *older = self._access.guest_ids(room_id, join_key)
        for user_id in older:
            if await self._rooms.standing(room_id, user_id) is not None:
                return user_id
        return newest

    async def leave(self, *, room_id: str, guest_id: str, token: str | None) -> None:
        """A guest leaves by its ids; a token is looked at where it is presented or due.

        Raises:
            NotFound: no such guest here.
            Unauthorized, TokenExpired, Forbidden: no proof, a broken one, somebody else's.
        """
        _checked(room_id)
        claim = await self._claim(token, room_id, guest_id)
        await self._writer.submit(
            LeaveById(room_id=room_id, user_id=guest_id, claim=claim)
        )

    async def _claim(self, token: str | None, room_id: str, user_id: str) -> IdentityClaim:
        fault = await self._fault(token, room_id, user_id) if token else None
        return IdentityClaim(
            is_presented=token is not None, is_required=self._proof_required, fault=fault
        )

    async def _fault(self, token: str, room_id: str, user_id: str) -> CoordinatorError | None:
        try:
            proof = await self._access.proof(token)
        except Unavailable:
            raise
        except Unauthorized as error:
            return error
        return None if _is_of(proof, room_id, user_id) else Forbidden()

    async def admit_token_request(
        self, *, room_id: str, user_id: str, token: str | None
    ) -> None:
        """Whether somebody may have a ZEGO token for this participant.

        As in `leave`, the room is judged before the token.

        Raises:
            RoomEnded
            Forbidden: not in the room now, or the token is somebody else's.
            Unauthorized, TokenExpired: no proof where one is due, or a broken one.
        """
        _checked(room_id)
        claim = await self._claim(token, room_id, user_id)
        await self._writer.submit(
            AdmitTokenRequest(room_id=room_id, user_id=_clean(user_id), claim=claim)
        )

    async def require_host(self, room_id: str, staff: Staff) -> None:
        """Nothing for the room's host and for admins.

        Raises:
            Forbidden: everybody else.
        """
        room = await self._room(room_id)
        if room.host_id != staff.user_id and not staff.is_admin:
            raise Forbidden

    async def _require_reader(self, room: StoredRoom, holder: Staff | ProvenGuest) -> None:
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


def _found(page: RoomPage | None) -> RoomPage:
    if page is None:
        raise RoomNotFound
    return page


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

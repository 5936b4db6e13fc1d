"""A participant's connection to its room: its coming and going is presence.

The writer stores each connection as a row under its session's id, so that a late close of an old
connection never touches a newer one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.errors import (
    CoordinatorError,
    LeaseLost,
    NotFound,
    Removed,
    RoomEnded,
    Unavailable,
)
from coordinator.domain.people import Proof
from coordinator.domain.roster import Roster
from coordinator.live.connection import MAX_TEXT_BYTES, Connection, ConnectionContext
from coordinator.live.feed import Feed
from coordinator.live.websocket import Heard, LiveSocket
from coordinator.store.room_writer.commands import Connect, Disconnect, Leave, MarkAway
from coordinator.store.room_writer.queue import Writer


class ParticipantConnection(Connection):
    """A participant's connection to its room."""

    __slots__ = (
        "_has_left",
        "_rows",
        "_writer",
        "is_marked_away",
        "node_epoch",
        "room_id",
        "user_id",
    )

    def __init__(
        self,
        socket: LiveSocket,
        context: ConnectionContext,
        *,
        session_id: str,
        identity: dict[str, Any],
        proof: Proof,
        counts_only: bool,
        writer: Writer,
        node_epoch: str,
        room_id: str,
    ) -> None:
        super().__init__(
            socket,
            context,
            session_id=session_id,
            identity=identity,
            proof=proof,
            counts_only=counts_only,
        )
        self.user_id: str = identity["userId"]
        self.room_id = room_id
        self.node_epoch = node_epoch
        self._rows = context.rows
        self.is_marked_away = False
        self._writer = writer
        self._has_left = False

    def close(self, code: CloseCode, *, after_ms: int | None = None) -> None:
        """A connection that said `leave` closes with 1000, its participant's others with 4009."""
        if self._has_left and code is CloseCode.LEFT:
            code = CloseCode.DONE
        if code.row_is_gone or self._has_left:
            self._rows.give_up(self.session_id)
        self.give_up_row()
        super().close(code, after_ms=after_ms)

    def on_lost(self) -> None:
        """A client that said `leave` and hung up has left, not dropped, also where `leave` waited
        for what it had asked before.
        """
        if any(_is_leave(heard) for heard in self._inbox):
            self._has_left = True
            self._writer.post(Leave(room_id=self.room_id, user_id=self.user_id))
        if self._has_left:
            self._rows.give_up(self.session_id)  # the leave deletes it
        super().on_lost()
        self.give_up_row()

    def give_up_row(self) -> None:
        """Deletes the session's row, once; the next reconciliation finds a failure."""
        if self._rows.give_up(self.session_id):
            self._writer.post(
                Disconnect(room_id=self.room_id, user_id=self.user_id, session_id=self.session_id)
            )

    async def open(self) -> int:
        return await self.connect()

    def start(self, feed: Feed) -> None:
        """Closes at once where the participant left and came back over REST while this opened.

        A node that reads the room after both never hears of that leave, which ends the connection.
        """
        state = feed.state
        if isinstance(state, Roster) and state.is_unconnected(self.user_id):
            self.say_bye(CloseCode.LEFT)
        super().start(feed)

    async def connect(self, *, returning: bool = False) -> int:
        """Writes its row; the log's last seq then.

        Raises:
            LeaseLost, Unavailable, RoomNotFound, RoomEnded, RoomFull, Removed, Forbidden, NotFound
        """
        self._rows.claim(self.session_id)
        try:
            answer = await self._writer.submit(
                Connect(
                    room_id=self.room_id,
                    user_id=self.user_id,
                    session_id=self.session_id,
                    node_epoch=self.node_epoch,
                    returning=returning,
                )
            )
        except Unavailable:
            if returning:
                self._mark()  # the mark may have been taken away all the same
            else:
                self.give_up_row()  # the row may have been written all the same
            raise
        except CoordinatorError:
            self._rows.give_up(self.session_id)
            raise
        self._rows.confirm(self.session_id)
        self.connect_seq = max(self.connect_seq, answer.seq)
        if answer.replaced:
            self.context.replace(answer.replaced)
        return answer.seq

    def _hear(self, kind: str, message: dict[str, Any]) -> None:
        if kind == "leave":
            self._has_left = True
            self._do(self._leave())
        elif kind == "away":
            if not self.is_marked_away:
                self._mark()
        elif self.is_marked_away:
            self._do(self._return_then(kind, message))
        else:
            super()._hear(kind, message)

    def _mark(self) -> None:
        """Marks it away; the next reconciliation finds a failure."""
        self.is_marked_away = True
        if self._rows.mark(self.session_id):
            self._writer.post(
                MarkAway(room_id=self.room_id, user_id=self.user_id, session_id=self.session_id)
            )

    def on_not_admitted(self) -> None:
        self._do(self._return())  # the rule says why

    def _refuse_text(self, code: str, sentence: str) -> None:
        super()._refuse_text(code, sentence)
        if self.is_marked_away and self._work is None:
            self._do(self._return())  # any text shows that the client is in use

    async def _leave(self) -> None:
        try:
            await self._writer.submit(Leave(room_id=self.room_id, user_id=self.user_id))
        except Unavailable:
            self._has_left = False
            raise
        except CoordinatorError:
            pass
        self.say_bye(CloseCode.DONE)  # the event has mostly closed it already

    async def _return_then(self, kind: str, message: dict[str, Any]) -> None:
        await self._return()
        if not self.socket.is_closing:
            super()._hear(kind, message)

    async def _return(self) -> None:
        """A connection that was marked away is in use again, unless it has ended since it said so:
        the row that it would write, nobody would delete.
        """
        if self.socket.is_closing:
            return
        self.is_marked_away = False
        self._rows.marked.discard(self.session_id)
        try:
            await self.connect(returning=True)
        except LeaseLost:
            self.say_bye(CloseCode.CANNOT_CONTINUE)
        except Unavailable:
            raise
        except NotFound:
            self.say_bye(CloseCode.LEFT)
        except RoomEnded:
            self.say_bye(CloseCode.ENDED)
        except Removed:
            self.say_bye(CloseCode.REMOVED)
        except CoordinatorError:
            self.say_bye(CloseCode.NOT_ALLOWED)


def _is_leave(heard: Heard) -> bool:
    if not isinstance(heard, bytes) or len(heard) > MAX_TEXT_BYTES:
        return False
    try:
        message = msgspec.json.decode(heard)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(message, dict) and message.get("type") == "leave"

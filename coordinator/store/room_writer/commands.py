"""What can be asked of a room: each command names its room and people, and decides under the lock.

A command whose COMMIT was not answered is carried out again. Its ids are made before it is queued,
so that the second time finds what the first one did, and gives the same answer.

Commands are Structs: a frozen dataclass takes ten times as long to make.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Generic, NamedTuple, TypeVar

import msgspec

from coordinator.domain import room_rules as rules
from coordinator.domain.identity_claim import IdentityClaim
from coordinator.domain.room import Lifespan, Policy, Room
from coordinator.domain.room_rules import SYSTEM

A = TypeVar("A")


class Command(msgspec.Struct, Generic[A], frozen=True, kw_only=True):
    """The base: whose room, and whom the decision needs to see (None: nobody).

    `is_fresh`: `user_id` was made for this command, so that nothing is stored under it yet.
    `is_question`: it seldom changes anything.
    `node_epoch`: the node's run that must still be alive for it (connecting), or None.
    """

    room_id: str
    user_id: str | None = None
    node_epoch: str | None = None
    is_fresh: ClassVar[bool] = False
    is_question: ClassVar[bool] = False

    def decide(self, room: Room, policy: Policy) -> A:
        """Changes the room under its lock; the answer. Raises before it changes anything."""
        raise NotImplementedError  # each command does it; a Struct cannot be an `ABC`


class Joined(msgspec.Struct, frozen=True):
    """The answer of a join: the guest as it is in the room, the seq of its join and its epoch."""

    user_id: str
    user_name: str
    identity: str | None
    joined_at: datetime
    seq: int
    epoch: str


class Return(Command[Joined], frozen=True, kw_only=True):
    """A guest comes over REST under an id that it has proven to be its own."""

    user_id: str
    user_name: str
    identity: str | None
    proves: ClassVar[bool] = True

    def decide(self, room: Room, policy: Policy) -> Joined:
        guest = rules.join(
            room, policy, user_id=self.user_id, user_name=self.user_name, identity=self.identity,
            proven=self.proves,
        )  # fmt: skip
        return Joined(
            guest.user_id, guest.user_name, guest.identity, guest.joined_at, guest.joined_seq,
            room.epoch,
        )  # fmt: skip


class Join(Return, frozen=True, kw_only=True):
    """A new guest comes over REST, under an id made for it."""

    is_fresh: ClassVar[bool] = True
    proves: ClassVar[bool] = False


class UndoJoin(Command[None], frozen=True, kw_only=True):
    """Takes back a join that was answered 503, and may have happened all the same.

    The join's statement may even be still on its way: writing the room's row makes sure that it
    finds another version, and writes nothing.
    """

    user_id: str

    def decide(self, room: Room, policy: Policy) -> None:
        rules.leave(room, user_id=self.user_id)
        room.is_written = True


class LeaveById(Command[None], frozen=True, kw_only=True):
    """guest/leave."""

    user_id: str
    claim: IdentityClaim

    def decide(self, room: Room, policy: Policy) -> None:
        rules.leave_by_id(room, user_id=self.user_id, claim=self.claim)


class Leave(Command[None], frozen=True, kw_only=True):
    """A participant says over its live connection that it leaves."""

    user_id: str

    def decide(self, room: Room, policy: Policy) -> None:
        rules.leave(room, user_id=self.user_id)


class AdmitTokenRequest(Command[None], frozen=True, kw_only=True):
    """zego/generate-token asks whether this participant may have one."""

    user_id: str
    claim: IdentityClaim
    is_question: ClassVar[bool] = True

    def decide(self, room: Room, policy: Policy) -> None:
        rules.admit_token_request(room, user_id=self.user_id, claim=self.claim)


class Remove(Command[None], frozen=True, kw_only=True):
    """The host puts a guest out for good."""

    user_id: str

    def decide(self, room: Room, policy: Policy) -> None:
        rules.remove(room, user_id=self.user_id)


class RemoveUnconnected(Command[bool], frozen=True, kw_only=True):
    """The host puts out a guest who has not connected, where there is one of that id."""

    user_id: str

    def decide(self, room: Room, policy: Policy) -> bool:
        return rules.remove_unconnected(room, user_id=self.user_id)


class End(Command[datetime], frozen=True, kw_only=True):
    """The room ends; the answer is when it (first) did."""

    by: str

    def decide(self, room: Room, policy: Policy) -> datetime:
        return rules.end(room, by=self.by, reason="ended")


class EndIfOverdue(Command[bool], frozen=True, kw_only=True):
    """Ends a room whose host's absence, emptiness or age has passed a limit."""

    lifespan: Lifespan
    by: str = SYSTEM

    def decide(self, room: Room, policy: Policy) -> bool:
        return rules.end_if_overdue(room, self.lifespan)


class Connected(NamedTuple):
    """The answer of a connect: the log's last seq then, and the session that it pushed out."""

    seq: int
    replaced: tuple[str, ...]


class Connect(Command[Connected], frozen=True, kw_only=True):
    """A live connection opens; `returning`: one that was marked away is in use again."""

    user_id: str
    session_id: str
    node_epoch: str
    returning: bool = False

    def decide(self, room: Room, policy: Policy) -> Connected:
        replaced = len(room.replaced)
        rules.connect(
            room, policy, user_id=self.user_id, session_id=self.session_id,
            node_epoch=self.node_epoch, returning=self.returning,
        )  # fmt: skip
        return Connected(room.last_seq, tuple(room.replaced[replaced:]))


class MarkAway(Command[None], frozen=True, kw_only=True):
    """The client of an open connection went to the background."""

    user_id: str
    session_id: str

    def decide(self, room: Room, policy: Policy) -> None:
        rules.mark_away(room, policy, user_id=self.user_id, session_id=self.session_id)


class Disconnect(Command[None], frozen=True, kw_only=True):
    """A connection went, or belonged to a node that is dead."""

    user_id: str
    session_id: str

    def decide(self, room: Room, policy: Policy) -> None:
        rules.disconnect(room, policy, user_id=self.user_id, session_id=self.session_id)


class Expire(Command[bool], frozen=True, kw_only=True):
    """Carries out a participant's deadline, where it has passed."""

    user_id: str

    def decide(self, room: Room, policy: Policy) -> bool:
        return rules.expire(room, user_id=self.user_id)

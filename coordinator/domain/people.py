"""Who somebody is, once it has been proven."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from coordinator.domain.ids import staff_id


@dataclass(frozen=True, slots=True)
class Staff:
    """Somebody who has logged in with WeChat; `role` is that of the database row, `hr` or `admin`.
    """

    number: int
    openid: str
    role: str
    name: str | None = None
    avatar: str | None = None
    phone: str | None = None
    disabled: bool = False

    @property
    def user_id(self) -> str:
        """The public id: `user_001`."""
        return staff_id(self.number)

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"


@dataclass(frozen=True, slots=True)
class ProvenGuest:
    """A guest of one room, proven by its `guestToken`."""

    room_id: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Proof:
    """What a token that was presented proves: whose it is, and until when.

    `session` is the `jti` of a token that can be signed out.
    """

    holder: Staff | ProvenGuest
    expires_at: datetime
    session: str | None = None

    @property
    def user_id(self) -> str:
        return self.holder.user_id

"""Staff: the table `users`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from piccolo.querystring import QueryString

from coordinator.data_cipher import CannotDecrypt, DataCipher
from coordinator.domain.people import Staff
from coordinator.store.coalesce import Coalesced
from coordinator.store.database import Database
from coordinator.store.line import Queries
from coordinator.store.tables import Users

_SHOWN = (
    Users.id, Users.openid, Users.role, Users.name, Users.avatar, Users.phone,
    Users.phone_encrypted, Users.disabled_at,
)  # fmt: skip
_COLUMNS = ", ".join(column._meta.name for column in _SHOWN)
_NOW = QueryString("now()")
NO_KEYS = DataCipher(())
PHONE = "users.phone"
"""What phone numbers are encrypted for."""
REMEMBERED = 4096


class People:
    """Finds, adds and changes staff. Every method raises `Unavailable` where Postgres is away."""

    def __init__(self, database: Database, cipher: DataCipher = NO_KEYS) -> None:
        """`cipher` encrypts phone numbers; without keys none is stored, and none is told."""
        self.database = database
        self._cipher = cipher
        # Every request of staff reads its row, and hardly any its phone.
        self._decrypted = lru_cache(REMEMBERED)(self._decrypt)
        self._line = None if database.is_pooled else database.line()
        self._coalesced = Coalesced(self._read_staff)

    async def readable(self) -> None:
        """Asks whether people can be looked up now.

        Raises:
            Unavailable: they cannot.
        """
        await self.database.fetchval("SELECT 1")

    async def writable(self) -> None:
        """Asks whether people can be changed now.

        Raises:
            Unavailable: PostgreSQL is away or read-only, or has just refused to write.
        """
        await self.database.ping()

    async def staff(self, number: int, session: str | None = None) -> Staff | None:
        """The staff member, or None where there is none or an operator has disabled it.

        Also None where `session`, the `jti` of its token, has been signed out.
        """
        return await self._coalesced.get((number, session or ""))

    async def standings(self, asked: list[tuple[int, str]]) -> dict[tuple[int, str], Staff]:
        """Those of many at once who are not disabled, and whose `jti` has not been signed out.

        Args:
            asked: `users.id` and `jti`; '' = whatever the token.
        """
        return await self._read(self.database, asked)

    async def _read_staff(self, asked: list[tuple[int, str]]) -> dict[tuple[int, str], Staff]:
        # One query at a time: a connection of its own is cheaper than borrowing one each time.
        return await self._read(self._line or self.database, asked)

    async def _read(
        self, queries: Queries, asked: list[tuple[int, str]]
    ) -> dict[tuple[int, str], Staff]:
        # SQL by hand: each request of staff waits for it, and many askers are one statement.
        numbers, sessions = zip(*asked, strict=True)
        rows = await queries.fetch(
            f"""
            SELECT {_COLUMNS}, asked.session
            FROM unnest($1::int[], $2::text[]) AS asked (number, session)
            JOIN users ON id = asked.number
            WHERE disabled_at IS NULL
            AND NOT EXISTS (SELECT FROM revoked_sessions WHERE jti = asked.session)
            """,
            numbers, sessions,
        )  # fmt: skip
        return {(row["id"], row["session"]): self._member(row) for row in rows}

    async def list_all(self) -> list[Staff]:
        """Everybody in order of number, the disabled ones too."""
        rows = await self.database.run(Users.select(*_SHOWN).order_by(Users.id))
        return [self._member(row) for row in rows]

    async def by_openid(self, openid: str) -> Staff | None:
        """The staff member with this openid, disabled or not."""
        rows = await self.database.run(Users.select(*_SHOWN).where(Users.openid == openid))
        return self._member(rows[0]) if rows else None

    async def sign_up(self, openid: str) -> Staff:
        """Makes a user with role `hr`; a race of many for one openid makes one, and all get it.

        Safe to repeat. One who is there already is given as it is, also where it is disabled.
        """
        # DO UPDATE rather than DO NOTHING: it waits for the winner of a race and returns its row.
        # SQL by hand, as in `add`: Piccolo's inserts set the columns that keep their default, too.
        return self._member(
            await self.database.fetchrow(
                f"""
                INSERT INTO users (openid) VALUES ($1)
                ON CONFLICT (openid) DO UPDATE SET openid = excluded.openid
                RETURNING {_COLUMNS}
                """,
                openid,
            )
        )

    async def add(self, openid: str, name: str | None = None, role: str | None = None) -> Staff:
        """An operator's invitation: makes the user, or changes what is given of an existing one.

        Idempotent by openid. Somebody disabled is let in again: there is no other way back.
        """
        return self._member(
            await self.database.fetchrow(
                f"""
                INSERT INTO users AS u (openid, name, role) VALUES ($1, $2, coalesce($3, 'hr'))
                ON CONFLICT (openid) DO UPDATE SET
                    name = coalesce($2, u.name), role = coalesce($3, u.role), disabled_at = NULL,
                    updated_at = CASE WHEN u.disabled_at IS NOT NULL
                        OR coalesce($2, u.name) IS DISTINCT FROM u.name
                        OR coalesce($3, u.role) <> u.role THEN now() ELSE u.updated_at END
                RETURNING {_COLUMNS}
                """,
                openid,
                name,
                role,
            )
        )

    async def set_role(self, number: int, role: str) -> Staff | None:
        """Makes somebody `hr` or `admin`, from the next request on; None where there is nobody."""
        return await self._change(number, {Users.role: role})

    async def disable(self, number: int) -> Staff | None:
        """Shuts somebody out, from the next request on; None where there is nobody.

        Idempotent: the time of the first stays.
        """
        first = QueryString("coalesce(disabled_at, now())")
        return await self._change(number, {Users.disabled_at: first})

    async def set_profile(
        self, number: int, *, name: str | None = None, avatar: str | None = None
    ) -> Staff | None:
        """Sets what is given and leaves what is None; None where there is nobody."""
        given = {Users.name: name, Users.avatar: avatar}
        return await self._change(
            number, {column: value for column, value in given.items() if value is not None}
        )

    async def set_phone(self, number: int, phone: str) -> Staff | None:
        """Stores a phone number of at most 20 characters; None where there is nobody.

        Without `DATA_KEYS` it is not stored.
        """
        if not self._cipher.is_ready:
            return await self.staff(number)
        encrypted = self._cipher.encrypt(phone, purpose=PHONE)
        return await self._change(number, {Users.phone: None, Users.phone_encrypted: encrypted})

    async def _change(self, number: int, values: dict[Any, Any]) -> Staff | None:
        changing = Users.update({**values, Users.updated_at: _NOW}).where(Users.id == number)
        rows = await self.database.run(changing.returning(*_SHOWN))
        return self._member(rows[0]) if rows else None

    def _member(self, row: Any) -> Staff:
        phone = row["phone"]  # where it is set, a version before has written it last
        if phone is None and row["phone_encrypted"] is not None:
            phone = self._decrypted(row["phone_encrypted"])
        return Staff(
            row["id"],
            row["openid"],
            row["role"],
            row["name"],
            row["avatar"],
            phone,
            row["disabled_at"] is not None,
        )

    def _decrypt(self, stored: str) -> str | None:
        """The number; None where its key is not set any more."""
        try:
            return self._cipher.decrypt(stored, purpose=PHONE)
        except CannotDecrypt:
            return None

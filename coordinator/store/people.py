"""Staff: the table `users`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from coordinator.data_cipher import CannotDecrypt, DataCipher
from coordinator.domain.people import Staff
from coordinator.store.coalesce import Coalesced
from coordinator.store.database import Database

_COLUMNS = """
    id, openid, role, name, avatar, phone, phone_encrypted, disabled_at IS NOT NULL AS disabled
"""
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
        self._coalesced = Coalesced(self._read_staff)

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
        return await self._read_staff(asked)

    async def _read_staff(self, asked: list[tuple[int, str]]) -> dict[tuple[int, str], Staff]:
        numbers, sessions = zip(*asked, strict=True)
        rows = await self.database.fetch(
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
        rows = await self.database.fetch(f"SELECT {_COLUMNS} FROM users ORDER BY id")
        return [self._member(row) for row in rows]

    async def by_openid(self, openid: str) -> Staff | None:
        """Who has this openid, also where it is disabled."""
        return self._staff(
            await self.database.fetchrow(f"SELECT {_COLUMNS} FROM users WHERE openid = $1", openid)
        )

    async def sign_up(self, openid: str) -> Staff:
        """Makes a user with role `hr`; a race of many for one openid makes one, and all get it.

        Safe to repeat. One who is there already is given as it is, also where it is disabled.
        """
        # DO UPDATE rather than DO NOTHING: it waits for the winner of a race and returns its row.
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
        """An operator's invitation: makes the user, or changes what is given of the one there is.

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
        return await self._change(number, "role = $2", role)

    async def disable(self, number: int) -> Staff | None:
        """Shuts somebody out, from the next request on; None where there is nobody.

        Idempotent: the time of the first stays.
        """
        return await self._change(number, "disabled_at = coalesce(disabled_at, now())")

    async def set_profile(
        self, number: int, *, name: str | None = None, avatar: str | None = None
    ) -> Staff | None:
        """Sets what is given and leaves what is None; None where there is nobody."""
        return await self._change(
            number, "name = coalesce($2, name), avatar = coalesce($3, avatar)", name, avatar
        )

    async def set_phone(self, number: int, phone: str) -> Staff | None:
        """Stores a phone number of at most 20 characters; None where there is nobody.

        Without `DATA_KEYS` it is not stored.
        """
        if not self._cipher.is_ready:
            return await self.staff(number)
        encrypted = self._cipher.encrypt(phone, purpose=PHONE)
        return await self._change(number, "phone = NULL, phone_encrypted = $2", encrypted)

    async def _change(self, number: int, assignments: str, *values: Any) -> Staff | None:
        return self._staff(
            await self.database.fetchrow(
                f"UPDATE users SET {assignments}, updated_at = now() WHERE id = $1"
                f" RETURNING {_COLUMNS}",
                number,
                *values,
            )
        )

    def _staff(self, row: Any) -> Staff | None:
        return self._member(row) if row is not None else None

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
            row["disabled"],
        )

    def _decrypt(self, stored: str) -> str | None:
        """The number; None where its key is not set any more."""
        try:
            return self._cipher.decrypt(stored, purpose=PHONE)
        except CannotDecrypt:
            return None

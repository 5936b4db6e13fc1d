"""Encrypts what stands in the database as it should not: in plain, or under an older key.

    DATA_KEYS=new,old   what is under `old` is encrypted anew; when nothing is left, `old` may go

A plain phone number was written by a version that knew no encryption. It is emptied when no node
of that version holds a lease: until then it would not find the number.

SQL by hand: one statement for whichever column it is, and NOT EXISTS within it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coordinator.data_cipher import CannotDecrypt, DataCipher
from coordinator.store.database import Database
from coordinator.store.people import PHONE

ROWS = 100

# Nodes of the version before write no report of themselves.
_NO_OLDER_NODE = """
    NOT EXISTS (
        SELECT FROM nodes n WHERE n.lease_until > clock_timestamp()
        AND NOT EXISTS (SELECT FROM node_reports r WHERE r.node_epoch = n.boot))
"""


@dataclass(frozen=True, slots=True)
class _Sealed:
    """A column of encrypted texts. `purpose`: what they are encrypted for, by the row's key."""

    table: str
    key: str
    column: str
    purpose: str


_PHONES = _Sealed("users", "id", "phone_encrypted", PHONE)
_SECRETS = tuple(
    _Sealed("webhooks", "id", column, "webhook {}") for column in ("secret", "old_secret")
)


class Sealing:
    """Does a few rows at a time; safe from many nodes at once: each skips what another holds."""

    def __init__(self, database: Database, cipher: DataCipher) -> None:
        self._database = database
        self._cipher = cipher

    async def step(self) -> bool:
        """Encrypts some rows; True where there may be more.

        Raises:
            Unavailable: Postgres is away.
        """
        if not self._cipher.is_ready:
            return False
        done = await self._encrypt_plain_phones()
        for sealed in (_PHONES, *_SECRETS):
            done += await self._encrypt_anew(sealed)
        return done > 0

    async def _encrypt_plain_phones(self) -> int:
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"""
                SELECT id, phone FROM users WHERE phone IS NOT NULL AND {_NO_OLDER_NODE}
                ORDER BY id LIMIT {ROWS} FOR UPDATE SKIP LOCKED
                """
            )
            await connection.executemany(
                "UPDATE users SET phone = NULL, phone_encrypted = $2 WHERE id = $1",
                [(row["id"], self._cipher.encrypt(row["phone"], purpose=PHONE)) for row in rows],
            )
        return len(rows)

    async def _encrypt_anew(self, sealed: _Sealed) -> int:
        """What another key than the first has encrypted; what no key can read is left."""
        table, key, column = sealed.table, sealed.key, sealed.column
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"""
                SELECT {key} AS key, {column} AS stored FROM {table}
                WHERE {column} IS NOT NULL AND left({column}, 8) = ANY($1)
                ORDER BY {key} LIMIT {ROWS} FOR UPDATE SKIP LOCKED
                """,
                self._cipher.older_key_ids,
            )
            anew = [(row["key"], self._anew(row, sealed)) for row in rows]
            changed = [(row_key, text) for row_key, text in anew if text is not None]
            await connection.executemany(
                f"UPDATE {table} SET {column} = $2 WHERE {key} = $1", changed
            )
        return len(changed)

    def _anew(self, row: Any, sealed: _Sealed) -> str | None:
        purpose = sealed.purpose.format(row["key"])
        try:
            text = self._cipher.decrypt(row["stored"], purpose=purpose)
        except CannotDecrypt:
            return None
        return self._cipher.encrypt(text, purpose=purpose)

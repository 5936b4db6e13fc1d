"""The pictures of mini-program codes: the table `qr_images`.

They stand in Postgres, not in a folder, so that every node serves what any node has made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coordinator.store.database import Database


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A picture and its public file name, which nobody can guess."""

    name: str
    image: bytes


class Images:
    """Keeps pictures for ever. Every method raises `Unavailable` where Postgres is away."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def by_digest(self, digest: str) -> StoredImage | None:
        """The picture of an order that was carried out before."""
        return _stored(
            await self.database.fetchrow(
                "SELECT name, image FROM qr_images WHERE digest = $1", digest
            )
        )

    async def by_name(self, name: str) -> StoredImage | None:
        """The picture behind a file name."""
        return _stored(
            await self.database.fetchrow("SELECT name, image FROM qr_images WHERE name = $1", name)
        )

    async def keep(self, digest: str, name: str, image: bytes) -> StoredImage:
        """Stores a picture; where another request was faster, its picture is the answer."""
        return _kept(
            await self.database.fetchrow(
                """
                INSERT INTO qr_images (digest, name, image) VALUES ($1, $2, $3)
                ON CONFLICT (digest) DO UPDATE SET digest = excluded.digest
                RETURNING name, image
                """,
                digest,
                name,
                image,
            )
        )


def _stored(row: Any) -> StoredImage | None:
    return _kept(row) if row is not None else None


def _kept(row: Any) -> StoredImage:
    return StoredImage(row["name"], row["image"])

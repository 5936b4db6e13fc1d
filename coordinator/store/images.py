"""The pictures of mini-program codes: the table `qr_images`.

They stand in Postgres, not in a folder, so that every node serves what any node has made.
"""

from __future__ import annotations

from dataclasses import dataclass

from piccolo.columns.combination import Where

from coordinator.store.database import Database
from coordinator.store.tables import QrImages

_SHOWN = (QrImages.name, QrImages.image)


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
        return await self._one(QrImages.digest == digest)

    async def by_name(self, name: str) -> StoredImage | None:
        """The picture behind a file name."""
        return await self._one(QrImages.name == name)

    async def _one(self, condition: Where) -> StoredImage | None:
        rows = await self.database.run(QrImages.select(*_SHOWN).where(condition))
        return StoredImage(**rows[0]) if rows else None

    async def keep(self, digest: str, name: str, image: bytes) -> StoredImage:
        """Stores a picture; where another request was faster, its picture is the answer."""
        adding = QrImages.insert(QrImages(digest=digest, name=name, image=image))
        # DO UPDATE rather than DO NOTHING: it returns the row that was there.
        same = [(QrImages.digest, digest)]
        rows = await self.database.run(
            adding.on_conflict(QrImages.digest, action="DO UPDATE", values=same).returning(*_SHOWN)
        )
        return StoredImage(**rows[0])

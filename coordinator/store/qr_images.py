"""The pictures of mini-program codes: the table `qr_images`.

They stand in Postgres, not in a folder, so that every node serves what any node has made. One that
nobody has asked for in 90 days goes; the same order then makes it anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from piccolo.columns.combination import Where
from piccolo.querystring import QueryString

from coordinator.store.database import Database
from coordinator.store.engine import NOW
from coordinator.store.tables import QrImages

KEEP = timedelta(days=90)
ROWS = 200
"""Pictures that one step deletes at most."""

_SHOWN = (QrImages.name, QrImages.image)
_WAS_LONG_AGO = QueryString("asked_at < clock_timestamp() - interval '1 day'", alias="was_long_ago")
# SQL by hand: SKIP LOCKED inside a DELETE.
_DELETE = f"""
    DELETE FROM qr_images WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM qr_images WHERE asked_at < (SELECT clock_timestamp()) - $1::interval
        LIMIT {ROWS} FOR UPDATE SKIP LOCKED))
"""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A picture and its public file name, which nobody can guess."""

    name: str
    image: bytes


class Images:
    """Keeps pictures. Every method raises `Unavailable` where Postgres is away."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def by_digest(self, digest: str) -> StoredImage | None:
        """The picture of an order that was carried out before."""
        return await self._one(QrImages.digest == digest)

    async def by_name(self, name: str) -> StoredImage | None:
        """The picture behind a file name."""
        return await self._one(QrImages.name == name)

    async def _one(self, wanted: Where) -> StoredImage | None:
        rows = await self.database.run(QrImages.select(*_SHOWN, _WAS_LONG_AGO).where(wanted))
        if not rows:
            return None
        if rows[0]["was_long_ago"]:  # written once a day at most
            await self.database.run(QrImages.update({QrImages.asked_at: NOW}).where(wanted))
        return StoredImage(rows[0]["name"], rows[0]["image"])

    async def step(self) -> bool:
        """Deletes some of what nobody has asked for in `KEEP`; True where there may be more."""
        tag = await self.database.execute(_DELETE, KEEP)
        return int(tag.split()[-1]) == ROWS

    async def keep(self, digest: str, name: str, image: bytes) -> StoredImage:
        """Stores a picture; where another request was faster, its picture is the answer."""
        adding = QrImages.insert(QrImages(digest=digest, name=name, image=image))
        # DO UPDATE rather than DO NOTHING: it returns the row that was there.
        same = [(QrImages.digest, digest)]
        rows = await self.database.run(
            adding.on_conflict(QrImages.digest, action="DO UPDATE", values=same).returning(*_SHOWN)
        )
        return StoredImage(**rows[0])

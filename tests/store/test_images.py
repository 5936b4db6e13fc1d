"""Pictures of codes: kept while somebody asks for them."""

from __future__ import annotations

import secrets

import pytest_asyncio

from coordinator.store.database import Database
from coordinator.store.qr_images import Images


@pytest_asyncio.fixture
async def images(database: Database) -> Images:
    return Images(database)


async def picture(images: Images, *, asked_for: str) -> tuple[str, str]:
    """A stored picture that was asked for so long ago: its digest and name."""
    digest, name = secrets.token_hex(32), secrets.token_hex(16) + ".png"
    await images.keep(digest, name, b"png")
    await images.database.execute(
        "UPDATE qr_images SET asked_at = now() - CAST($2::text AS interval) WHERE name = $1",
        name, asked_for,
    )  # fmt: skip
    return digest, name


async def test_a_picture_that_nobody_asked_for_in_90_days_goes(images: Images) -> None:
    _, old = await picture(images, asked_for="91 days")
    _, wanted = await picture(images, asked_for="89 days")
    while await images.step():
        pass
    assert await images.by_name(old) is None
    assert await images.by_name(wanted) is not None


async def test_asking_for_a_picture_keeps_it(images: Images) -> None:
    for_digest, _ = await picture(images, asked_for="91 days")
    _, for_name = await picture(images, asked_for="91 days")
    assert await images.by_digest(for_digest) is not None
    assert await images.by_name(for_name) is not None
    while await images.step():
        pass
    assert await images.by_digest(for_digest) is not None
    assert await images.by_name(for_name) is not None

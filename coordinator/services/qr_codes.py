"""Mini-program codes: pictures that open a page of the mini-program, made once, kept for ever."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

import msgspec

from coordinator.domain.errors import NotFound
from coordinator.domain.people import Staff
from coordinator.platforms.wechat import CodeOrder, WeChat
from coordinator.platforms.wechat_exchange import image_type
from coordinator.services.rooms import RoomService
from coordinator.store.qr_images import Images, StoredImage

_ROOM_IN_SCENE = re.compile(r"(?<![A-Za-z0-9_-])roomId=([^&;,#?/]*)")
_NAME = re.compile(r"[A-Za-z0-9_-]{22}\.(png|jpg)")


@dataclass(frozen=True, slots=True)
class Codes:
    """Makes codes, or finds those that it has made."""

    wechat: WeChat
    images: Images
    rooms: RoomService

    async def order(self, staff: Staff, order: CodeOrder) -> StoredImage:
        """The picture for an order. The same order again is answered without asking WeChat.

        Raises:
            RoomNotFound: the scene names a room that does not exist.
            Forbidden: it names one that is not the caller's.
            InvalidParams: WeChat does not accept the order.
            RateLimited, Unavailable: WeChat says so, or is away.
        """
        self.wechat.require_settings()
        for room_id in rooms_named(order.scene):
            await self.rooms.require_host(room_id, staff)
        digest = digest_of(order, self.wechat.source)
        if (stored := await self.images.by_digest(digest)) is not None:
            return stored
        image = await self.wechat.code_image(order)
        name = f"{secrets.token_urlsafe(16)}.{image_type(image)}"
        return await self.images.keep(digest, name, image)

    async def image(self, name: str) -> bytes:
        """The picture behind a file name.

        Raises:
            NotFound: there is none.
        """
        stored = await self.images.by_name(name) if _NAME.fullmatch(name) else None
        if stored is None:
            raise NotFound
        return stored.image


def rooms_named(scene: str) -> list[str]:
    """Every room that a scene names: `roomId=a`, also among others as in `from=b&roomId=a`."""
    return _ROOM_IN_SCENE.findall(scene)


def digest_of(order: CodeOrder, source: str) -> str:
    """Stands for an order at one application of one server, and for nothing else."""
    return hashlib.sha256(msgspec.json.encode([source, order.body()], order="sorted")).hexdigest()

"""No address fills a room with guests who never come: `UNCONNECTED_PER_ADDRESS`.

A guest who joins over REST has a seat before it connects, and one who never connects keeps it. So
an address may hold only so many such seats of a room; who connects, leaves or is put out frees one.
The database keeps no address, but a digest of it under `JWT_SECRET` and the room.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable

from coordinator.domain.errors import RateLimited
from coordinator.store.room_writer.commands import Joined
from coordinator.store.unconnected_seats import UnconnectedSeats

RETRY_SECONDS = 60
_LOCKS = 64


class SeatLimit:
    """Counts the seats of an address in a room.

    On one node the count is exact. Of joins that come to several nodes in the same moment each may
    find the last seat free: then there are a few too many, at most one more per other node.

    Args:
        most: unconnected seats of one address in one room; 0 = any number.
        secret: of this deployment.
    """

    def __init__(self, seats: UnconnectedSeats, most: int, secret: str) -> None:
        self._seats = seats
        self._most = most
        self._secret = secret.encode()
        self._locks = [asyncio.Lock() for _ in range(_LOCKS)]

    @property
    def is_on(self) -> bool:
        """False where seats are not counted."""
        return self._most > 0

    async def admit(
        self, room_id: str, address: str, join: Callable[[], Awaitable[Joined]]
    ) -> Joined:
        """Lets a guest from this address join, where the address has a seat left.

        Raises:
            RateLimited: the address has its seats.
            Unavailable: Postgres is away.
            whatever `join` raises.
        """
        if not self._most:
            return await join()
        joined_from = self._digest(room_id, address)
        async with self._locks[hash(joined_from) % _LOCKS]:
            if await self._seats.unconnected(room_id, joined_from) >= self._most:
                raise RateLimited("该网络地址未连接的访客过多", retry_after=RETRY_SECONDS)
            joined = await join()
            await self._seats.note(room_id, joined.user_id, joined_from)
            return joined

    def _digest(self, room_id: str, address: str) -> str:
        text = f"seat:{room_id}:{address}".encode()
        return hmac.digest(self._secret, text, "sha256")[:16].hex()

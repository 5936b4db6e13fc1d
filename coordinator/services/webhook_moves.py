"""Positions of a webhook are moved: by a replay, a retry, another URL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from coordinator.domain.errors import Unavailable
from coordinator.services import webhook_refusals as refusals
from coordinator.store.webhooks import Endpoints

LEASE = timedelta(minutes=2)
TRIES = 5

Move = Callable[[], Awaitable[int | None]]
"""Moves positions, and may be called again. Returns how many, where somebody wants to know."""


class WebhookMoves:
    """Lets positions be moved while nobody sends.

    Args:
        on_change: called when somebody may send again.
    """

    def __init__(self, endpoints: Endpoints, on_change: Callable[[], None]) -> None:
        self._endpoints = endpoints
        self._on_change = on_change

    async def carry_out(self, endpoint_id: str, move: Move) -> int:
        """Moves them, and returns how many; a sender then begins from what is stored.

        A change of the webhook meanwhile lets a sender begin too early, which writes its own
        positions over these: then they are moved again.

        Raises:
            NotFound: there is no such webhook.
            Unavailable: that happened each time, or Postgres is away.
        """
        moved = 0
        for _ in range(TRIES):
            held = await self._endpoints.seize(endpoint_id, "operator", LEASE)
            if held is None:
                raise refusals.no_such_webhook()
            try:
                moved = max(moved, await move() or 0)
            finally:
                is_whole = await self._endpoints.release(endpoint_id, held.generation)
                self._on_change()
            if is_whole:
                return moved
        raise Unavailable(retry_after=1)

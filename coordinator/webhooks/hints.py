"""Hints between nodes: which log has got how far. Redis pub/sub, and nothing depends on it.

A node that commits while there are webhooks publishes the heads of the logs that it changed, at
most every 50 ms; nodes that send to a webhook listen. What gets lost is found by the senders'
scans. A hint says only where to look: what is sent is read from the log.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import msgspec
import structlog

from coordinator.domain.events import Event, FeedKey
from coordinator.redis import AWAY, RedisClient

log = structlog.get_logger()

PACE_SECONDS = 0.05
RETRY_SECONDS = 1.0
LISTEN_SECONDS = 5.0
WAITING = 20_000
PER_MESSAGE = 500

CHANGED = b"[]"
"""No heads at all: a webhook was changed."""

_Heads = list[tuple[str, str, int]]
_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(_Heads)


class Hints:
    """This node's end of the hints. Nothing here raises because Redis is away.

    Args:
        redis: an impatient one; its owner closes it.
        channel: this deployment's.
        on_hint: hears of each; must not block or raise.
        on_change: hears that a webhook was changed.
    """

    def __init__(
        self,
        redis: RedisClient,
        channel: str,
        on_hint: Callable[[FeedKey, int], None],
        on_change: Callable[[], None],
    ) -> None:
        self._redis = redis
        self._channel = channel
        self._on_hint = on_hint
        self._on_change = on_change
        self._has_changed = False
        self._heads: dict[FeedKey, int] = {}
        self._filled = asyncio.Event()

    def note(self, events: Sequence[Event]) -> None:
        """Events that this node has committed."""
        if len(self._heads) < WAITING:
            for event in events:
                self._heads[event.feed] = event.seq
            self._filled.set()

    def tell_change(self) -> None:
        """A webhook was changed: those who send look at it at once."""
        self._has_changed = True
        self._filled.set()

    async def publish(self) -> None:
        """Publishes what has gathered, until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            heads, self._heads = self._heads, {}
            rows = [(*key, seq) for key, seq in heads.items()]
            has_changed, self._has_changed = self._has_changed, False
            try:
                if has_changed:
                    await self._redis.publish(self._channel, CHANGED)
                for start in range(0, len(rows), PER_MESSAGE):
                    await self._redis.publish(
                        self._channel, _encode(rows[start : start + PER_MESSAGE])
                    )
            except AWAY:
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(PACE_SECONDS)

    async def listen(self) -> None:
        """Takes in what the nodes publish, until cancelled; connects anew where that fails."""
        while True:
            try:
                await self._session()
            except AWAY:
                pass  # the bus says so, in one place
            except Exception as error:
                log.error("webhook_hints_failed", exc_info=error)
            await asyncio.sleep(RETRY_SECONDS * random.uniform(0.6, 1.2))

    async def _session(self) -> None:
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
        try:
            await pubsub.subscribe(self._channel)
            while True:
                message = await pubsub.get_message(timeout=LISTEN_SECONDS)
                if message is not None:
                    self._take(message["data"])
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    def _take(self, data: bytes) -> None:
        try:
            heads = _decoder.decode(data)
        except msgspec.MsgspecError:
            log.warning("webhook_hint_not_understood", size=len(data))
            return
        if not heads:
            self._on_change()
        for kind, feed_id, seq in heads:
            self._on_hint(FeedKey(kind, feed_id), seq)

"""Which endpoints this node sends to: it takes the leases that nobody holds, and keeps them.

Every node looks every two seconds whether there are webhooks at all. Where there are none, that
look is all that they cost. Where there are, each endpoint has one sender in the deployment
(`endpoint.py`). It hears of other nodes' commits by the bus: of their events, or, where these are
spread over channels that not every node hears, by hints, at most every 100 ms: the first at once,
what comes soon after in the next. Both say only where to look.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Sequence

import structlog

from coordinator.data_cipher import CannotDecrypt, DataCipher
from coordinator.domain.errors import Unavailable
from coordinator.domain.events import Event, FeedKey
from coordinator.live.lease import Lease
from coordinator.live.pubsub import Bus
from coordinator.store.webhooks import Endpoint, EndpointLeaseLost
from coordinator.webhooks.endpoint import LEASE, EndpointSender, SenderParts

log = structlog.get_logger()

LOOK_SECONDS = 2.0
DRAIN_SECONDS = 1.5
HINT_SECONDS = 0.1
"""The shortest time between two hints. Each costs the node that commits an eighth of a join's
instructions; on a busy node many events share one."""
PER_MESSAGE = 500
MOST_HEADS = 20_000
"""Heads that wait to be hinted at; what is beyond is found by the scans."""


class WebhookSender:
    """This node's share of the sending.

    Args:
        bus: tells what other nodes commit, and tells them.
        lease: this node's, whose epoch is the holder of endpoints.
    """

    def __init__(
        self, parts: SenderParts, cipher: DataCipher, bus: Bus, lease: Lease
    ) -> None:
        self.parts = parts
        self.cipher = cipher
        self._lease = lease
        self._bus = bus
        self._heads: dict[FeedKey, int] = {}
        self._hinting: asyncio.TimerHandle | None = None
        """Set from a hint on for as long as the next one has to wait."""
        self._senders: dict[str, EndpointSender] = {}
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._look_now = asyncio.Event()
        self._unreadable: set[str] = set()
        self._is_stopping = False
        self.is_wanted = False
        """There are webhooks: commits are to be told of."""
        self._others_send = True
        """Another node, or none yet, sends to at least one of the webhooks."""

    def note(self, events: Sequence[Event]) -> None:
        """This node has committed these. Never blocks; nothing where there are no webhooks."""
        if not self.is_wanted:
            return
        if self._others_send and self._bus.needs_hints and len(self._heads) < MOST_HEADS:
            self._heads.update((event.feed, event.seq) for event in events)
            if self._hinting is None:
                self._hint()
        self.hear((event.feed, event.seq) for event in events)

    def hear(self, heads: Iterable[tuple[FeedKey, int]]) -> None:
        """These logs have events at least up to these seqs."""
        if not self._senders:
            return
        for feed, seq in heads:
            for sender in self._senders.values():
                sender.hear(feed, seq)

    def look_now(self) -> None:
        """Somebody has added or changed a webhook: here, or where a hint came from."""
        self._look_now.set()

    def tell_change(self) -> None:
        """A webhook was added or changed by this node: whoever sends to it looks at once."""
        self.look_now()
        self._bus.hint(())

    async def run(self) -> None:
        """Takes and keeps leases until cancelled. Survives every error."""
        try:
            while True:
                try:
                    await self._look()
                except Unavailable:
                    pass  # the node's lease says so, in one place
                except Exception as error:
                    log.error("webhooks_failed", exc_info=error)
                self._look_now.clear()
                try:
                    async with asyncio.timeout(LOOK_SECONDS * random.uniform(0.8, 1.2)):
                        await self._look_now.wait()
                except TimeoutError:
                    pass
        finally:
            if self._hinting is not None:
                self._hinting.cancel()
                self._hinting = None

    def _hint(self) -> None:
        """Tells the other nodes, many events in one message, how far logs have got."""
        self._hinting = None
        if not self._heads:
            return
        heads, self._heads = list(self._heads.items()), {}
        for start in range(0, len(heads), PER_MESSAGE):
            self._bus.hint(heads[start : start + PER_MESSAGE])
        self._hinting = asyncio.get_running_loop().call_later(HINT_SECONDS, self._hint)

    async def _look(self) -> None:
        enabled = await self.parts.endpoints.enabled()
        self.is_wanted = bool(enabled)
        for endpoint_id, sender in list(self._senders.items()):
            lease = enabled.get(endpoint_id)
            if lease is None or lease.generation != sender.endpoint.generation:
                sender.lose()
        for endpoint_id, lease in enabled.items():
            if lease.is_free and endpoint_id not in self._runs and not self._is_stopping:
                await self._take(endpoint_id)
        self._others_send = not enabled.keys() <= self._senders.keys()
        if self._senders:
            await self._bus.hear_hints()

    async def _take(self, endpoint_id: str) -> None:
        asked_at = time.monotonic()
        endpoint = await self.parts.endpoints.take(endpoint_id, self._lease.node_epoch, LEASE)
        if endpoint is None:
            return
        try:
            secrets = valid_secrets(self.cipher, endpoint)
        except CannotDecrypt as error:
            await self.parts.endpoints.release(endpoint_id, endpoint.generation)
            if endpoint_id not in self._unreadable:
                self._unreadable.add(endpoint_id)
                log.error("webhook_secret_unreadable", endpoint=endpoint.name, reason=str(error))
            return
        sender = EndpointSender(self.parts, endpoint, taken_at=asked_at, secrets=secrets)
        self._senders[endpoint_id] = sender
        self._runs[endpoint_id] = asyncio.create_task(self._run_one(endpoint_id, sender))

    async def _run_one(self, endpoint_id: str, sender: EndpointSender) -> None:
        name = sender.endpoint.name
        log.info("webhook_taken", endpoint=name, generation=sender.endpoint.generation)
        try:
            await sender.run()
        except EndpointLeaseLost:
            log.info("webhook_lease_ended", endpoint=name)
        except Exception as error:
            log.error("webhook_sender_failed", endpoint=name, exc_info=error)
            await asyncio.sleep(LOOK_SECONDS)
        finally:
            del self._senders[endpoint_id], self._runs[endpoint_id]
            self._others_send = True
            self._look_now.set()

    async def stop(self) -> None:
        """Ends in order: what is under way is answered and noted, the leases are given back.

        Idempotent.
        """
        self._is_stopping = True
        running = [(sender, self._runs[key]) for key, sender in self._senders.items()]
        await asyncio.gather(*(self._stop_one(*each) for each in running))

    async def _stop_one(self, sender: EndpointSender, run: asyncio.Task[None]) -> None:
        await sender.drain(DRAIN_SECONDS)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await sender.finish()


def valid_secrets(cipher: DataCipher, endpoint: Endpoint) -> list[str]:
    """The endpoint's secret, and for a day after it was changed the one before.

    Raises:
        CannotDecrypt
    """
    purpose = secret_purpose(endpoint.id)
    secrets = [cipher.decrypt(endpoint.secret, purpose=purpose)]
    until = endpoint.old_secret_until
    if endpoint.old_secret is not None and until is not None and until > endpoint.now:
        secrets.append(cipher.decrypt(endpoint.old_secret, purpose=purpose))
    return secrets


def secret_purpose(endpoint_id: str) -> str:
    """What a secret of this endpoint is encrypted for (`DataCipher`)."""
    return f"webhook {endpoint_id}"

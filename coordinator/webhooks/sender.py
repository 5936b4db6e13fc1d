"""Which endpoints this node sends to: it takes the leases that nobody holds, and keeps them.

Every node looks every two seconds whether there are webhooks at all. Where there are none, that
look is all that they cost. Where there are, commits are hinted at (`hints.py`), and each endpoint
has one sender in the deployment (`endpoint.py`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import structlog

from coordinator.data_cipher import CannotDecrypt, DataCipher
from coordinator.domain.errors import Unavailable
from coordinator.domain.events import Event, FeedKey
from coordinator.live.lease import Lease
from coordinator.redis import RedisClient
from coordinator.store.webhooks import Endpoint
from coordinator.webhooks.endpoint import LEASE, EndpointSender, LeaseLost, SenderParts
from coordinator.webhooks.hints import Hints

log = structlog.get_logger()

LOOK_SECONDS = 2.0
DRAIN_SECONDS = 2.0


class WebhookSender:
    """This node's share of the sending.

    Args:
        redis: an impatient one; its owner closes it.
        lease: this node's, whose epoch is the holder of endpoints.
    """

    def __init__(
        self, parts: SenderParts, cipher: DataCipher, redis: RedisClient, *, deployment: str,
        lease: Lease,
    ) -> None:  # fmt: skip
        self.parts = parts
        self.cipher = cipher
        self._lease = lease
        self._hints = Hints(redis, hints_channel(deployment), self._hear, self.look_now)
        self._senders: dict[str, EndpointSender] = {}
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._listener: asyncio.Task[None] | None = None
        self._look_now = asyncio.Event()
        self._unreadable: set[str] = set()
        self._is_stopping = False
        self.is_wanted = False
        """There are webhooks: commits are to be told of."""
        self._others_send = True
        """To one of them another node sends, or nobody yet."""

    def note(self, events: Sequence[Event]) -> None:
        """This node has committed these. Never blocks; nothing where there are no webhooks."""
        if not self.is_wanted:
            return
        if self._others_send:
            self._hints.note(events)
        for sender in self._senders.values():
            for event in events:
                sender.hear(event.feed, event.seq)

    def _hear(self, key: FeedKey, seq: int) -> None:
        for sender in self._senders.values():
            sender.hear(key, seq)

    def look_now(self) -> None:
        """Somebody has added or changed a webhook: here, or where a hint came from."""
        self._look_now.set()

    def tell_change(self) -> None:
        """A webhook was added or changed by this node: whoever sends to it looks at once."""
        self.look_now()
        self._hints.tell_change()

    async def run(self) -> None:
        """Takes and keeps leases until cancelled. Survives every error."""
        publishing = asyncio.create_task(self._hints.publish())
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
            publishing.cancel()

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
        self._listen_where_needed()

    async def _take(self, endpoint_id: str) -> None:
        asked_at = time.monotonic()
        endpoint = await self.parts.endpoints.take(endpoint_id, self._lease.node_epoch, LEASE)
        if endpoint is None:
            return
        try:
            secrets = self._secrets(endpoint)
        except CannotDecrypt as error:
            await self.parts.endpoints.release(endpoint_id, endpoint.generation)
            if endpoint_id not in self._unreadable:
                self._unreadable.add(endpoint_id)
                log.error("webhook_secret_unreadable", endpoint=endpoint.name, reason=str(error))
            return
        sender = EndpointSender(self.parts, endpoint, taken_at=asked_at, secrets=secrets)
        self._senders[endpoint_id] = sender
        self._runs[endpoint_id] = asyncio.create_task(self._run_one(endpoint_id, sender))

    def _secrets(self, endpoint: Endpoint) -> list[str]:
        """Those that are valid now."""
        purpose = secret_purpose(endpoint.id)
        secrets = [self.cipher.decrypt(endpoint.secret, purpose=purpose)]
        until = endpoint.old_secret_until
        if endpoint.old_secret is not None and until is not None and until > endpoint.now:
            secrets.append(self.cipher.decrypt(endpoint.old_secret, purpose=purpose))
        return secrets

    async def _run_one(self, endpoint_id: str, sender: EndpointSender) -> None:
        name = sender.endpoint.name
        log.info("webhook_taken", endpoint=name, generation=sender.endpoint.generation)
        try:
            await sender.run()
        except LeaseLost:
            log.info("webhook_lease_ended", endpoint=name)
        except Exception as error:
            log.error("webhook_sender_failed", endpoint=name, exc_info=error)
            await asyncio.sleep(LOOK_SECONDS)
        finally:
            del self._senders[endpoint_id], self._runs[endpoint_id]
            self._others_send = True
            self._look_now.set()

    def _listen_where_needed(self) -> None:
        """Hints of other nodes are for those who send."""
        if self._runs and self._listener is None:
            self._listener = asyncio.create_task(self._hints.listen())
        elif not self._runs and self._listener is not None:
            self._listener.cancel()
            self._listener = None

    async def stop(self) -> None:
        """Ends in order: what is under way is answered and noted, the leases are given back."""
        self._is_stopping = True
        if self._listener is not None:
            self._listener.cancel()
        await asyncio.gather(*(self._stop_one(i) for i in list(self._senders)))

    async def _stop_one(self, endpoint_id: str) -> None:
        sender, run = self._senders[endpoint_id], self._runs[endpoint_id]
        await sender.drain(DRAIN_SECONDS)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await sender.finish()


def hints_channel(deployment: str) -> str:
    """The channel of this deployment's hints."""
    return f"{deployment}:webhooks"


def secret_purpose(endpoint_id: str) -> str:
    """What a secret of this endpoint is encrypted for (`DataCipher`)."""
    return f"webhook {endpoint_id}"

"""The bus: Redis pub/sub between the nodes of one deployment. A doorbell, nothing more.

    …:feeds:{n}      events; a feed's channel follows from its hash, and is heard while it is open
    …:control        requests to close sessions, wherever they are
    …:beacon:{n}     the judge's word, every second, on each server
    …:echo:{n}:…     a node to itself, on each server

What is lost is found in the log by the hub's poll. When Redis counts as up: `bus_health.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

import structlog

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.events import Event, FeedKey
from coordinator.live import legacy_bus
from coordinator.live.bus_audience import Feeds, Senders, Sessions
from coordinator.live.bus_channels import FeedChannels
from coordinator.live.bus_health import BEACON_SECONDS, BusHealth
from coordinator.live.bus_link import BusLink
from coordinator.live.bus_links import BusLinks
from coordinator.live.bus_messages import (
    Batch,
    Beacon,
    Close,
    Hints,
    Ignored,
    Message,
    ReplayGuard,
    Signer,
    WireEvent,
)
from coordinator.live.judge import Judge
from coordinator.live.known_nodes import KnownNodes
from coordinator.live.lease import Lease
from coordinator.metrics import BUS_IGNORED
from coordinator.redis_url import parse_redis_url
from coordinator.store.epochs import Epochs

log = structlog.get_logger()

PACE_SECONDS = 0.005
"""From one message of events to the next: under load they carry more, and cost the same."""
OUTBOX = 20_000
PER_MESSAGE = 500
SWEEP_SECONDS = 30.0
LOOK_SECONDS = 0.2
"""How often at most an unsigned message makes this node look into the log."""


class Bus:
    """This node's end of the bus. Nothing here raises because Redis is away.

    Args:
        url: `REDIS_URL`, of any kind.
        prefix: the deployment's; others may share the Redis.
        jwt_secrets: what messages are signed with.

    Raises:
        UrlError: `url` cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        jwt_secrets: Sequence[str],
        lease: Lease,
        judge: Judge,
        known: KnownNodes,
        epochs: Epochs,
    ) -> None:
        target = parse_redis_url(url)
        self.links = BusLinks(target, prefix, on_message=self._take, on_change=self._look_at_links)
        self._channels = FeedChannels(prefix)
        self._lease = lease
        self._known = known
        self._epochs = epochs
        self._signer = Signer(jwt_secrets)
        self._replays = ReplayGuard()
        self._counter = itertools.count()
        self._feeds: Feeds | None = None
        self._sessions: Sessions | None = None
        self._senders: Senders | None = None
        self._control = f"{prefix}:control".encode()
        self._hints = f"{prefix}:webhooks".encode()
        self._legacy = legacy_bus.channel(prefix)
        self.links.wanted.add(self._control)
        if target.kind != "cluster":  # the version before knew none
            self.links.wanted.add(self._legacy)
        self._pending: dict[bytes, list[WireEvent]] = {}
        self._pending_count = 0
        self._pending_since = 0.0
        self._may_send_at = 0.0
        """The loop's time of the next message of events."""
        self._sending_later: asyncio.TimerHandle | None = None
        self._widened = asyncio.Event()
        self._looked_at = self._doubted_at = float("-inf")
        self._ignored: set[str] = set()
        self.health = BusHealth(lease, judge, self.links.all, self._health_changed)

    def spread_over(self, channels: int) -> None:
        """Over how many channels this node spreads feeds. Before the lease is taken, and `run`."""
        self._lease.channels = channels
        self._channels.spread(channels, set())
        self.links.wanted |= self._channels.used(())

    @property
    def needs_hints(self) -> bool:
        """True where a node does not hear of every event: who tells webhooks needs hints."""
        return max(self._channels.spreads) > 1

    def is_down(self) -> bool:
        """True while some server does not carry the bus (`bus_health.py`)."""
        return not self.health.is_up

    @property
    def waiting(self) -> int:
        """Events that are not published yet."""
        return self._pending_count

    # -- publishing ---------------------------------------------------------------------------

    def publish(self, events: Sequence[Event], committed: float) -> None:
        """Announces a committed batch in this turn of the loop, or soon where another was announced
        a moment ago; lost where Redis is away.
        """
        if not self.links.by_server or self._pending_count > OUTBOX:
            return
        if not self._pending:
            self._pending_since = committed
        for event in events:
            wire = legacy_bus.wire(event)
            for channel in self._told_on(event.feed):
                self._pending.setdefault(channel, []).append(wire)
        self._pending_count += len(events)
        if self._sending_later is None:
            self._send_soon()

    def _told_on(self, feed: FeedKey) -> frozenset[bytes]:
        """The feed's channels; nodes of version 1.0 have one for all, and are told once."""
        channels = self._channels.of(feed)
        return channels | {self._legacy} if self._known.older else channels

    def close_sessions(self, sessions: Sequence[str], code: CloseCode) -> None:
        """Asks whichever node has these sessions to close them; lost where Redis is away."""
        told = list(sessions)
        message = Close(self._epochs.current, self._me, next(self._counter), code, told)
        self._say(self._control, message)
        if self._known.older:
            self._publish(self._legacy, legacy_bus.close(self._me, code, told))

    def hint(self, heads: Sequence[tuple[FeedKey, int]]) -> None:
        """Tells those who send to webhooks how far logs have got; lost where Redis is away.

        None at all: a webhook was added or changed.
        """
        rows = [(*feed, seq) for feed, seq in heads]
        message = Hints(self._epochs.current, self._me, next(self._counter), rows)
        self._say(self._hints, message)

    async def hear_hints(self) -> None:
        """From now on this node hears hints, too."""
        if self._hints not in self.links.wanted:
            await self.links.listen({self._hints})

    @property
    def _me(self) -> str:
        return self._lease.node_epoch

    def _say(self, channel: bytes, message: Message) -> None:
        self._publish(channel, self._signer.seal(channel, message))

    def _publish(self, channel: bytes, data: bytes) -> None:
        link = self.links.of(channel)
        if link is not None:
            link.publish((channel, data))

    def _send_soon(self) -> None:
        """Publishes what has gathered: at once, unless the last message was a moment ago."""
        loop = asyncio.get_running_loop()
        wait = self._may_send_at - loop.time()
        if wait > 0:
            self._sending_later = loop.call_later(wait, self._send)
        else:
            self._send()

    def _send(self) -> None:
        """Publishes what has gathered: many events in one message, all messages in one write."""
        self._sending_later = None
        self._may_send_at = asyncio.get_running_loop().time() + PACE_SECONDS
        pending, self._pending, self._pending_count = self._pending, {}, 0
        by_link: dict[BusLink, list[tuple[bytes, bytes]]] = {}
        for channel, events in pending.items():
            link = self.links.of(channel)
            if link is None:
                continue
            for start in range(0, len(events), PER_MESSAGE):
                message = self._batch(channel, events[start : start + PER_MESSAGE])
                by_link.setdefault(link, []).append((channel, message))
        for link, messages in by_link.items():
            link.publish(*messages)

    def _batch(self, channel: bytes, events: list[WireEvent]) -> bytes:
        since = self._pending_since
        if channel == self._legacy:
            return legacy_bus.batch(self._me, since, events)
        counter = next(self._counter)
        return self._signer.seal(
            channel, Batch(self._epochs.current, self._me, counter, since, events)
        )

    # -- receiving ----------------------------------------------------------------------------

    async def listen(self, feed: FeedKey) -> None:
        """Hears a feed's events from when this returns; polls find what was published before.

        Where the channel's server is away, events are heard from the server's return on.
        """
        await self.links.listen(self._channels.of(feed))

    def _nodes_changed(self) -> None:
        """A node has come. Where it spreads feeds over another number of channels, this node tells
        and hears feeds in both ways from now on.
        """
        if self._channels.spread(self._lease.channels, self._known.spreads):
            log.info("bus_spreads", channels=list(self._channels.spreads))
            self._widened.set()
        if self._feeds is not None:
            self._feeds.poll_now()

    async def _widen(self) -> None:
        """Hears open feeds in a way that was not known when they opened."""
        while True:
            await self._widened.wait()
            self._widened.clear()
            await self.links.listen(self._used())
            self._nodes_changed()

    def _used(self) -> set[bytes]:
        return self._channels.used(self._feeds.open_keys() if self._feeds is not None else ())

    def _take(self, channel: bytes, data: bytes) -> None:
        if self._signer.is_own(data):
            return  # this node's hub got these events at the commit
        try:
            if channel == self._legacy:
                self._take_unsigned(legacy_bus.sender(data))
            else:
                self._take_message(channel, self._signer.open(channel, data))
        except Ignored as reason:
            self._ignore(str(reason))
        except Exception as error:  # one bad message costs one message
            log.error("bus_message_failed", exc_info=error)

    def _take_message(self, channel: bytes, message: Message) -> None:
        if message.node_epoch == self._me and not isinstance(message, Beacon):
            return
        if message.epoch != self._epochs.current:
            self._doubt_epoch(message.node_epoch)
            raise Ignored("epoch")
        if message.node_epoch != self._me and not self._known.knows(message.node_epoch):
            raise Ignored("unknown node")
        self._replays.check(channel, message)
        if isinstance(message, Beacon):
            self.health.take_beacon(channel, message, is_own=message.node_epoch == self._me)
        elif isinstance(message, Batch):
            self._offer(message)
        elif isinstance(message, Hints):
            self._take_hints(message)
        elif self._sessions is not None:
            self._sessions.close_sessions(message.sessions, CloseCode.told(message.code))

    def _doubt_epoch(self, node_epoch: str) -> None:
        """This node may have missed a change of epoch; a clone's messages are no sign of one."""
        now = time.monotonic()
        if node_epoch in self._known.node_epochs and now - self._doubted_at > 1.0:
            self._doubted_at = now
            self._lease.renew_soon()

    def _offer(self, batch: Batch) -> None:
        events = [
            Event(FeedKey(kind, feed_id), seq, type_, at, data, epoch)
            for kind, feed_id, seq, type_, at, data, epoch in batch.events
        ]
        if self._feeds is not None:
            self._feeds.offer(events, batch.committed)
        if self._senders is not None:
            self._senders.hear((event.feed, event.seq) for event in events)

    def _take_hints(self, hints: Hints) -> None:
        if self._senders is None:
            return
        if not hints.heads:
            self._senders.look_now()
        self._senders.hear((FeedKey(kind, feed_id), seq) for kind, feed_id, seq in hints.heads)

    def _take_unsigned(self, sender: str) -> None:
        """A node of version 1.0 has published something: the log has it.

        What nodes of this version publish here, for those of version 1.0, comes signed as well.
        """
        if sender == self._me or (self._known.knows(sender) and sender not in self._known.older):
            return
        if sender not in self._known.older:
            raise Ignored("unsigned")
        if time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._looked_at = time.monotonic()
            if self._feeds is not None:
                self._feeds.poll_now()

    def _ignore(self, reason: str) -> None:
        BUS_IGNORED.labels(reason).inc()
        if reason not in self._ignored:
            self._ignored.add(reason)
            log.warning("bus_message_ignored", reason=reason)

    def _look_at_links(self) -> None:
        self.health.look()
        if self._feeds is not None:
            self._feeds.poll_now()

    def _health_changed(self) -> None:
        if self._feeds is not None:
            self._feeds.poll_now()

    async def _beacon(self) -> None:
        """Publishes the beacons, where this node is the judge."""
        while True:
            if self.health.is_beacon_due():
                self._send_beacons(self.health.verdict)
            self.health.look()
            await asyncio.sleep(BEACON_SECONDS / 4)

    def _send_beacons(self, verdict: bool | None) -> None:
        """One on each server; the judge hears its own beacon as other nodes do."""
        for link in self.links.all():
            message = Beacon(self._epochs.current, self._me, next(self._counter), verdict)
            sealed = self._signer.seal(link.beacon, message, is_for_me=True)
            link.publish((link.beacon, sealed))

    # -- running ------------------------------------------------------------------------------

    async def run(self, feeds: Feeds, sessions: Sessions, senders: Senders) -> None:
        """Keeps the bus connected, until cancelled. Survives every error of Redis."""
        self._feeds, self._sessions, self._senders = feeds, sessions, senders
        await self._known.look()  # before anything is said: how do the others hear?
        self._nodes_changed()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._beacon())
                tasks.create_task(self._sweep())
                tasks.create_task(self._widen())
                tasks.create_task(self._known.run(self._nodes_changed))
                tasks.create_task(self.links.run())
        except* Exception:
            self.health.look()  # it is down until it has been started again
            raise
        finally:
            if self._sending_later is not None:
                self._sending_later.cancel()
                self._sending_later = None

    async def _sweep(self) -> None:
        """Hears no more of channels whose feeds have all been closed for a while."""
        lonely: set[bytes] = set()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._replays.forget_all_but(self._known.node_epochs | {self._me})
            self._channels.spread(self._lease.channels, self._known.spreads)
            unused = self.links.wanted - self._used() - {self._control, self._hints, self._legacy}
            gone, lonely = unused & lonely, unused
            self.links.drop(gone)

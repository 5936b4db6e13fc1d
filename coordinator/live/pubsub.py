"""The bus: Redis pub/sub between the nodes of one deployment. A doorbell, nothing more.

One channel carries everything: each committed batch as one message, requests to close sessions, and
each node's probe. A probe travels the very path of the events, once a second; a node that does not
hear its own for 3 s takes Redis for dead, whatever the TCP connection says (a half-open one says
nothing for ever), and connects anew. What is lost meanwhile is found in the log by the hub's poll.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.events import Event, FeedKey
from coordinator.live.lease import Lease
from coordinator.metrics import REDIS_UP

log = structlog.get_logger()

PROBE_SECONDS = 1.0
DEAD_SECONDS = 3.0
RETRY_SECONDS = 0.5
PACE_SECONDS = 0.005
"""Between two messages of events: under load they carry more, and cost the same."""
OUTBOX = 20_000
PER_MESSAGE = 500

_WireEvent = tuple[str, str, int, str, str, dict[str, Any], str]
"""kind, feed id, seq, type, at, data, epoch"""


class _Batch(msgspec.Struct, array_like=True, tag="e"):
    """Events of one node, with its wall clock at the commit."""

    node_epoch: str
    committed: float
    events: list[_WireEvent]


class _Close(msgspec.Struct, array_like=True, tag="c"):
    """Sessions to close, wherever they are."""

    node_epoch: str
    code: int
    sessions: list[str]


class _Probe(msgspec.Struct, array_like=True, tag="p"):
    """A node's sign of life, and whether it reaches Postgres."""

    node_epoch: str
    sent: float
    reaches_postgres: bool


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(_Batch | _Close | _Probe)

_AWAY = (RedisError, OSError, TimeoutError)


class Feeds(Protocol):
    """The node's feeds, as the bus needs them. Nothing here may block or raise."""

    def offer(self, events: Sequence[Event], committed: float) -> None:
        """Events that another node committed, with its wall clock then."""

    def poll_now(self) -> None:
        """Redis came or went: what no message announced is looked for at once."""


class Sessions(Protocol):
    """The node's live connections, as the bus needs them."""

    def close_sessions(self, session_ids: Sequence[str], code: CloseCode) -> None:
        """Another node asks to close them, wherever they are."""


class Bus:
    """This node's end of the bus. Nothing here raises because Redis is away.

    Args:
        url: `redis://…`
        channel: the deployment's channel; other deployments may share the Redis.
        lease: tells the others, in each probe, whether this node reaches Postgres.
    """

    def __init__(self, url: str, *, channel: str, lease: Lease) -> None:
        self._url = url
        self._channel = channel
        self._lease = lease
        self._id = lease.node_epoch
        """This process's id on the bus: it does not listen to itself."""
        self._feeds: Feeds | None = None
        self._sessions: Sessions | None = None
        self._outbox: list[bytes] = []
        self._pending: list[_WireEvent] = []
        self._pending_since = 0.0
        self._filled = asyncio.Event()
        self._heard_at = 0.0
        self.is_up = False

    def is_down(self) -> bool:
        """True while the bus does not carry this node's own probe."""
        return not self.is_up

    def publish(self, events: Sequence[Event], committed: float) -> None:
        """Announces a committed batch; lost where Redis is away."""
        if not self.is_up:
            return
        if not self._pending:
            self._pending_since = committed
        if len(self._pending) < OUTBOX:
            self._pending += [
                (e.feed.kind, e.feed.id, e.seq, e.type, e.at, dict(e.data), e.epoch) for e in events
            ]
        self._filled.set()

    def close_sessions(self, sessions: Sequence[str], code: CloseCode) -> None:
        """Asks whichever node has these sessions to close them; lost where Redis is away."""
        if self.is_up and len(self._outbox) < OUTBOX:
            self._outbox.append(_encode(_Close(self._id, code, list(sessions))))
            self._filled.set()

    async def run(self, feeds: Feeds, sessions: Sessions) -> None:
        """Keeps the bus connected, until cancelled. Survives every error."""
        self._feeds, self._sessions = feeds, sessions
        while True:
            reason = "closed"
            try:
                await self._session()
            except* _AWAY as errors:
                reason = type(errors.exceptions[0]).__name__
            except* Exception as errors:
                reason = type(errors.exceptions[0]).__name__
                log.error("bus_failed", exc_info=errors)
            self._change(False, reason=reason)
            await asyncio.sleep(RETRY_SECONDS * random.uniform(0.6, 1.2))

    async def _session(self) -> None:
        """One connection to Redis, from subscribing to its death."""
        redis = Redis.from_url(
            self._url, socket_connect_timeout=1.5, socket_timeout=DEAD_SECONDS, retry=None
        )
        pubsub = redis.pubsub(ignore_subscribe_messages=False)
        try:
            async with asyncio.timeout(DEAD_SECONDS):
                await pubsub.subscribe(self._channel)
            self._heard_at = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(pubsub))
                tasks.create_task(self._send(redis))
                tasks.create_task(self._probe(redis))
        finally:
            for part in (pubsub, redis):
                try:
                    async with asyncio.timeout(0.5):
                        await part.aclose()
                except _AWAY:
                    pass

    async def _listen(self, pubsub: PubSub) -> None:
        while True:
            message = await pubsub.get_message(timeout=DEAD_SECONDS)
            if message is not None and message["type"] == "message":
                self._take(message["data"])

    def _take(self, data: bytes) -> None:
        try:
            message = _decoder.decode(data)
        except msgspec.MsgspecError:
            log.warning("bus_message_not_understood", size=len(data))
            return
        if isinstance(message, _Probe):
            self._take_probe(message)
        elif message.node_epoch == self._id:
            pass  # our own echo: the hub has had it since the commit
        elif self._feeds is None or self._sessions is None:
            pass
        elif isinstance(message, _Batch):
            events = [
                Event(FeedKey(kind, feed_id), seq, type_, at, data_, epoch)
                for kind, feed_id, seq, type_, at, data_, epoch in message.events
            ]
            self._feeds.offer(events, message.committed)
        else:
            self._sessions.close_sessions(message.sessions, CloseCode.told(message.code))

    def _take_probe(self, probe: _Probe) -> None:
        if probe.node_epoch == self._id:
            self._heard_at = time.monotonic()
            self._change(True)
        elif probe.reaches_postgres:
            self._lease.note_that_others_reach_postgres()

    async def _send(self, redis: Redis) -> None:
        """Publishes what has gathered, many events in one message; a lone one at once."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            outbox, self._outbox = self._outbox, []
            pending, self._pending = self._pending, []
            for start in range(0, len(pending), PER_MESSAGE):
                part = pending[start : start + PER_MESSAGE]
                outbox.append(_encode(_Batch(self._id, self._pending_since, part)))
            for message in outbox:
                await redis.publish(self._channel, message)
            await asyncio.sleep(PACE_SECONDS)

    async def _probe(self, redis: Redis) -> None:
        while True:
            probe = _Probe(self._id, time.time(), self._lease.reaches_postgres)
            await redis.publish(self._channel, _encode(probe))
            await asyncio.sleep(PROBE_SECONDS)
            if time.monotonic() - self._heard_at > DEAD_SECONDS:
                raise TimeoutError("the probe did not come back")

    def _change(self, is_up: bool, *, reason: str = "") -> None:
        if self.is_up == is_up:
            return
        self.is_up = is_up
        REDIS_UP.set(is_up)
        self._pending.clear()
        self._outbox.clear()
        log.info("redis_up") if is_up else log.warning("redis_down", reason=reason)
        if self._feeds is not None:
            self._feeds.poll_now()

"""One process of the coordinator: all parts built from the settings, started and stopped in order.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import structlog
from litestar import Litestar

from coordinator import metrics
from coordinator.domain.close_codes import CloseCode
from coordinator.domain.events import Event
from coordinator.domain.room import Lifespan, Policy
from coordinator.live.connection import ConnectionContext
from coordinator.live.hub import Hub
from coordinator.live.lease import Presence
from coordinator.live.pubsub import Bus
from coordinator.live.registry import ConnectionRegistry
from coordinator.platforms.wechat import WeChat, wechat_http
from coordinator.platforms.zego import Zego
from coordinator.redis import fail_fast_redis
from coordinator.services.access import Access
from coordinator.services.api_keys import ApiKeys
from coordinator.services.codes import Codes
from coordinator.services.console import ConsoleSignIn
from coordinator.services.interviews import Interviews
from coordinator.services.rooms import RoomService
from coordinator.services.sign_in import SignIn
from coordinator.settings import Settings
from coordinator.store.console import ConsoleSessions
from coordinator.store.database import Database
from coordinator.store.images import Images
from coordinator.store.interviews import Interviews as StoredInterviews
from coordinator.store.jobs import Jobs
from coordinator.store.nodes import Nodes
from coordinator.store.people import People
from coordinator.store.room_writer.queue import Writer
from coordinator.store.rooms import Rooms
from coordinator.web.app import rest_app
from coordinator.web.handshake import Handshake
from coordinator.web.health import Health
from coordinator.web.interview_live import InterviewEndpoint
from coordinator.web.limits import Limits
from coordinator.web.room_live import RoomEndpoint

log = structlog.get_logger()

_TOLD = ("room_created", "room_ended")
"""Events that stand in the log of the process, too."""


class Node:
    """Builds the parts; `start` and `stop` run them.

    The order is that of the floors: Postgres, then the writer and the lease, then the bus and the
    hub; what was started last stops first. `deployment` names this database on a shared Redis.
    `more_routes` are handlers served beside the documented ones (the pages of development).
    """

    def __init__(
        self, settings: Settings, deployment: str, *, more_routes: Sequence[Any] = ()
    ) -> None:
        self.settings = settings
        self.more_routes = more_routes
        self.is_draining = False
        self.database = Database(settings.database_url)
        self.people = People(self.database)
        self.rooms = Rooms(self.database)
        policy = Policy(settings.room_capacity, timedelta(seconds=settings.presence_grace))
        self.writer = Writer(self.database, policy, self.publish)
        self.registry = ConnectionRegistry()
        self.redis = fail_fast_redis(settings.redis_url)
        self.limits = Limits(settings.rate_limits, self.redis, deployment, settings.trusted_proxies)
        self.access = Access(settings.jwt_secrets, self.people)
        self.stored_interviews = StoredInterviews(self.database)
        self.hub = Hub([self.rooms, self.stored_interviews], lambda: not self.bus.is_up)
        self.presence = Presence(
            Nodes(self.database),
            self.rooms,
            self.writer,
            self.registry,
            name=f"{socket.gethostname()}:{os.getpid()}",
            grace=policy.grace,
            lifespan=_lifespan(settings),
            events_keep_days=settings.events_keep_days,
            others_reach_postgres_at=lambda: self.bus.others_reach_postgres_at,
        )
        self.bus = Bus(
            settings.redis_url,
            channel=f"{deployment}:events",
            boot=self.presence.boot,
            on_events=self.hub.offer,
            on_close=self.registry.close_sessions,
            on_change=self.hub.catch_up.poll_now,
            reaches_postgres=lambda: self.presence.reaches_postgres,
        )
        self.room_service = RoomService(
            self.rooms,
            self.writer,
            self.access,
            self.publish,
            proof_required=settings.identity_proof == "required",
            events_keep_days=settings.events_keep_days,
        )
        self.jobs = Jobs(self.database)
        self.interviews = Interviews(self.stored_interviews, self.jobs, self.publish)
        self.api_keys = ApiKeys(settings.open_api_keys)
        self.wechat_http = wechat_http(settings.wx_api_base)
        self.wechat = WeChat(
            settings.wx_appid, settings.wx_secret, self.wechat_http, self.redis, deployment
        )
        self.sign_in = SignIn(self.wechat, self.people, self.access, settings.signup)
        self.console_sign_in = ConsoleSignIn(
            ConsoleSessions(self.database),
            self.people,
            self.access,
            self.wechat,
            settings.wx_console_page,
        )
        self.codes = Codes(self.wechat, Images(self.database), self.room_service)
        self.zego = (
            Zego(settings.zego_app_id, settings.zego_server_secret, settings.zego_token_cipher)
            if settings.zego_ready
            else None
        )
        self.context = ConnectionContext(
            self.hub,
            settings.presence_grace,
            settings.live_buffer,
            self.access.proof,
            self.registry.forget,
            self.replace,
        )
        self.handshake = Handshake(
            [
                RoomEndpoint(
                    self.rooms, self.writer, self.access, self.context, lambda: self.presence.boot
                ),
                InterviewEndpoint(self.stored_interviews, self.api_keys, self.access, self.context),
            ],
            hub=self.hub,
            registry=self.registry,
            limits=self.limits,
            allowed_origins=settings.allowed_origins,
            own_url=settings.base_url,
            max_connections=settings.live_max_connections,
            is_moving=lambda: self.is_draining or self.presence.is_cut_off,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def publish(self, events: Sequence[Event], replaced: Sequence[str] = ()) -> None:
        """Tells everybody of a committed batch: this node's hub at once, the others by the bus."""
        committed = time.time()
        self.hub.offer(events, committed)
        self.bus.publish(events, committed)
        for kind, count in Counter([event.type for event in events]).items():
            metrics.EVENTS.labels(kind).inc(count)
        for event in events:
            if event.type in _TOLD:
                log.info(event.type, roomId=event.feed.id, seq=event.seq)

    def replace(self, session_ids: Sequence[str]) -> None:
        """Closes sessions that newer ones pushed out, wherever they are."""
        self.registry.close_sessions(session_ids, CloseCode.REPLACED)
        self.bus.close_sessions(session_ids, CloseCode.REPLACED)

    async def start(self) -> None:
        """Opens Postgres, takes the lease, starts the loops.

        Raises:
            Unavailable: Postgres is away.
        """
        await self.database.open()
        await self.presence.enter()
        metrics.CONNECTIONS.set_function(self.registry.count)
        metrics.ROOMS.set_function(lambda: len(self.hub.feeds))
        loops = (self.writer.run, self.bus.run, self.hub.run, self.presence.run)
        self._tasks = [asyncio.create_task(loop(), name=loop.__qualname__) for loop in loops]
        _calm_garbage_collector()
        log.info("node_started", boot=self.presence.boot, pid=os.getpid())

    async def drain(self) -> None:
        """Sends the clients elsewhere and writes that they are away; nobody has left by it."""
        self.is_draining = True
        await self.registry.drain(self.settings.drain_seconds * 0.7)
        await self.writer.drained(within=2.5)

    async def stop(self) -> None:
        """Gives the lease back and closes everything."""
        self.is_draining = True
        await self.handshake.close()
        await self.writer.drained(within=0.5)
        await _end(self._tasks)
        await self.hub.close()
        await self.presence.leave()
        await self.wechat.close()
        await self.wechat_http.aclose()
        await self.redis.aclose()
        await self.database.close()
        log.info("node_stopped", boot=self.presence.boot)

    def asgi(self) -> Any:
        """The REST side."""
        settings = self.settings

        @asynccontextmanager
        async def lifespan(_: Litestar) -> AsyncIterator[None]:
            await self.start()
            yield
            await self.stop()

        return rest_app(
            self._services(), settings, lifespan=lifespan, more_handlers=self.more_routes
        )

    def _services(self) -> dict[str, Any]:
        """What handlers and guards ask for, by name."""
        return {
            "base_url": self.settings.base_url,
            "qr_pages": self.settings.wx_qr_pages,
            "health": Health(
                self.database,
                redis_is_up=lambda: self.bus.is_up,
                is_draining=lambda: self.is_draining,
                node=lambda: self.presence.boot,
            ),
            "access": self.access,
            "console_sign_in": self.console_sign_in,
            "limits": self.limits,
            "rooms": self.room_service,
            "zego": self.zego,
            "sign_in": self.sign_in,
            "codes": self.codes,
            "interviews": self.interviews,
            "jobs": self.jobs,
            "api_keys": self.api_keys,
        }


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancels tasks until they have ended, for at most 3 s.

    Once is not enough: redis-py swallows a cancellation while it connects.
    """
    running = set(tasks)
    for _ in range(15):
        if not running:
            break
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=0.2)
    await asyncio.gather(*(task for task in tasks if task.done()), return_exceptions=True)


def _lifespan(settings: Settings) -> Lifespan:
    def limit(seconds: float) -> timedelta | None:
        return timedelta(seconds=seconds) if seconds else None

    return Lifespan(
        host_absent=limit(settings.host_absent_end),
        empty=limit(settings.room_empty_end),
        age=limit(settings.room_max_age),
    )


def _calm_garbage_collector() -> None:
    """What lives as long as the process is not looked through again and again for cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def deployment_id(database_url: str) -> str:
    """What names this database: the prefix of its keys and channels on a shared Redis.

    Raises:
        Unavailable: Postgres is away.
        SchemaMissing: the migrations have not run.
    """
    database = Database(database_url)
    await database.open()
    try:
        if not await database.schema_is_current():
            raise SchemaMissing
        return f"coordinator:{await database.fetchval('SELECT id FROM deployment')}"
    finally:
        await database.close()


class SchemaMissing(Exception):
    """The database is not at this version's schema."""

"""One process of the coordinator: all parts built from the settings, started and stopped in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from litestar import Litestar
from prometheus_client import generate_latest

from coordinator import metrics
from coordinator.control_socket import ControlSocket
from coordinator.domain.errors import Unavailable
from coordinator.essential_tasks import EssentialTask, EssentialTasks
from coordinator.inspect_page import inspect_page
from coordinator.live.beat import Beat
from coordinator.live.connection import PING_SECONDS, ConnectionContext
from coordinator.live.drain import drain_connections
from coordinator.live.reporter import Reporter
from coordinator.parts import LiveParts, build_live, build_store, node_name
from coordinator.platforms.wechat import WeChat
from coordinator.platforms.wechat_exchange import wechat_http
from coordinator.platforms.zego import Zego
from coordinator.redis import fail_fast_redis
from coordinator.services.access import Access
from coordinator.services.api_keys import ApiKeys
from coordinator.services.console import ConsoleSignIn
from coordinator.services.deployment import DeploymentStatus
from coordinator.services.interviews import Interviews
from coordinator.services.qr_codes import Codes
from coordinator.services.rooms import RoomService
from coordinator.services.seat_limit import SeatLimit
from coordinator.services.sign_in import SignIn
from coordinator.services.webhooks import Webhooks
from coordinator.settings import Settings
from coordinator.store import fitness, migrations
from coordinator.store.database import Database
from coordinator.store.room_pages import RoomPages
from coordinator.store.tables import DeploymentTable
from coordinator.store.unconnected_seats import UnconnectedSeats
from coordinator.web.app import rest_app
from coordinator.web.console_pages import ConsolePages
from coordinator.web.handshake import Handshake
from coordinator.web.health import Health
from coordinator.web.interview_live import InterviewEndpoint
from coordinator.web.limits import Limits
from coordinator.web.room_live import RoomEndpoint

log = structlog.get_logger()

SEEN_SECONDS = 2.0
"""How long a proxy has to see that a draining node is not ready."""

class Node:
    """Builds the parts, floor by floor; `start` and `stop` run them.

    What was started last stops first. `deployment` names this database on a shared Redis.
    `more_routes` are handlers served beside the documented ones (the pages of development).
    `parent` is the supervisor that this node is a worker of; None where it serves alone.
    """

    def __init__(
        self,
        settings: Settings,
        deployment: str,
        *,
        more_routes: Sequence[Any] = (),
        parent: int | None = None,
    ) -> None:
        self.settings = settings
        self.is_draining = False
        self.store = build_store(settings)
        self.redis = fail_fast_redis(settings.redis_url)
        self.live = build_live(settings, self.store, deployment)
        self.reporter = self._reporter()
        self.control = ControlSocket(
            {"metrics": generate_latest, "inspect": self._inspected}, group=parent or os.getpid()
        )
        self.tasks = EssentialTasks(_essential_tasks(self.live, self.reporter), self._lose)
        self.on_loss: Callable[[], None] | None = None
        """Called when this process cannot be a node any more: whoever runs it ends it."""
        self._build_web(deployment, more_routes)

    def _reporter(self) -> Reporter:
        live = self.live
        return Reporter(
            self.store.node_reports,
            name=node_name(),
            node_epoch=self.node_epoch,
            epoch=lambda: self.store.database.epochs.current,
            counts=lambda: (live.registry.count(), len(live.hub.feeds)),
            is_draining=lambda: self.is_draining,
            redis_is_down=live.bus.is_down,
            ping_redis=self.redis.ping,
        )

    def _build_web(self, deployment: str, more_routes: Sequence[Any]) -> None:
        settings, store = self.settings, self.store
        limits = Limits(
            settings.rate_limits, self.redis, deployment, settings.trusted_proxies,
            nodes=lambda: len(self.live.known.node_epochs),
            quick_eval=self.live.bus.links.eval,
        )  # fmt: skip
        self.limits = limits
        access = Access(settings.jwt_secrets, store.people)
        api_keys = ApiKeys(settings.open_api_keys)
        self.wechat_http = wechat_http(settings.wx_api_base, settings.wx_proxy)
        self.wechat = WeChat(
            settings.wx_appid, settings.wx_secret, self.wechat_http, self.redis, deployment
        )
        self.handshake = self._handshake(access, api_keys, limits)
        self.asgi = rest_app(
            self._services(access, api_keys, limits),
            settings,
            lifespan=self._lifespan,
            more_handlers=more_routes,
        )

    def _handshake(self, access: Access, api_keys: ApiKeys, limits: Limits) -> Handshake:
        settings, store, live = self.settings, self.store, self.live
        context = ConnectionContext(
            live.hub,
            settings.presence_grace,
            settings.live_buffer,
            access.proof,
            live.registry.forget,
            live.publisher.replace,
            Beat(PING_SECONDS),
            live.registry.rows,
        )
        return Handshake(
            [
                RoomEndpoint(store.rooms, live.writer, access, context, self.node_epoch),
                InterviewEndpoint(store.interviews, api_keys, access, context),
            ],
            hub=live.hub,
            registry=live.registry,
            limits=limits,
            allowed_origins=settings.allowed_origins,
            own_url=settings.base_url,
            max_connections=settings.live_max_connections,
            is_moving=self.is_moving,
        )

    def _services(self, access: Access, api_keys: ApiKeys, limits: Limits) -> dict[str, Any]:
        """What handlers and guards ask for, by name."""
        settings, store, live = self.settings, self.store, self.live
        room_service = RoomService(
            store.rooms,
            RoomPages(store.database),
            live.writer,
            access,
            live.publisher.publish,
            SeatLimit(
                UnconnectedSeats(store.database),
                0 if settings.limits_are_off else settings.unconnected_per_address,
                settings.jwt_secrets[0],
            ),
            proof_required=settings.identity_proof == "required",
            events_keep_days=settings.events_keep_days,
            participants_keep_days=settings.participants_keep_days,
        )
        return {
            "base_url": settings.base_url,
            "qr_pages": settings.wx_qr_pages,
            "metrics_allow": settings.metrics_allow,
            "health": Health(
                store.database,
                redis_is_down=live.bus.is_down,
                is_draining=lambda: self.is_draining,
                trouble=self.trouble,
                node=self.node_epoch,
                siblings=self.control.ask_siblings,
            ),
            "access": access,
            "console_sign_in": ConsoleSignIn(
                store.console_sessions, store.people, access, self.wechat, settings.wx_console_page
            ),
            "deployment": DeploymentStatus(store.node_reports),
            "epochs": store.database.epochs,
            "console_pages": ConsolePages(
                base_url=settings.public_base_url,
                has_wechat=bool(settings.wx_console_page),
                has_codes=settings.wechat_ready,
            ),
            "limits": limits,
            "rooms": room_service,
            "zego": _zego(settings),
            "sign_in": SignIn(self.wechat, store.people, access, settings.signup),
            "codes": Codes(self.wechat, store.images, room_service),
            "interviews": Interviews(store.interviews, store.jobs, live.publisher.publish),
            "jobs": store.jobs,
            "webhooks": Webhooks(
                store.endpoints,
                store.webhook_repairs,
                live.webhooks.cipher,
                live.webhooks.parts.guard,
                live.webhooks.parts.tls,
                on_change=live.webhooks.tell_change,
            ),
            "api_keys": api_keys,
        }

    @asynccontextmanager
    async def _lifespan(self, _: Litestar) -> AsyncIterator[None]:
        await self.start()
        yield
        await self.stop()

    def inspect(self) -> None:
        """Writes the page of `coordinator inspect` to the log (SIGUSR1)."""
        log.info("inspected", page=inspect_page(self))

    def _inspected(self) -> bytes:
        return inspect_page(self).encode()

    def _lose(self) -> None:
        if self.on_loss is not None:
            self.on_loss()

    def node_epoch(self) -> str:
        """The id of this run of the node: it changes where the node had been declared dead."""
        return self.live.lease.node_epoch

    def is_moving(self) -> bool:
        """True where clients are better off on another node."""
        return self.is_draining or self.live.lease.is_cut_off

    def trouble(self) -> str | None:
        """Why this node cannot serve; None where it can. The log has said it once.

        The renewals of the lease write to Postgres all the time: where they fail nothing else can
        be written either, whatever a query says.
        """
        if self.tasks.lost is not None:
            return f"the task {self.tasks.lost} has ended"
        return self.live.lease.trouble

    async def start(self) -> None:
        """Opens Postgres, takes the lease, starts the loops.

        Raises:
            Unavailable: Postgres is away.
        """
        live = self.live
        await self.store.database.open()
        live.bus.spread_over(await self.store.nodes.channels())
        await live.lease.enter()
        metrics.CONNECTIONS.set_function(live.registry.count)
        metrics.ROOMS.set_function(lambda: len(live.hub.feeds))
        self.tasks.start()
        await self.control.open()
        _calm_garbage_collector()
        log.info("node_started", nodeEpoch=self.node_epoch(), pid=os.getpid())

    async def drain(self) -> None:
        """Sends the clients elsewhere and writes that they are away; nobody has left by it.

        The node goes on serving meanwhile. First it waits until a proxy has seen that it is not
        ready: a client that was sent away before that would be sent here again. From now on
        another node sends to webhooks.
        """
        self.is_draining = True
        handing_over = asyncio.create_task(self.live.webhooks.stop())
        seconds = self.settings.drain_seconds
        if seconds:
            await asyncio.sleep(SEEN_SECONDS)
        await drain_connections(self.live.registry, max(0.0, seconds - SEEN_SECONDS))
        await self.live.writer.drained(within=0.8)
        await handing_over

    async def stop(self) -> None:
        """Gives the lease back and closes everything."""
        self.is_draining = True
        await self.control.close()
        await self.handshake.close()
        await self.live.writer.drained(within=0.2)
        await self.live.webhooks.stop()
        await self.tasks.end()
        await self.live.hub.close()
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(0.3):
                await self.live.shifts.let_go()
        await self.live.lease.leave()
        await self.reporter.leave()
        await self.wechat.close()
        await self.wechat_http.aclose()
        await self.limits.close()
        await self.redis.aclose()
        await self.store.database.close()
        log.info("node_stopped", nodeEpoch=self.node_epoch())


def _essential_tasks(live: LiveParts, reporter: Reporter) -> list[EssentialTask]:
    """The node's tasks; those that have promised something are not started again."""

    async def bus() -> None:
        await live.bus.run(live.hub, live.registry, live.webhooks)

    return [
        EssentialTask("writer", live.writer.run, is_restarted=False),
        EssentialTask("lease", live.lease.run, is_restarted=False),
        EssentialTask("bus", bus, is_restarted=True),
        EssentialTask("hub", live.hub.run, is_restarted=True),
        EssentialTask("reaper", live.reaper.run, is_restarted=True),
        EssentialTask("reconciler", live.reconciler.run, is_restarted=True),
        EssentialTask("standing", live.standing.run, is_restarted=True),
        EssentialTask("reporter", reporter.run, is_restarted=True),
        EssentialTask("housekeeping", live.housekeeping.run, is_restarted=True),
        EssentialTask("webhooks", live.webhooks.run, is_restarted=True),
    ]


def _zego(settings: Settings) -> Zego | None:
    if not settings.zego_ready:
        return None
    return Zego(settings.zego_app_id, settings.zego_server_secret, settings.zego_token_cipher)


def _calm_garbage_collector() -> None:
    """What lives as long as the process is not looked through again and again for cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def deployment_id(settings: Settings) -> str:
    """What names this database: the prefix of its keys and channels on a shared Redis.

    Raises:
        Unavailable: Postgres is away.
        Unfit: this Postgres cannot be served with.
        SchemaMissing: the migrations have not run.
    """
    database = Database(settings.database_url, pooler=settings.database_pooler)
    await database.open()
    try:
        fitness.require_kind(await fitness.look(database))
        if not await migrations.is_current(database):
            raise migrations.SchemaMissing
        (row,) = await database.run(DeploymentTable.select(DeploymentTable.id))
        return f"coordinator:{row['id']}"
    finally:
        await database.close()

"""The parts of a node, built floor by floor: what is kept in Postgres, and what lives in memory."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass
from datetime import timedelta

from coordinator.data_cipher import DataCipher
from coordinator.domain.room import Lifespan, Policy
from coordinator.live.housekeeping import Housekeeping
from coordinator.live.hub import Hub
from coordinator.live.judge import Judge
from coordinator.live.known_nodes import KnownNodes
from coordinator.live.lease import Lease
from coordinator.live.publisher import Publisher
from coordinator.live.pubsub import Bus
from coordinator.live.reaper import Reaper, Reconciler
from coordinator.live.registry import ConnectionRegistry
from coordinator.live.shifts import Shifts
from coordinator.live.standing import Standing
from coordinator.settings import Settings
from coordinator.store.console import ConsoleSessions
from coordinator.store.database import Database
from coordinator.store.duties import Duties
from coordinator.store.interviews import StoredInterviews
from coordinator.store.jobs import Jobs
from coordinator.store.node_reports import NodeReports
from coordinator.store.nodes import Nodes
from coordinator.store.people import People
from coordinator.store.qr_images import Images
from coordinator.store.retention import Keep, Retention
from coordinator.store.room_writer.queue import Writer
from coordinator.store.rooms import Rooms
from coordinator.store.sealing import Sealing
from coordinator.store.webhook_feeds import WebhookFeeds
from coordinator.store.webhook_repairs import WebhookRepairs
from coordinator.store.webhooks import Endpoints
from coordinator.webhooks.addresses import AddressGuard
from coordinator.webhooks.endpoint import SenderParts
from coordinator.webhooks.sender import WebhookSender


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreParts:
    """What is kept in Postgres."""

    database: Database
    people: People
    rooms: Rooms
    interviews: StoredInterviews
    jobs: Jobs
    images: Images
    nodes: Nodes
    duties: Duties
    console_sessions: ConsoleSessions
    node_reports: NodeReports
    endpoints: Endpoints
    webhook_feeds: WebhookFeeds
    webhook_repairs: WebhookRepairs


def build_store(settings: Settings) -> StoreParts:
    database = Database(settings.database_url, pooler=settings.database_pooler)
    return StoreParts(
        database=database,
        people=People(database, DataCipher(settings.data_keys)),
        rooms=Rooms(database),
        interviews=StoredInterviews(database),
        jobs=Jobs(database),
        images=Images(database),
        nodes=Nodes(database),
        duties=Duties(database),
        console_sessions=ConsoleSessions(database),
        node_reports=NodeReports(database),
        endpoints=Endpoints(database),
        webhook_feeds=WebhookFeeds(database),
        webhook_repairs=WebhookRepairs(database),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveParts:
    """What is kept current in this process, and whatever keeps it so."""

    registry: ConnectionRegistry
    lease: Lease
    known: KnownNodes
    bus: Bus
    hub: Hub
    publisher: Publisher
    writer: Writer
    shifts: Shifts
    reaper: Reaper
    reconciler: Reconciler
    standing: Standing
    housekeeping: Housekeeping
    webhooks: WebhookSender


def build_live(settings: Settings, store: StoreParts, deployment: str) -> LiveParts:
    policy = Policy(
        settings.room_capacity,
        timedelta(seconds=settings.presence_grace),
        _limit(settings.unconnected_guest_end),
    )
    registry = ConnectionRegistry()
    lease = Lease(store.nodes, registry, name=node_name())
    judge = Judge()
    epochs = store.database.epochs
    known = KnownNodes(store.nodes)
    bus = Bus(
        settings.redis_url,
        prefix=deployment,
        jwt_secrets=settings.jwt_secrets,
        lease=lease,
        judge=judge,
        known=known,
        epochs=epochs,
    )
    hub = Hub(
        [store.rooms, store.interviews],
        epoch=lambda: epochs.current,
        is_degraded=bus.is_down,
        listen=bus.listen,
    )
    epochs.on_change(hub.change_history)
    shifts = Shifts(store.duties, lease, judge)
    webhooks = WebhookSender(
        _sender_parts(settings, store), DataCipher(settings.data_keys), bus, lease
    )
    publisher = Publisher(hub, bus, registry, webhooks.note)
    writer = Writer(store.database, policy, publisher.publish, publisher.tell_here)
    reaper = Reaper(
        lease, store.nodes, writer, shifts, judge, grace=policy.grace,
        lifespan=_lifespan(settings),
    )  # fmt: skip
    return LiveParts(
        registry=registry,
        lease=lease,
        known=known,
        bus=bus,
        hub=hub,
        publisher=publisher,
        writer=writer,
        shifts=shifts,
        reaper=reaper,
        reconciler=Reconciler(lease, store.nodes, writer, registry),
        standing=Standing(store.people, registry),
        housekeeping=_housekeeping(settings, store),
        webhooks=webhooks,
    )


def _sender_parts(settings: Settings, store: StoreParts) -> SenderParts:
    return SenderParts(
        endpoints=store.endpoints,
        feeds=store.webhook_feeds,
        repairs=store.webhook_repairs,
        interviews=store.interviews,
        guard=AddressGuard(settings.webhook_allow_private),
        tls=ssl.create_default_context(),
    )


def _housekeeping(settings: Settings, store: StoreParts) -> Housekeeping:
    return Housekeeping(
        Retention(store.database, _keep(settings)),
        Sealing(store.database, DataCipher(settings.data_keys)),
        store.images,
    )


def _keep(settings: Settings) -> Keep:
    return Keep.days(
        events=settings.events_keep_days,
        participants=settings.participants_keep_days,
        interviews=settings.interviews_keep_days,
        untold=settings.webhook_keep_days,
    )


def _lifespan(settings: Settings) -> Lifespan:
    return Lifespan(
        host_absent=_limit(settings.host_absent_end),
        empty=_limit(settings.room_empty_end),
        age=_limit(settings.room_max_age),
    )


def _limit(seconds: float) -> timedelta | None:
    """0 = off, as everywhere."""
    return timedelta(seconds=seconds) if seconds else None


def node_name() -> str:
    """What an operator knows this process by: its machine and its process id."""
    return f"{socket.gethostname()}:{os.getpid()}"

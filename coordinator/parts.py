"""The parts of a node, built floor by floor: what is kept in Postgres, and what lives in memory."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta

from coordinator.domain.room import Lifespan, Policy
from coordinator.live.housekeeping import Housekeeping
from coordinator.live.hub import Hub
from coordinator.live.lease import Lease
from coordinator.live.publisher import Publisher
from coordinator.live.pubsub import Bus
from coordinator.live.reaper import Reaper, Reconciler
from coordinator.live.registry import ConnectionRegistry
from coordinator.settings import Settings
from coordinator.store.console import ConsoleSessions
from coordinator.store.database import Database
from coordinator.store.images import Images
from coordinator.store.interviews import Interviews
from coordinator.store.jobs import Jobs
from coordinator.store.node_reports import NodeReports
from coordinator.store.nodes import Nodes
from coordinator.store.people import People
from coordinator.store.retention import Keep, Retention
from coordinator.store.room_writer.queue import Writer
from coordinator.store.rooms import Rooms


@dataclass(frozen=True, slots=True)
class StoreParts:
    """What is kept in Postgres."""

    database: Database
    people: People
    rooms: Rooms
    interviews: Interviews
    jobs: Jobs
    images: Images
    nodes: Nodes
    console_sessions: ConsoleSessions
    node_reports: NodeReports


def build_store(settings: Settings) -> StoreParts:
    database = Database(settings.database_url, pooler=settings.database_pooler)
    return StoreParts(
        database,
        People(database),
        Rooms(database),
        Interviews(database),
        Jobs(database),
        Images(database),
        Nodes(database),
        ConsoleSessions(database),
        NodeReports(database),
    )


@dataclass(frozen=True, slots=True)
class LiveParts:
    """What is kept current in this process, and whatever keeps it so."""

    registry: ConnectionRegistry
    lease: Lease
    bus: Bus
    hub: Hub
    publisher: Publisher
    writer: Writer
    reaper: Reaper
    reconciler: Reconciler
    housekeeping: Housekeeping


def build_live(settings: Settings, store: StoreParts, deployment: str) -> LiveParts:
    policy = Policy(settings.room_capacity, timedelta(seconds=settings.presence_grace))
    registry = ConnectionRegistry()
    lease = Lease(store.nodes, registry, name=node_name())
    bus = Bus(settings.redis_url, channel=f"{deployment}:events", lease=lease)
    hub = Hub([store.rooms, store.interviews], bus.is_down)
    publisher = Publisher(hub, bus, registry)
    writer = Writer(store.database, policy, publisher.publish)
    return LiveParts(
        registry,
        lease,
        bus,
        hub,
        publisher,
        writer,
        Reaper(lease, store.nodes, writer, grace=policy.grace, lifespan=_lifespan(settings)),
        Reconciler(lease, store.nodes, writer, registry),
        Housekeeping(Retention(store.database, _keep(settings))),
    )


def _keep(settings: Settings) -> Keep:
    return Keep.days(
        events=settings.events_keep_days,
        participants=settings.participants_keep_days,
        interviews=settings.interviews_keep_days,
    )


def _lifespan(settings: Settings) -> Lifespan:
    def limit(seconds: float) -> timedelta | None:
        return timedelta(seconds=seconds) if seconds else None

    return Lifespan(
        host_absent=limit(settings.host_absent_end),
        empty=limit(settings.room_empty_end),
        age=limit(settings.room_max_age),
    )


def node_name() -> str:
    """What an operator knows this process by: its machine and its process id."""
    return f"{socket.gethostname()}:{os.getpid()}"

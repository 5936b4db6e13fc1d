"""What no machine of ours holds, counted: `python -m tests.simulation --scale`.

A deployment of so many nodes and connections is laid out: rooms of ten whose people sit on nodes by
chance, each with an event every ten minutes. Which nodes hear an event, which need it, and how many
bytes that is, is counted with the product's own channels and messages; what nodes ask by themselves
follows from its own pauses and page sizes. `UNIT` is what each costs, measured
(docs/benchmarks.md): with it the counts become processors.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from coordinator.domain.events import ROOM, Event, FeedKey
from coordinator.live import catch_up, known_nodes, lease, legacy_bus, reaper, reporter, shifts
from coordinator.live import standing as staff
from coordinator.live.bus_channels import FeedChannels
from coordinator.live.bus_health import BEACON_SECONDS
from coordinator.live.bus_link import PROBE_SECONDS
from coordinator.live.bus_messages import Batch, Signer
from coordinator.store.nodes import PAGE
from coordinator.webhooks import sender

PEOPLE_PER_ROOM = 10
EVENT_EVERY_SECONDS = 600.0
"""Of one person: it joins, leaves, is away, is back."""
MOST_PER_NODE, MOST = 20_000, 1_000_000
SAMPLED = 2_000
CHANNELS = 262_144
SIZES = (1, 3, 10, 30, 100, 300)


@dataclass(frozen=True, slots=True)
class Unit:
    """Microseconds of one core."""

    commit: float
    batched: float
    statement: float
    publish: float
    push: float
    subscribe: float
    hear: float
    delivery: float
    connect: float
    proof: float


UNIT = Unit(
    commit=750.0, batched=90.0, statement=80.0, publish=1.5, push=2.8, subscribe=2.5, hear=6.7,
    delivery=18.7, connect=338.0, proof=2.5,
)  # fmt: skip
"""A commit is a lone join, `batched` one of 16 at once, a statement a read by index."""


class Layout:
    """Who sits where.

    Attributes:
        homes: of each room, the nodes on which it is open.
        heard: of each node, the channels that it hears.
    """

    def __init__(self, nodes: int, *, channels: int = CHANNELS) -> None:
        chance = random.Random(nodes)
        self.nodes = nodes
        self.connections = min(nodes * MOST_PER_NODE, MOST)
        self.channels = FeedChannels("coordinator:00000000-0000-0000-0000-000000000000")
        self.channels.spread(channels, set())
        self.homes = [
            {chance.randrange(nodes) for _ in range(PEOPLE_PER_ROOM)}
            for _ in range(self.connections // PEOPLE_PER_ROOM)
        ]
        self.heard: list[set[bytes]] = [set() for _ in range(nodes)]
        for room, homes in enumerate(self.homes):
            channels_of_room = self.channels.of(_key(room))
            for home in homes:
                self.heard[home] |= channels_of_room

    @property
    def feeds_per_node(self) -> float:
        return sum(map(len, self.homes)) / self.nodes

    @property
    def events_per_second(self) -> float:
        return self.connections / EVENT_EVERY_SECONDS

    def sampled(self) -> Iterator[tuple[int, int, int]]:
        """Of some events: nodes that hear it, those of them that need it, bytes of its message."""
        signer, chance = Signer(["secret"]), random.Random(1)
        for room in chance.sample(range(len(self.homes)), min(SAMPLED, len(self.homes))):
            (channel,) = self.channels.of(_key(room))
            hearing = sum(channel in channels for channels in self.heard)
            yield hearing, len(self.homes[room]), len(signer.seal(channel, _message(room)))


def _key(room: int) -> FeedKey:
    return FeedKey(ROOM, f"room_1700000000000_{room:06d}")


def _message(room: int) -> Batch:
    participant = {
        "userId": "guest_1700000000000_abcdef", "userName": "李明", "role": "guest",
        "identity": "求职者", "joinedAt": "2026-01-01T00:00:00.000Z", "connection": "none",
    }  # fmt: skip
    event = Event(
        _key(room), 42, "participant_joined", "2026-01-01T00:00:00.000Z",
        {"participant": participant}, "0123456789abcdef",
    )  # fmt: skip
    return Batch("0123456789abcdef", "0" * 32, 10_000, 1.7e9, [legacy_bus.wire(event)])


def asked_per_second(layout: Layout, *, is_redis_away: bool = False) -> tuple[float, float]:
    """Statements that nodes send by themselves: of each node, and of the one that judges."""
    poll = catch_up.DEGRADED_POLL_SECONDS if is_redis_away else catch_up.POLL_SECONDS
    own = layout.connections / layout.nodes
    duties = 2 / shifts.ASK_SECONDS
    each = (
        1 / lease.RENEW_SECONDS
        + 1 / known_nodes.REFRESH_SECONDS
        + 1 / staff.LOOK_SECONDS
        + 1 / reporter.REPORT_SECONDS
        + 1 / sender.LOOK_SECONDS
        + math.ceil(layout.feeds_per_node / catch_up.POLL_CHUNK) / poll
        + math.ceil((own + 1) / PAGE) / reaper.RECONCILE_SECONDS
        + duties
    )
    judge = (2 + 4 + 1) / reaper.JUDGE_SECONDS  # two duties; deaf, dead (two), left; deadlines
    return each, judge


@dataclass(frozen=True, slots=True)
class ScaleCounts:
    """One size of deployment, counted."""

    layout: Layout
    hearing: float
    needing: float
    size: float

    @property
    def statements(self) -> float:
        """A second, of all nodes, events too."""
        each, judge = asked_per_second(self.layout)
        return each * self.layout.nodes + judge + self.layout.events_per_second

    @property
    def pushes(self) -> float:
        """A second: what Redis sends to nodes; events, beacons, and the echo of each."""
        events = self.layout.events_per_second * self.hearing
        return events + self.layout.nodes * (1 / BEACON_SECONDS + 1 / PROBE_SECONDS)

    @property
    def foreign_per_node(self) -> float:
        """Events a second that a node hears and has no use for."""
        foreign = max(self.hearing - self.needing, 0.0)
        return self.layout.events_per_second * foreign / self.layout.nodes

    @property
    def postgres(self) -> float:
        """Cores."""
        events = self.layout.events_per_second
        return (events * UNIT.commit + (self.statements - events) * UNIT.statement) / 1e6

    @property
    def redis(self) -> float:
        """Cores; one can be used."""
        published = self.layout.events_per_second + self.layout.nodes / PROBE_SECONDS
        return (published * UNIT.publish + self.pushes * UNIT.push) / 1e6

    @property
    def node(self) -> float:
        """Cores of each."""
        layout = self.layout
        heard = layout.events_per_second * self.hearing / layout.nodes
        told = layout.events_per_second * PEOPLE_PER_ROOM / layout.nodes
        return (heard * UNIT.hear + told * UNIT.delivery) / 1e6

    def after_a_node(self) -> tuple[float, float]:
        """Seconds from its death: until its people are back elsewhere; until the rest is away."""
        own, others = self.layout.connections / self.layout.nodes, max(self.layout.nodes - 1, 1)
        back = own * max(UNIT.connect / others, UNIT.batched) / 1e6
        noticed = lease.LEASE.total_seconds() + reaper.JUDGE_SECONDS + shifts.DUTY.total_seconds()
        return back, noticed + own * UNIT.batched / 1e6

    def after_redis(self) -> tuple[float, float]:
        """Until every event is on every node while it is away; until all is subscribed again."""
        each, _ = asked_per_second(self.layout, is_redis_away=True)
        busy = each * self.layout.nodes * UNIT.statement / 1e6
        subscribed = sum(map(len, self.layout.heard)) * UNIT.subscribe / 1e6
        return catch_up.DEGRADED_POLL_SECONDS * max(1.0, busy), subscribed

    def after_postgres(self) -> float:
        """From the promotion, until every feed has been found in the new log."""
        proofs = self.layout.nodes * math.ceil(self.layout.feeds_per_node / catch_up.PROVE_CHUNK)
        return lease.RENEW_SECONDS + proofs * catch_up.PROVE_CHUNK * UNIT.proof / 1e6


def counted(nodes: int) -> ScaleCounts:
    """One size."""
    layout = Layout(nodes)
    hearing, needing, size = (
        sum(column) / len(column) for column in zip(*layout.sampled(), strict=True)
    )
    return ScaleCounts(layout, hearing, needing, size)


def show(console: Console) -> None:
    """Both tables."""
    sizes = [counted(nodes) for nodes in SIZES]
    console.print(_each_second(sizes), _after_faults(sizes))


def _each_second(sizes: list[ScaleCounts]) -> Table:
    table = Table(
        "nodes", "connections", "open rooms a node", "events/s", "nodes that hear an event",
        "that need it", "bytes an event", "statements/s", "of a node", "pushes/s",
        "foreign/s and node", "Postgres cores", "Redis cores", "cores of a node",
    )  # fmt: skip
    for one in sizes:
        layout = one.layout
        each, _ = asked_per_second(layout)
        cells = (
            f"{layout.nodes}", f"{layout.connections:,}", f"{layout.feeds_per_node:,.0f}",
            f"{layout.events_per_second:,.0f}", f"{one.hearing:.1f}", f"{one.needing:.1f}",
            f"{one.size * one.hearing:,.0f}", f"{one.statements:,.0f}", f"{each:.1f}",
            f"{one.pushes:,.0f}", f"{one.foreign_per_node:,.1f}", f"{one.postgres:.2f}",
            f"{one.redis:.2f}", f"{one.node:.3f}",
        )  # fmt: skip
        table.add_row(*cells)
    return table


def _after_faults(sizes: list[ScaleCounts]) -> Table:
    table = Table(
        "nodes", "node dies: people are back", "those who are not are away",
        "Redis dies: an event is everywhere", "Redis is back: all subscribed",
        "Postgres promoted: all feeds proven",
    )  # fmt: skip
    for one in sizes:
        seconds = (*one.after_a_node(), *one.after_redis(), one.after_postgres())
        table.add_row(f"{one.layout.nodes}", *(f"{value:.1f} s" for value in seconds))
    return table

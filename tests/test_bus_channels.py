"""The bus's channels: which of them a feed is told on, and what a node hears of it all."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any

import pytest

from coordinator.domain.events import ROOM, FeedKey
from coordinator.live import legacy_bus
from coordinator.webhooks.sender import HINT_SECONDS, WebhookSender
from tests.harness.bus_nodes import BusNode, Town, event
from tests.harness.node import JWT_SECRET


async def test_where_channels_are_many_hints_tell_the_heads_to_those_who_ask(town: Town) -> None:
    one, other, third = [await town.node(channels=512) for _ in range(3)]
    await other.knows(one)
    await third.knows(one)
    assert one.bus.needs_hints
    await other.bus.hear_hints()

    one.bus.hint([(FeedKey(ROOM, "room_1"), 7)])
    one.bus.hint([])

    await other.until(lambda: other.ear.looks == 1)
    assert other.ear.heads == {FeedKey(ROOM, "room_1"): 7}
    assert third.ear.heads == {}


async def test_hints_are_shared_by_the_events_of_a_tenth_of_a_second(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a webhook costs a node that commits an eighth of each join."""
    one, other = [await town.node(channels=512) for _ in range(2)]
    await other.knows(one)
    await other.bus.hear_hints()
    room, hear, messages = FeedKey(ROOM, "room_1"), other.ear.hear, 0

    def count(heads: Iterable[tuple[FeedKey, int]]) -> None:
        nonlocal messages
        messages += 1
        hear(heads)

    monkeypatch.setattr(other.ear, "hear", count)
    nothing: Any = None  # it sends to no endpoint
    sender = WebhookSender(nothing, nothing, one.bus, one.lease)
    sender.is_wanted = True

    began = time.monotonic()
    for seq in range(1, 200):
        sender.note([event(seq, room.id)])
        await asyncio.sleep(0.002)
    await other.until(lambda: other.ear.heads == {room: 199})

    assert messages <= (time.monotonic() - began) / HINT_SECONDS + 2


async def test_a_node_hears_the_channels_of_its_open_feeds_alone(town: Town) -> None:
    one, other = await town.node(channels=512), await town.node(channels=512)
    await other.knows(one)
    mine = FeedKey(ROOM, "room_mine")
    await other.bus.listen(mine)

    foreign = [event(1, f"room_{number}") for number in range(50)]
    one.bus.publish([*foreign, event(7, "room_mine")], 1.0)
    await other.until(lambda: any(e.feed == mine for e in other.ear.events))

    assert len(other.ear.events) < 5
    assert other.ear.events[-1] == event(7, "room_mine")


async def test_nodes_that_spread_feeds_otherwise_hear_each_other(town: Town) -> None:
    """A deployment goes from one channel to many, one node after the other."""
    mine = FeedKey(ROOM, "room_mine")
    one = await town.node(channels=1)
    one.ear.open = [mine]
    await one.bus.listen(mine)

    other = await town.node(channels=4096)
    other.ear.open = [mine]
    await other.bus.listen(mine)
    await one.knows(other)
    await one.until(lambda: one.bus._channels.spreads == (1, 4096))
    one.bus.publish([event(1, "room_mine")], 1.0)
    await other.until(lambda: bool(other.ear.events))
    other.bus.publish([event(2, "room_mine")], 1.0)
    await one.until(lambda: bool(one.ear.events))

    # As the version before does, which knows its own way alone.
    seen = len(other.ear.events)
    one.bus._channels.spread(1, set())
    one.bus.publish([event(3, "room_mine")], 1.0)
    await other.until(lambda: len(other.ear.events) > seen)


async def test_a_node_of_another_spread_makes_open_feeds_heard_there(town: Town) -> None:
    mine = FeedKey(ROOM, "room_mine")
    one = await town.node(channels=64)
    one.ear.open = [mine]
    await one.bus.listen(mine)

    other = await town.node(channels=4096)
    await one.knows(other)
    await one.until(lambda: one.bus.links.all()[0]._confirmed >= one.bus._channels.of(mine))

    assert one.bus._channels.spreads == (64, 4096)


async def test_feeds_that_open_while_the_link_is_made_are_heard(town: Town) -> None:
    site = BusNode(
        town.database, town.redis_url, prefix=town.prefix, secrets=[JWT_SECRET], channels=4096
    )
    town.sites.append(site)
    await site.start()
    for number in range(300):
        await site.bus.listen(FeedKey(ROOM, f"room_{number}"))
        await asyncio.sleep(0)
    await site.until(lambda: any(link.is_connected for link in site.bus.links.all()))
    link = site.bus.links.all()[0]
    assert link.wanted
    await site.until(lambda: link.wanted <= link._confirmed)


async def test_a_node_of_the_version_before_is_told_once_in_however_many_ways_feeds_spread(
    town: Town,
) -> None:
    one, _ = await town.node(channels=64), await town.node(channels=4096)
    older = await town.older_node()
    await one.until(lambda: one.known.knows(older) and len(one.bus._channels.spreads) == 2)
    heard = await town.tap(legacy_bus.channel(town.prefix))

    one.bus.publish([event(3), event(1, "room_2")], 1.0)
    while one.bus.waiting:  # noqa: ASYNC110
        await asyncio.sleep(0)
    one.bus.publish([event(4)], 1.0)
    await one.until(lambda: bool(heard) and b",4," in heard[-1])

    told = [json.loads(data)[3] for data in heard]
    assert [[(name, seq) for _, name, seq, *_ in batch] for batch in told] == [
        [("room_1", 3), ("room_2", 1)], [("room_1", 4)],
    ]  # fmt: skip

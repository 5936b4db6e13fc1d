"""What a sender reads of the logs: only under its lease, and only in the history that it knows."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from coordinator.domain.events import ROOM, FeedKey
from coordinator.domain.people import Staff
from coordinator.store.database import Database
from coordinator.store.rooms import Rooms
from coordinator.store.webhook_feeds import WebhookFeeds
from coordinator.store.webhooks import Endpoint, EndpointLeaseLost, Endpoints, Wanted
from tests.harness.people import new_room_id

LEASE = timedelta(minutes=1)
Look = Callable[[WebhookFeeds, Endpoint, FeedKey], Awaitable[None]]


async def taken(database: Database) -> Endpoint:
    """A webhook for rooms, held by a node."""
    endpoints, endpoint_id = Endpoints(database), f"hook_{secrets.token_hex(6)}"
    await endpoints.add(
        endpoint_id=endpoint_id, name=endpoint_id, url="https://example.com",
        wanted=Wanted(events=None, rooms=True, interviews=False), enterprise_id=None, secret="s",
        by="user_001",
    )  # fmt: skip
    endpoint = await endpoints.take(endpoint_id, "node", LEASE)
    assert endpoint is not None
    return endpoint


async def room_of(database: Database) -> FeedKey:
    room_id = new_room_id()
    await Rooms(database).create(
        room_id=room_id, room_name="n", host_name="h", host=Staff(1, "o", "hr")
    )
    return FeedKey(ROOM, room_id)


async def read(feeds: WebhookFeeds, endpoint: Endpoint, room: FeedKey) -> None:
    await feeds.events_after(endpoint, [(room, 0)], 10)


async def scan(feeds: WebhookFeeds, endpoint: Endpoint, room: FeedKey) -> None:
    await feeds.named(endpoint, [room])


@pytest.mark.parametrize("looks", [read, scan])
async def test_nothing_is_read_in_another_history(database: Database, looks: Look) -> None:
    """A standby was promoted: its lease is the same, its log may be shorter, or grown anew."""
    endpoint, room, feeds = await taken(database), await room_of(database), WebhookFeeds(database)
    await looks(feeds, endpoint, room)
    await database.execute("UPDATE deployment SET epoch = epoch || 'x'")

    with pytest.raises(EndpointLeaseLost):
        await looks(feeds, endpoint, room)


@pytest.mark.parametrize("looks", [read, scan])
async def test_nothing_is_read_under_a_lease_that_is_anothers(
    database: Database, looks: Look
) -> None:
    endpoint, room, feeds = await taken(database), await room_of(database), WebhookFeeds(database)
    await Endpoints(database).seize(endpoint.id, "another", LEASE)

    with pytest.raises(EndpointLeaseLost):
        await looks(feeds, endpoint, room)

"""`UNCONNECTED_GUEST_END` on a running node: seats of guests who never connect come free."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from coordinator.store.database import Database
from tests.harness.node import Deployment
from tests.harness.patience import long_enough
from tests.harness.people import Api, Guest, Host, everybody_hangs_up, moment


@pytest.fixture
def end_seconds() -> float:
    """In which whoever wants to stay has to connect."""
    return round(long_enough(2), 3)


@pytest_asyncio.fixture
async def api(deployment: Deployment, end_seconds: float) -> AsyncIterator[Api]:
    node = deployment.node(UNCONNECTED_GUEST_END=str(end_seconds), PRESENCE_GRACE="1")
    api = Api(node)
    yield api
    await everybody_hangs_up()
    await api.aclose()
    node.stop()


async def test_a_guest_who_never_connects_leaves_and_nobody_else_does(
    api: Api, database: Database, end_seconds: float
) -> None:
    host = await Host.hired(database, api)
    room = await host.creates()
    live = await host.connects(room)
    connected = await (await Guest(api, "王五").joins(room)).connects()
    first = await Guest(api, "钱七").joins(room)  # a node that has just begun judges nobody yet
    await live.sees("participant_left", patience=30, user_id=first.user_id)
    absent = await Guest(api, "赵六").joins(room)
    joined = await live.sees("participant_joined", user_id=absent.user_id)

    left = await live.sees("participant_left", patience=30, user_id=absent.user_id)

    assert left["reason"] == "disconnected"
    took = (moment(left["at"]) - moment(joined["at"])).total_seconds()
    assert end_seconds <= took < end_seconds + 4  # both times are Postgres's
    assert connected.code is None
    gone = [e["participant"]["userId"] for e in live.history if e["type"] == "participant_left"]
    assert gone == [first.user_id, absent.user_id]
    assert absent.user_id not in {p["userId"] for p in (await api.room(room))["participants"]}


async def test_who_left_so_may_come_back_and_stays_once_connected(
    api: Api, database: Database
) -> None:
    host = await Host.hired(database, api)
    room = await host.creates()
    live = await host.connects(room)
    guest = await Guest(api).joins(room)
    await live.sees("participant_left", patience=30, user_id=guest.user_id)

    user_id = guest.user_id
    await guest.joins(room)
    own = await guest.connects()
    watched = await live.sees("participant_online", user_id=user_id)
    other = await Guest(api).joins(room)  # when it has left, the first one's time was over, too
    await live.sees("participant_left", patience=30, user_id=other.user_id)

    assert guest.user_id == user_id
    assert watched["participant"]["userId"] == user_id
    assert own.code is None

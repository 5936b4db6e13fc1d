"""The seats of a room: who takes the last, who never connected, and what proof is due."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest_asyncio

from coordinator.store.database import Database
from tests.harness.node import Deployment, data
from tests.harness.people import Api, Guest, Host, refusal
from tests.test_guests import joins_with_key


@pytest_asyncio.fixture(scope="module")
async def small(deployment: Deployment) -> AsyncIterator[Api]:
    """A node that admits three people to a room, the host included, and wants proof from all."""
    api = Api(deployment.node(ROOM_CAPACITY="3", IDENTITY_PROOF="required"))
    yield api
    await api.aclose()


async def test_a_full_room_admits_nobody_but_its_host(
    a: Api, small: Api, database: Database
) -> None:
    host = await Host.hired(database, small)
    room = await host.creates()
    first, _ = await Guest(small).joins(room), await Guest(small).joins(room)

    assert refusal(await Guest(small).asks_to_join(room)) == (400, "ROOM_FULL")
    assert (await first.asks_to_join(room)).status_code == 200, "it is in already"
    live = await host.connects(room)
    await live.says(type="leave")
    assert await live.is_put_out() == 1000
    await Guest(small).joins(room)
    live = await host.connects(room)
    assert len(live.people) == 4, "the host always fits"


async def test_who_returns_live_into_a_room_that_filled_is_told_so(
    a: Api, small: Api, database: Database
) -> None:
    room = await (await Host.hired(database, small)).creates()
    guest = await Guest(small).joins(room)
    await guest.leaves(token=guest.token)
    await Guest(small).joins(room)
    await Guest(small).joins(room)

    live = await small.watch(room, guest.token)

    assert await live.is_put_out() == 4100


async def test_of_many_who_want_the_last_seat_one_gets_it(
    a: Api, small: Api, database: Database
) -> None:
    room = await (await Host.hired(database, small)).creates()
    await Guest(small).joins(room)

    answers = await asyncio.gather(*(Guest(small).asks_to_join(room) for _ in range(20)))

    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19
    assert {refusal(x)[1] for x in answers if x.status_code == 400} == {"ROOM_FULL"}


async def test_where_proof_is_required_bare_ids_do_nothing(
    a: Api, small: Api, database: Database
) -> None:
    room = await (await Host.hired(database, small)).creates()
    guest = await Guest(small).joins(room)

    assert refusal(await guest.leaves()) == (401, "UNAUTHORIZED")
    assert (await guest.leaves(token=guest.token)).status_code == 200


async def test_guests_who_never_connected_are_removed_and_may_come_back(
    a: Api, b: Api, host: Host, room: str
) -> None:
    silent = [await Guest(a).joins(room) for _ in range(3)]
    connected = await Guest(a).joins(room)
    await connected.connects()
    path = f"/api/interview/room/{room}/participants/remove-unconnected"
    assert data(await b.post(path, token=host.token)) == {"removed": 3}
    assert data(await a.post(path, token=host.token)) == {"removed": 0}
    here = [p["userId"] for p in (await a.room(room))["participants"]]
    assert here == [host.user_id, connected.user_id]
    left = [e for e in await host.log(room) if e["type"] == "participant_left"]
    assert [e["reason"] for e in left] == ["removed"] * 3
    await silent[0].joins(room)
    assert len((await a.room(room))["participants"]) == 3


async def test_only_the_host_removes_the_unconnected(
    a: Api, database: Database, host: Host, room: str
) -> None:
    other = await Host.hired(database, a)
    path = f"/api/interview/room/{room}/participants/remove-unconnected"
    assert refusal(await a.post(path)) == (401, "UNAUTHORIZED")
    assert refusal(await a.post(path, token=other.token)) == (403, "FORBIDDEN")
    nowhere = "/api/interview/room/nowhere/participants/remove-unconnected"
    assert refusal(await a.post(nowhere, token=host.token)) == (404, "ROOM_NOT_FOUND")
    await host.ends(room)
    assert refusal(await a.post(path, token=host.token)) == (400, "ROOM_ENDED")


def two_seats_per_address(deployment: Deployment, address: str) -> Api:
    """A node that lets an address have two seats that never connected, as it is asked from there.
    """
    node = deployment.node(
        UNCONNECTED_PER_ADDRESS="2", RATE_LIMITS="login=off", TRUSTED_PROXIES="127.0.0.1"
    )
    api = Api(node)
    api.http.headers["X-Forwarded-For"] = address
    return api


async def test_an_address_has_so_many_seats_of_a_room_that_never_connected(
    deployment: Deployment, host: Host, room: str
) -> None:
    api = two_seats_per_address(deployment, "203.0.113.7")
    answers = await asyncio.gather(*(Guest(api).asks_to_join(room) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refusal(refused) == (429, "RATE_LIMITED")
    assert int(refused.headers["retry-after"]) >= 1
    await Guest(api).joins(await host.creates())  # another room
    api.http.headers["X-Forwarded-For"] = "203.0.113.8"
    connected = await Guest(api).joins(room)  # another address
    key = secrets.token_urlsafe(24)
    kept = data(await joins_with_key(api, room, key))
    assert (await Guest(api).asks_to_join(room)).status_code == 429
    assert data(await joins_with_key(api, room, key))["guestId"] == kept["guestId"]  # a retry
    await connected.joins(room)  # a return
    live = await connected.connects()
    await Guest(api).joins(room)  # its seat counts no more
    await live.hangs_up()
    await api.aclose()


async def test_who_comes_back_takes_a_seat_of_its_address_again(
    deployment: Deployment, host: Host, room: str
) -> None:
    """Else an address joins and leaves until it has many tokens and keys, and returns by all."""
    api = two_seats_per_address(deployment, "203.0.113.9")
    gone = [await Guest(api).joins(room) for _ in range(2)]
    put_out = f"/api/interview/room/{room}/participants/remove-unconnected"
    assert data(await api.post(put_out, token=host.token)) == {"removed": 2}
    key = secrets.token_urlsafe(24)
    by_key = data(await joins_with_key(api, room, key))
    await api.post("/api/interview/guest/leave", {"roomId": room, "guestId": by_key["guestId"]})
    here = [await Guest(api).joins(room) for _ in range(2)]
    for guest in gone:
        assert refusal(await guest.asks_to_join(room)) == (429, "RATE_LIMITED")
    assert refusal(await joins_with_key(api, room, key)) == (429, "RATE_LIMITED")
    assert (await here[0].joins(room)).user_id == here[0].user_id  # it holds its seat still
    await here[0].leaves(token=here[0].token)
    back = gone[0].user_id
    assert (await gone[0].joins(room)).user_id == back
    assert refusal(await gone[1].asks_to_join(room)) == (429, "RATE_LIMITED")
    await api.post(f"/api/interview/room/{room}/participants/{back}/remove", token=host.token)
    await Guest(api).joins(room)
    assert refusal(await gone[0].asks_to_join(room)) == (403, "FORBIDDEN")  # for good, not for now
    await api.aclose()

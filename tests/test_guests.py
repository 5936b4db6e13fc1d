"""Guests over REST: joining, returning, leaving, as an outsider finds them."""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Any

import pytest

from tests.harness.node import JWT_SECRET, Deployment, data
from tests.harness.people import Api, Guest, Host, moment, refusal
from tests.harness.tokens import aged

JOIN = "/api/interview/guest/join"
LEAVE = "/api/interview/guest/leave"
DAY = 86400


# -- joining -------------------------------------------------------------------------------------


async def test_the_documents_join_works_as_printed(a: Api, room: str) -> None:
    body = {"roomId": room, "userName": "李明", "identity": "求职者"}

    joined = data(await a.post(JOIN, body))

    assert set(joined) == {*body, "guestId", "joinedAt", "guestToken", "seq", "epoch"}
    assert {name: joined[name] for name in body} == body
    assert re.fullmatch(r"guest_[A-Za-z0-9_-]{16,58}", joined["guestId"])
    assert moment(joined["joinedAt"])
    assert joined["seq"] == 2


async def test_without_identity_none_is_shown(a: Api, room: str) -> None:
    for identity in ({}, {"identity": ""}, {"identity": "  "}):
        joined = data(await a.post(JOIN, {"roomId": room, "userName": "李明", **identity}))
        assert "identity" not in joined


async def test_two_guests_may_bear_one_name(a: Api, room: str) -> None:
    first, second = await Guest(a).joins(room), await Guest(a).joins(room)

    assert first.user_id != second.user_id
    assert (first.seq, second.seq) == (2, 3)


async def test_a_room_that_is_not_there_or_over_is_not_joined(
    a: Api, host: Host, room: str
) -> None:
    assert refusal(await Guest(a).asks_to_join("nobody-made-it")) == (404, "ROOM_NOT_FOUND")
    await host.ends(room)
    assert refusal(await Guest(a).asks_to_join(room)) == (400, "ROOM_ENDED")


@pytest.mark.parametrize("missing", ["roomId", "userName"])
async def test_what_is_required_is_named(a: Api, room: str, missing: str) -> None:
    body = {"roomId": room, "userName": "李明"}
    del body[missing]

    answer = await a.post(JOIN, body)

    assert refusal(answer) == (400, "INVALID_PARAMS")
    assert answer.json()["message"] == f"参数不完整：{missing}"


@pytest.mark.parametrize(("member", "limit"), [("userName", 100), ("identity", 50)])
async def test_the_limits_are_of_characters(a: Api, room: str, member: str, limit: int) -> None:
    body = {"roomId": room, "userName": "n", "identity": "i"}

    assert (await a.post(JOIN, {**body, member: "🎥" * limit})).status_code == 200
    answer = await a.post(JOIN, {**body, member: "🎥" * (limit + 1)})
    assert refusal(answer) == (400, "INVALID_PARAMS")
    assert member in answer.json()["message"]


async def test_fifty_joins_at_once_are_fifty_seats_and_fifty_events(
    a: Api, b: Api, host: Host, room: str
) -> None:
    guests = await asyncio.gather(
        *(Guest(a if number % 2 else b, f"guest {number}").joins(room) for number in range(50))
    )

    assert sorted(guest.seq for guest in guests) == list(range(2, 52))
    seen = [p["userId"] for p in (await a.room(room))["participants"]]
    by_seq = sorted(guests, key=lambda guest: guest.seq)
    assert seen == [host.user_id, *(guest.user_id for guest in by_seq)]


# -- returning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["member", "bearer"])
async def test_with_its_token_a_guest_that_is_in_gets_the_same_answer_and_no_event(
    a: Api, b: Api, host: Host, room: str, how: str
) -> None:
    first = data(await a.post(JOIN, {"roomId": room, "userName": "李明", "identity": "求职者"}))
    body = {"roomId": room, "userName": "another name"}
    token = first.pop("guestToken")

    if how == "member":
        again = data(await b.post(JOIN, {**body, "guestToken": token}))
    else:
        again = data(await b.post(JOIN, body, token))

    assert again.pop("guestToken")
    assert again == first
    assert len(await host.log(room)) == 2


async def test_a_guest_that_had_gone_is_back_as_the_same(a: Api, host: Host, room: str) -> None:
    guest = await Guest(a).joins(room)
    was, seq = guest.user_id, guest.seq
    await guest.leaves(token=guest.token)

    await guest.joins(room)

    assert guest.user_id == was
    assert guest.seq == seq + 2
    log = await host.log(room)
    assert [event["type"] for event in log[1:]] == [
        "participant_joined", "participant_left", "participant_joined"
    ]  # fmt: skip
    assert log[3]["participant"]["joinedAt"] == log[3]["at"] > log[1]["at"]


@pytest.mark.parametrize(("age", "is_return"), [(60, True), (6.9 * DAY, True), (7.1 * DAY, False)])
async def test_an_expired_token_lets_a_guest_return_for_a_week(
    a: Api, room: str, age: float, is_return: bool
) -> None:
    guest = await Guest(a).joins(room)
    was, fresh = guest.user_id, guest.token
    guest.token = aged(fresh, age)

    await guest.joins(room)

    assert (guest.user_id == was) == is_return
    events = f"/api/interview/room/{room}/events"
    assert (await a.get(events, guest.token)).status_code == 200, "it was renewed"


async def test_a_token_that_proves_nothing_here_is_a_new_join(
    a: Api, host: Host, room: str
) -> None:
    elsewhere = await Guest(a).joins(await host.creates())

    for token in (elsewhere.token, host.token, "broken", "x" * 5000, aged(elsewhere.token, 60)):
        joined = data(
            await a.post(JOIN, {"roomId": room, "userName": "n", "guestToken": token}, token)
        )
        assert joined["guestId"] not in (elsewhere.user_id, host.user_id)
    assert len((await a.room(room))["participants"]) == 6


async def test_a_removed_guest_is_refused_also_with_an_expired_token(
    a: Api, host: Host, room: str
) -> None:
    guest = await Guest(a).joins(room)
    await host.removes(room, guest.user_id)

    for token in (guest.token, aged(guest.token, 60)):
        answer = await a.post(JOIN, {"roomId": room, "userName": "n"}, token)
        assert refusal(answer) == (403, "FORBIDDEN")


# -- leaving -------------------------------------------------------------------------------------


async def test_the_documents_leave_works_as_printed(a: Api, room: str) -> None:
    guest = await Guest(a).joins(room)

    answer = await a.post(LEAVE, {"roomId": room, "guestId": guest.user_id})

    assert (answer.status_code, answer.json()) == (200, {"success": True, "message": "已离开房间"})
    assert len((await a.room(room))["participants"]) == 1


async def test_leaving_twice_is_one_event(a: Api, b: Api, host: Host, room: str) -> None:
    guest = await Guest(a).joins(room)

    answers = [await guest.leaves(), await guest.leaves(b), await guest.leaves()]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert len(await host.log(room)) == 3


async def test_what_is_unknown_is_404_and_what_is_over_is_200(
    a: Api, host: Host, room: str
) -> None:
    guest = await Guest(a).joins(room)

    async def leave(room_id: str, guest_id: str) -> tuple[int, str]:
        return refusal(await a.post(LEAVE, {"roomId": room_id, "guestId": guest_id}))

    assert await leave("nobody-made-it", guest.user_id) == (404, "ROOM_NOT_FOUND")
    assert await leave(room, "guest_nobody") == (404, "NOT_FOUND")
    assert await leave(room, host.user_id) == (404, "NOT_FOUND"), "the host is no guest"
    assert await leave("x" * 5000, guest.user_id) == (404, "ROOM_NOT_FOUND")
    assert await leave(room, "x" * 5000) == (404, "NOT_FOUND")
    joins = await a.post(JOIN, {"roomId": "x" * 5000, "userName": "李明"})
    assert refusal(joins) == (404, "ROOM_NOT_FOUND")
    await host.ends(room)
    assert (await guest.leaves()).status_code == 200
    assert (await host.log(room))[-1]["type"] == "room_ended"


async def test_the_order_of_what_is_looked_at(a: Api, host: Host, room: str) -> None:
    """Room, guest, whether it is over, and only then the proof."""
    guest = await Guest(a).joins(room)
    other = await Guest(a).joins(room)

    async def leave(room_id: str, guest_id: str, token: str) -> tuple[int, str]:
        body = {"roomId": room_id, "guestId": guest_id, "guestToken": token}
        return refusal(await a.post(LEAVE, body))

    assert await leave("nobody-made-it", guest.user_id, "broken") == (404, "ROOM_NOT_FOUND")
    assert await leave(room, "guest_nobody", "broken") == (404, "NOT_FOUND")
    for broken in ("broken", "x" * 5000):
        assert await leave(room, guest.user_id, broken) == (401, "UNAUTHORIZED")
    assert await leave(room, guest.user_id, aged(guest.token, 60)) == (401, "TOKEN_EXPIRED")
    assert await leave(room, guest.user_id, other.token) == (403, "FORBIDDEN")
    assert await leave(room, guest.user_id, host.token) == (403, "FORBIDDEN")
    assert len((await a.room(room))["participants"]) == 3
    await guest.leaves()
    assert (await guest.leaves(token="broken")).status_code == 200


# -- joining again after a lost answer ------------------------------------------------------------


async def joins_with_key(api: Api, room: str, key: object, **members: Any) -> Any:
    body = {"roomId": room, "userName": "李明", "joinKey": key, **members}
    return await api.post(JOIN, body)


async def test_the_same_key_is_the_same_guest(a: Api, b: Api, host: Host, room: str) -> None:
    key = secrets.token_urlsafe(24)
    first = data(await joins_with_key(a, room, key))
    again = data(await joins_with_key(b, room, key, userName="别的名字"))
    assert {**again, "guestToken": ""} == {**first, "guestToken": ""}
    assert len((await a.room(room))["participants"]) == 2
    assert [e["type"] for e in await host.log(room)] == ["room_created", "participant_joined"]


async def test_two_nodes_that_get_the_key_at_once_make_one_guest(
    a: Api, b: Api, room: str
) -> None:
    for _ in range(5):
        key = secrets.token_urlsafe(24)
        calls = [joins_with_key(api, room, key) for api in (a, b) * 4]
        joined = [data(answer) for answer in await asyncio.gather(*calls)]
        assert len({guest["guestId"] for guest in joined}) == 1
        assert len({guest["seq"] for guest in joined}) == 1
    assert (await a.room(room))["participantCount"] == 6


async def test_a_key_is_another_guest_in_another_room(a: Api, host: Host, room: str) -> None:
    key = secrets.token_urlsafe(24)
    here = data(await joins_with_key(a, room, key))
    there = data(await joins_with_key(a, await host.creates(), key))
    assert here["guestId"] != there["guestId"]


async def test_who_left_comes_back_by_its_key(a: Api, room: str) -> None:
    key = secrets.token_urlsafe(24)
    first = data(await joins_with_key(a, room, key))
    left = await a.post(LEAVE, {"roomId": room, "guestId": first["guestId"]})
    assert left.status_code == 200
    back = data(await joins_with_key(a, room, key))
    assert back["guestId"] == first["guestId"]
    assert back["seq"] > first["seq"]


async def test_a_key_used_again_is_a_proof(a: Api, room: str) -> None:
    """From then on nobody speaks for the guest by its public id alone."""
    key = secrets.token_urlsafe(24)
    guest = data(await joins_with_key(a, room, key))
    await joins_with_key(a, room, key)
    bare = {"roomId": room, "guestId": guest["guestId"]}
    assert refusal(await a.post(LEAVE, bare)) == (401, "UNAUTHORIZED")
    proven = await a.post(LEAVE, bare | {"guestToken": guest["guestToken"]})
    assert proven.status_code == 200


async def test_a_return_by_token_is_a_proof(a: Api, room: str) -> None:
    guest = await Guest(a).joins(room)
    await guest.joins(room)
    assert refusal(await guest.leaves()) == (401, "UNAUTHORIZED")
    assert (await guest.leaves(token=guest.token)).status_code == 200


async def test_a_removed_guest_is_refused_by_its_key(a: Api, host: Host, room: str) -> None:
    key = secrets.token_urlsafe(24)
    guest = data(await joins_with_key(a, room, key))
    await host.removes(room, guest["guestId"])
    assert refusal(await joins_with_key(a, room, key)) == (403, "FORBIDDEN")


@pytest.mark.parametrize("key", ["short", "x" * 15, "x" * 65, "x" * 15 + "!", "李" * 20, 5, ["x"]])
async def test_a_key_of_a_wrong_form(a: Api, room: str, key: object) -> None:
    assert refusal(await joins_with_key(a, room, key)) == (400, "INVALID_PARAMS")


async def test_a_blank_key_is_none(a: Api, room: str) -> None:
    first, second = [data(await joins_with_key(a, room, "  "))["guestId"] for _ in range(2)]
    assert first != second


async def test_a_key_finds_its_guest_after_the_secret_was_rotated(
    a: Api, deployment: Deployment, room: str
) -> None:
    newer = Api(deployment.node(JWT_SECRET=f"{'n' * 40},{JWT_SECRET}"))
    key = secrets.token_urlsafe(24)
    guest = data(await joins_with_key(a, room, key))
    assert data(await joins_with_key(newer, room, key))["guestId"] == guest["guestId"]
    await newer.aclose()


async def test_a_removed_guest_is_refused_by_its_key_also_after_the_secret_was_rotated(
    a: Api, deployment: Deployment, host: Host, room: str
) -> None:
    newer = Api(deployment.node(JWT_SECRET=f"{'n' * 40},{JWT_SECRET}"))
    key = secrets.token_urlsafe(24)
    guest = data(await joins_with_key(a, room, key))
    remove = f"/api/interview/room/{room}/participants/{guest['guestId']}/remove"
    data(await a.post(remove, token=host.token))
    assert refusal(await joins_with_key(newer, room, key)) == (403, "FORBIDDEN")
    await newer.aclose()

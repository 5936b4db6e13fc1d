"""Rooms over REST, as an outsider finds them."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.store.database import Database
from tests.harness.node import data
from tests.harness.people import Api, Guest, Host, moment, new_room_id, refusal

CREATE = "/api/interview/create-room"
ROOMS = "/api/interview/rooms"


# -- creating ------------------------------------------------------------------------------------


async def test_the_documents_room_is_created_as_printed(a: Api, host: Host) -> None:
    room_id = new_room_id()
    body = {"roomId": room_id, "roomName": "张经理的面试房间", "hostName": "张经理"}

    answer = (await a.post(CREATE, body, host.token)).json()

    created_at = answer["data"].pop("createdAt")
    assert answer == {
        "success": True,
        "message": "创建成功",
        "data": {**body, "status": "active"},
    }
    assert created_at.endswith("Z")
    assert len(created_at) == len("2024-01-01T10:00:00.000Z")
    assert moment(created_at)


async def test_the_creator_is_at_once_its_first_participant(a: Api, host: Host) -> None:
    room_id = await host.creates()

    seen = await a.room(room_id)

    assert seen["participants"] == [
        {
            "userId": host.user_id,
            "userName": "张经理",
            "role": "host",
            "joinedAt": seen["createdAt"],
            "connection": "none",
        }
    ]


@pytest.mark.parametrize("state", ["active", "ended"])
async def test_a_taken_id_is_refused(a: Api, host: Host, room: str, state: str) -> None:
    if state == "ended":
        await host.ends(room)

    answer = await a.post(CREATE, {"roomId": room, "roomName": "n", "hostName": "h"}, host.token)

    assert refusal(answer) == (400, "ROOM_EXISTS")
    assert answer.json()["message"] == "房间号已存在"


@pytest.mark.parametrize("missing", ["roomId", "roomName", "hostName"])
@pytest.mark.parametrize("how", ["absent", "blank", "null"])
async def test_each_member_is_required_and_named(
    a: Api, host: Host, missing: str, how: str
) -> None:
    body: dict[str, object] = {"roomId": new_room_id(), "roomName": "n", "hostName": "h"}
    if how == "absent":
        del body[missing]
    else:
        body[missing] = " \t " if how == "blank" else None

    answer = await a.post(CREATE, body, host.token)

    assert refusal(answer) == (400, "INVALID_PARAMS")
    assert missing in answer.json()["message"]
    if how != "null":
        assert answer.json()["message"] == f"参数不完整：{missing}"


@pytest.mark.parametrize("room_id", ["a", "A-b_9", "0" * 100])
async def test_ids_of_the_allowed_form_are_taken(a: Api, host: Host, room_id: str) -> None:
    body = {"roomId": room_id, "roomName": "n", "hostName": "h"}

    assert data(await a.post(CREATE, body, host.token))["roomId"] == room_id


@pytest.mark.parametrize("room_id", ["-a", "_a", "a b", "房间", "a/b", "a.b", "0" * 101, "{{id}}"])
async def test_ids_of_another_form_are_refused(a: Api, host: Host, room_id: str) -> None:
    answer = await a.post(CREATE, {"roomId": room_id, "roomName": "n", "hostName": "h"}, host.token)

    assert refusal(answer) == (400, "INVALID_PARAMS")
    assert "roomId" in answer.json()["message"]


async def test_names_are_trimmed_and_kept_to_their_limits(a: Api, host: Host) -> None:
    room_id = new_room_id()
    body = {"roomId": f" {room_id} ", "roomName": f"\n{'房' * 200} ", "hostName": "\u3000🎥王" * 30}

    created = data(await a.post(CREATE, body, host.token))

    assert created["roomId"] == room_id
    assert created["roomName"] == "房" * 200
    assert created["hostName"] == ("\u3000🎥王" * 30).strip()


@pytest.mark.parametrize(("member", "limit"), [("roomName", 200), ("hostName", 100)])
async def test_longer_names_are_refused(a: Api, host: Host, member: str, limit: int) -> None:
    body = {"roomId": new_room_id(), "roomName": "n", "hostName": "h", member: "长" * (limit + 1)}

    answer = await a.post(CREATE, body, host.token)

    assert refusal(answer) == (400, "INVALID_PARAMS")
    assert member in answer.json()["message"]


async def test_of_forty_creators_on_two_nodes_exactly_one_wins(a: Api, b: Api, host: Host) -> None:
    room_id = new_room_id()
    body = {"roomId": room_id, "roomName": "n", "hostName": "h"}

    answers = await asyncio.gather(
        *((a if number % 2 else b).post(CREATE, body, host.token) for number in range(40))
    )

    won = [answer for answer in answers if answer.status_code == 200]
    lost = [refusal(answer) for answer in answers if answer.status_code != 200]
    assert len(won) == 1
    assert lost == [(400, "ROOM_EXISTS")] * 39
    assert [event["type"] for event in await host.log(room_id)] == ["room_created"]


# -- looking -------------------------------------------------------------------------------------


async def test_a_room_shows_who_is_in_it_in_order_of_joining(a: Api, room: str) -> None:
    first = await Guest(a, "李明", "求职者").joins(room)
    second = await Guest(a, "李明", None).joins(room)
    await (gone := await Guest(a).joins(room)).leaves()

    seen = await a.room(room)

    assert set(seen) == {
        "roomId", "roomName", "hostName", "status", "participants", "participantCount", "createdAt",
    }  # fmt: skip
    assert [p["userId"] for p in seen["participants"]][1:] == [first.user_id, second.user_id]
    assert gone.user_id not in str(seen)
    shown = seen["participants"][1]
    assert shown == {
        "userId": first.user_id,
        "userName": "李明",
        "role": "guest",
        "identity": "求职者",
        "joinedAt": shown["joinedAt"],
        "connection": "none",
    }
    assert "identity" not in seen["participants"][2]


async def test_an_unknown_room_is_404(a: Api) -> None:
    answer = await a.get("/api/interview/room/nobody-made-it")

    assert answer.json() == {"success": False, "message": "房间不存在", "code": "ROOM_NOT_FOUND"}
    assert answer.status_code == 404


async def test_looking_ignores_authorization(a: Api, room: str) -> None:
    assert (await a.get(f"/api/interview/room/{room}", "no token at all")).status_code == 200


@pytest.mark.parametrize("path", [f"/api/interview/room/{{}}{end}" for end in ("", "/")])
async def test_a_trailing_slash_is_served_not_redirected(a: Api, room: str, path: str) -> None:
    assert (await a.get(path.format(room))).status_code == 200


# -- ending --------------------------------------------------------------------------------------


async def test_ending_sets_everybodys_time_and_keeps_everybody_listed(
    a: Api, host: Host, room: str
) -> None:
    stayed = await Guest(a, "stayed").joins(room)
    left = await Guest(a, "left").joins(room)
    await left.leaves()

    ended = await host.ends(room)

    assert set(ended) == {"roomId", "status", "endedAt"}
    assert (ended["roomId"], ended["status"]) == (room, "ended")
    seen = await a.room(room)
    assert (seen["status"], seen["endedAt"]) == ("ended", ended["endedAt"])
    times = {p["userId"]: p["leftAt"] for p in seen["participants"]}
    assert times[host.user_id] == times[stayed.user_id] == ended["endedAt"]
    assert times[left.user_id] <= ended["endedAt"]
    assert all("connection" not in p for p in seen["participants"])


async def test_somebody_who_came_twice_is_listed_once_with_the_latest_times(
    a: Api, host: Host, room: str
) -> None:
    guest = await Guest(a).joins(room)
    before = (await a.room(room))["participants"][1]["joinedAt"]
    await guest.leaves(token=guest.token)
    await guest.joins(room)
    ended = await host.ends(room)

    entries = [p for p in (await a.room(room))["participants"] if p["userId"] == guest.user_id]

    assert len(entries) == 1
    assert entries[0]["joinedAt"] > before
    assert entries[0]["leftAt"] == ended["endedAt"]


async def test_ending_again_answers_the_first_time(a: Api, b: Api, host: Host, room: str) -> None:
    first = await host.ends(room)

    assert await host.ends(room, at=b) == first
    assert [event["type"] for event in await host.log(room)] == ["room_created", "room_ended"]


async def test_an_admin_may_end_anybodys_room(admin: Host, host: Host, room: str) -> None:
    await admin.ends(room)

    last = (await host.log(room))[-1]
    assert (last["by"], last["reason"]) == (admin.user_id, "ended")


async def test_others_may_not_end_it(a: Api, database: Database, room: str) -> None:
    other = await Host.hired(database, a)
    path = f"/api/interview/room/{room}/end"

    assert refusal(await a.post(path, token=other.token)) == (403, "FORBIDDEN")
    assert refusal(await a.post(path)) == (401, "UNAUTHORIZED")
    assert (await a.room(room))["status"] == "active"


# -- listing -------------------------------------------------------------------------------------


async def test_a_list_shows_ones_own_rooms_newest_first(a: Api, host: Host) -> None:
    rooms = [await host.creates() for _ in range(3)]
    await Guest(a).joins(rooms[0])
    await host.ends(rooms[1])

    listed = data(await a.get(ROOMS, host.token))

    assert {key: listed[key] for key in ("total", "page", "pageSize")} == {
        "total": 3,
        "page": 1,
        "pageSize": 10,
    }
    assert [room["roomId"] for room in listed["list"]] == rooms[::-1]
    assert [room["participantCount"] for room in listed["list"]] == [1, 1, 2]
    assert set(listed["list"][0]) == {
        "roomId", "roomName", "hostName", "status", "participantCount", "createdAt"
    }  # fmt: skip


async def test_a_list_is_cut_into_pages_and_filtered(a: Api, host: Host) -> None:
    rooms = [await host.creates() for _ in range(5)]
    await host.ends(rooms[4])

    async def ids(**query: object) -> tuple[int, list[str]]:
        listed = data(await a.get(ROOMS, host.token, **query))
        return listed["total"], [room["roomId"] for room in listed["list"]]

    assert await ids(page=2, pageSize=2) == (5, [rooms[2], rooms[1]])
    assert await ids(page=3, pageSize=2) == (5, [rooms[0]])
    assert await ids(page=9, pageSize=100) == (5, [])
    assert await ids(status="ended") == (1, [rooms[4]])
    assert await ids(status="active", pageSize=1) == (4, [rooms[3]])


async def test_the_count_is_of_those_present_and_at_the_end_of_those_who_attended(
    a: Api, host: Host, room: str
) -> None:
    guests = [await Guest(a).joins(room) for _ in range(3)]
    await guests[0].leaves()

    async def count() -> int:
        return int(data(await a.get(ROOMS, host.token))["list"][0]["participantCount"])

    assert await count() == 3
    await host.ends(room)
    assert await count() == 4


async def test_an_admin_sees_everybodys(a: Api, admin: Host, host: Host, room: str) -> None:
    listed = data(await a.get(ROOMS, admin.token, pageSize=100))

    assert room in [entry["roomId"] for entry in listed["list"]]
    assert listed["total"] >= 1
    assert data(await a.get(ROOMS, host.token))["total"] == 1


@pytest.mark.parametrize(
    "part", ["产品", "ROOM_q_", "room_Q_", "q_1\n产", "  产品经理  ", "%", "_q_"]
)
async def test_a_list_is_searched_by_a_part_of_id_or_name(
    a: Api, host: Host, part: str
) -> None:
    room_id = f"room_q_{new_room_id()}"
    body = {"roomId": room_id, "roomName": "产品经理 100%", "hostName": "张经理"}
    data(await a.post(CREATE, body, host.token))
    await host.creates()
    listed = data(await a.get("/api/interview/rooms", host.token, q=part))
    found = part != "q_1\n产"
    assert [r["roomId"] for r in listed["list"]] == ([room_id] if found else [])
    assert listed["total"] == len(listed["list"])


@pytest.mark.parametrize("part", ["x" * 201, "a\0b"])
async def test_a_search_for_what_cannot_be(a: Api, host: Host, part: str) -> None:
    response = await a.get("/api/interview/rooms", host.token, q=part)
    assert refusal(response) == (400, "INVALID_PARAMS")


async def test_who_is_not_staff_sees_no_list(a: Api, room: str) -> None:
    guest = await Guest(a).joins(room)

    assert refusal(await a.get(ROOMS)) == (401, "UNAUTHORIZED")
    assert refusal(await a.get(ROOMS, guest.token)) == (401, "UNAUTHORIZED")


# -- removing ------------------------------------------------------------------------------------


async def test_a_removed_guest_is_out_for_good_and_may_come_as_somebody_new(
    a: Api, host: Host, room: str
) -> None:
    guest = await Guest(a).joins(room)

    removed = data(await host.removes(room, guest.user_id))

    assert removed == {"roomId": room, "userId": guest.user_id, "removed": True}
    assert len((await a.room(room))["participants"]) == 1
    last = (await host.log(room))[-1]
    assert (last["type"], last["reason"]) == ("participant_left", "removed")
    assert refusal(await guest.asks_to_join(room)) == (403, "FORBIDDEN")
    anew = await Guest(a).joins(room)
    assert anew.user_id != guest.user_id


async def test_one_who_had_gone_is_barred_all_the_same(a: Api, host: Host, room: str) -> None:
    guest = await Guest(a).joins(room)
    await guest.leaves()
    events = len(await host.log(room))

    assert (await host.removes(room, guest.user_id)).status_code == 200
    assert (await host.removes(room, guest.user_id)).status_code == 200
    assert len(await host.log(room)) == events
    assert refusal(await guest.asks_to_join(room)) == (403, "FORBIDDEN")


async def test_who_and_whom_removing_is_for(
    a: Api, host: Host, admin: Host, database: Database, room: str
) -> None:
    guest, second = await Guest(a).joins(room), await Guest(a).joins(room)
    other = await Host.hired(database, a)

    assert refusal(await host.removes(room, host.user_id)) == (400, "INVALID_PARAMS")
    assert refusal(await host.removes(room, "guest_nobody")) == (404, "NOT_FOUND")
    assert refusal(await other.removes(room, guest.user_id)) == (403, "FORBIDDEN")
    assert refusal(await host.removes("nobody-made-it", "x")) == (404, "ROOM_NOT_FOUND")
    assert (await admin.removes(room, guest.user_id)).status_code == 200
    await host.ends(room)
    assert refusal(await host.removes(room, second.user_id)) == (400, "ROOM_ENDED")

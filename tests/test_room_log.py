"""The log of a room over REST: its pages, its readers, its epoch."""

from __future__ import annotations

from coordinator.store.database import Database
from tests.harness.node import data
from tests.harness.people import Api, Guest, Host, refusal


async def test_the_log_tells_the_room_from_the_start(a: Api, host: Host, room: str) -> None:
    guest = await Guest(a).joins(room)
    await guest.leaves()
    ended = await host.ends(room)

    log = await host.log(room)

    created, joined, left, over = log
    assert [event["seq"] for event in log] == [1, 2, 3, 4]
    assert [event["roomId"] for event in log] == [room] * 4
    assert [event["type"] for event in log] == [
        "room_created", "participant_joined", "participant_left", "room_ended"
    ]  # fmt: skip
    assert set(created) == {"type", "roomId", "seq", "at", "room", "participant"}
    assert created["participant"]["userId"] == host.user_id
    assert created["room"] == {
        "roomName": "张经理的面试房间",
        "hostName": "张经理",
        "status": "active",
        "createdAt": created["at"],
    }
    assert joined["participant"] == {
        "userId": guest.user_id,
        "userName": "李明",
        "role": "guest",
        "identity": "求职者",
        "joinedAt": joined["at"],
        "connection": "none",
    }
    assert left["participant"] == {"userId": guest.user_id, "userName": "李明", "role": "guest"}
    assert left["reason"] == "left"
    assert (over["endedAt"], over["by"], over["reason"]) == (
        ended["endedAt"],
        host.user_id,
        "ended",
    )
    assert [event["at"] for event in log] == sorted(event["at"] for event in log)


async def test_the_log_is_read_in_pages(a: Api, host: Host, room: str) -> None:
    for _ in range(4):
        await Guest(a).joins(room)
    path = f"/api/interview/room/{room}/events"

    page = data(await a.get(path, host.token, after=1, limit=2))
    last = data(await a.get(path, host.token, after=3, limit=2))
    none = data(await a.get(path, host.token, after=5))
    beyond = [data(await a.get(path, host.token, after=n)) for n in (2**60, 2**63, 10**30)]

    assert ([e["seq"] for e in page["events"]], page["lastSeq"], page["hasMore"]) == (
        [2, 3],
        5,
        True,
    )
    assert ([e["seq"] for e in last["events"]], last["hasMore"]) == ([4, 5], False)
    assert beyond == [none] * 3
    assert (none["events"], none["lastSeq"], none["hasMore"]) == ([], 5, False)


async def test_the_log_is_for_its_people(
    a: Api, host: Host, admin: Host, database: Database, room: str
) -> None:
    path = f"/api/interview/room/{room}/events"
    guest = await Guest(a).joins(room)
    elsewhere = await Guest(a).joins(await host.creates())
    other = await Host.hired(database, a)
    removed = await Guest(a).joins(room)
    await host.removes(room, removed.user_id)

    for reader in (host, admin, guest):
        assert (await a.get(path, reader.token)).status_code == 200
    await guest.leaves(token=guest.token)
    assert (await a.get(path, guest.token)).status_code == 200
    for stranger in (elsewhere, other, removed):
        assert refusal(await a.get(path, stranger.token)) == (403, "FORBIDDEN")
    assert refusal(await a.get(path)) == (401, "UNAUTHORIZED")
    unknown = await a.get("/api/interview/room/nobody-made-it/events", host.token)
    assert refusal(unknown) == (404, "ROOM_NOT_FOUND")


async def test_the_log_of_a_room_that_ended_long_ago_is_gone(
    a: Api, host: Host, database: Database, room: str
) -> None:
    await host.ends(room)
    await database.execute(
        "UPDATE interview_rooms SET ended_at = now() - interval '31 days' WHERE room_id = $1", room
    )

    page = data(await a.get(f"/api/interview/room/{room}/events", host.token))

    assert page | {"epoch": ""} == {
        "events": [], "lastSeq": 2, "hasMore": False, "epoch": "",
    }  # fmt: skip


async def test_a_log_is_of_an_epoch(a: Api, host: Host, room: str) -> None:
    """A place in another history is no place in this log: it is told from its beginning."""
    guest = await Guest(a).joins(room)
    path = f"/api/interview/room/{room}/events"
    log = data(await a.get(path, host.token, after=1))
    again = data(await a.get(path, host.token, after=1, epoch=log["epoch"]))
    other = data(await a.get(path, host.token, after=1, epoch="another"))
    assert [e["seq"] for e in log["events"]] == [e["seq"] for e in again["events"]] == [2]
    assert [e["seq"] for e in other["events"]] == [1, 2]
    assert other["epoch"] == log["epoch"]
    assert log["epoch"] == data(await guest.asks_to_join(room))["epoch"]

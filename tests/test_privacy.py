"""What is kept of people: phone numbers encrypted, and nothing after `erase`."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from coordinator.data_cipher import DataCipher
from coordinator.domain.people import Staff
from coordinator.standins.seed import JOBS, seed
from coordinator.store.database import Database
from coordinator.store.people import People
from coordinator.store.sealing import Sealing
from tests.harness.node import CIPHER, Deployment
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host
from tests.open_api import KEYS

NUMBER = "13912345678"
OLD, NEW = b"o" * 32, b"n" * 32


@pytest_asyncio.fixture
async def staff(database: Database) -> Staff:
    return await People(database).sign_up("o" + secrets.token_hex(8))


async def stored(database: Database, staff: Staff) -> tuple[str | None, str | None]:
    """The two columns of its phone."""
    row = await database.fetchrow(
        "SELECT phone, phone_encrypted FROM users WHERE id = $1", staff.number
    )
    return row["phone"], row["phone_encrypted"]


# -- phone numbers -------------------------------------------------------------------------------


async def test_a_number_is_kept_encrypted_alone(database: Database, staff: Staff) -> None:
    people = People(database, CIPHER)

    changed = await people.set_phone(staff.number, NUMBER)

    plain, encrypted = await stored(database, staff)
    assert changed is not None
    assert changed.phone == NUMBER
    assert plain is None
    assert encrypted is not None
    assert NUMBER not in encrypted


async def test_without_keys_it_is_not_kept(database: Database, staff: Staff) -> None:
    changed = await People(database).set_phone(staff.number, NUMBER)

    assert changed is not None
    assert await stored(database, staff) == (None, None)


async def test_a_number_whose_key_is_gone_is_not_told(database: Database, staff: Staff) -> None:
    await People(database, DataCipher([OLD])).set_phone(staff.number, NUMBER)

    found = await People(database, DataCipher([NEW])).staff(staff.number)

    assert found is not None
    assert found.phone is None


async def test_what_the_version_before_writes_is_read_and_encrypted_when_it_has_gone(
    database: Database, staff: Staff
) -> None:
    people = People(database, CIPHER)
    await people.set_phone(staff.number, "13000000000")
    await database.execute("UPDATE users SET phone = $2 WHERE id = $1", staff.number, NUMBER)
    older = secrets.token_hex(6)
    await database.execute(
        "INSERT INTO nodes (boot, name, lease_until, held_since)"
        " VALUES ($1, 'older', now() + interval '1 h', now())",
        older,
    )

    await sealed(database, CIPHER)
    beside_it = await stored(database, staff)
    read = await people.staff(staff.number)
    await database.execute("DELETE FROM nodes WHERE boot = $1", older)
    await sealed(database, CIPHER, ignoring_nodes=True)
    after_it = await stored(database, staff)

    assert beside_it[0] == NUMBER
    assert read is not None
    assert read.phone == NUMBER
    assert after_it[0] is None
    assert CIPHER.decrypt(after_it[1] or "", purpose="users.phone") == NUMBER


async def sealed(database: Database, cipher: DataCipher, *, ignoring_nodes: bool = False) -> None:
    """All that there is to encrypt; the tests' other nodes may not have reported yet."""
    if ignoring_nodes:
        await database.execute(
            "INSERT INTO node_reports (node_epoch, name, reported_at, report, history)"
            " SELECT boot, name, now(), '{}', '[]' FROM nodes ON CONFLICT DO NOTHING"
        )
    sealing = Sealing(database, cipher)
    while await sealing.step():
        pass


async def test_keys_are_changed_one_after_the_other(database: Database, staff: Staff) -> None:
    await People(database, DataCipher([OLD])).set_phone(staff.number, NUMBER)

    await sealed(database, DataCipher([NEW, OLD]))
    found = await People(database, DataCipher([NEW])).staff(staff.number)

    assert found is not None
    assert found.phone == NUMBER


# -- erasing -------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def api(deployment: Deployment, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A node with the open API."""
    await seed(database)
    node = deployment.node(OPEN_API_KEYS=KEYS)
    async with httpx.AsyncClient(
        base_url=node.url, headers={"X-API-Key": "wehan_open_api_key_2026"}, timeout=patient(20)
    ) as client:
        yield client
    node.stop()


async def everything(database: Database, redis_url: str) -> str:
    """Every row of every table, and every key and value of Redis, as text."""
    tables = await database.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    )
    parts = []
    for table in tables:
        rows = await database.fetch(f'SELECT t::text AS row FROM "{table["tablename"]}" t')
        parts += [row["row"] for row in rows]
    redis: Any = Redis.from_url(redis_url)
    async for key in redis.scan_iter():
        parts += [repr(key), repr(await redis.dump(key))]
    await redis.aclose()
    return "\n".join(parts)


async def test_nothing_of_a_member_of_staff_is_left(
    deployment: Deployment, database: Database, redis_url: str, a: Api
) -> None:
    mark = secrets.token_hex(4)
    name, avatar = f"王{mark}芳", f"https://pictures.example/{mark}.png"
    host = await Host.hired(database, a)
    people = People(database, CIPHER)
    await people.set_profile(host.number, name=name, avatar=avatar)
    await people.set_phone(host.number, NUMBER)
    room = f"room_{secrets.token_hex(6)}"
    made = await a.post(
        "/api/interview/create-room",
        {"roomId": room, "roomName": f"{name}的面试房间", "hostName": name}, host.token,
    )  # fmt: skip
    await Guest(a).joins(room)
    exported = deployment.run("export", host.user_id)

    erased = deployment.run("erase", host.user_id)
    again = deployment.run("erase", host.user_id)

    assert made.status_code == 200
    for told in (name, avatar, NUMBER, host.openid):
        assert told in exported.stdout, exported.stderr
    assert erased.returncode == again.returncode == 0, erased.stderr
    left = await everything(database, redis_url)
    assert await stored(database, Staff(host.number, "", "hr")) == (None, None)
    for gone in (mark, NUMBER, host.openid):
        assert gone not in left, gone
    assert (await a.room(room))["roomName"] == "已删除的面试房间"
    assert (await a.get("/api/interview/rooms", host.token)).status_code == 401


async def test_nothing_of_a_guest_is_left_and_the_log_keeps_its_seq(
    deployment: Deployment, database: Database, redis_url: str, a: Api, host: Host, room: str
) -> None:
    mark = secrets.token_hex(4)
    guest = await Guest(a, f"李{mark}明", f"求职者{mark}").joins(room)
    other = await Guest(a, "赵六").joins(room)
    live = await guest.connects()
    await guest.leaves(token=guest.token)
    await live.is_put_out()
    exported = json.loads(deployment.run("export", guest.user_id).stdout)

    erased = deployment.run("erase", guest.user_id)

    assert erased.returncode == 0, erased.stderr
    assert mark in json.dumps(exported, ensure_ascii=False)
    assert [each["room_id"] for each in exported["participations"]] == [room]
    assert mark not in await everything(database, redis_url)
    log = await host.log(room)
    assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
    named = [event["participant"]["userName"] for event in log if "participant" in event]
    assert "已删除" in named
    assert "赵六" in named
    await Guest(a, "钱七").joins(room)  # the room goes on, whatever its node remembers
    assert (await a.room(room))["participantCount"] == 3
    assert other.user_id in {p["userId"] for p in (await a.room(room))["participants"]}


@pytest.mark.parametrize("whom", ["guest", "host"])
async def test_open_rooms_forget_who_is_erased_on_every_node(
    deployment: Deployment, database: Database, a: Api, b: Api, whom: str
) -> None:
    """Snapshots, and what those who resume are told: on nodes that hold the room in memory."""
    mark = secrets.token_hex(4)
    host = await Host.hired(database, a)
    room = f"room_{secrets.token_hex(6)}"
    await a.post(
        "/api/interview/create-room",
        {"roomId": room, "roomName": f"王{mark}芳的房间", "hostName": f"王{mark}芳"}, host.token,
    )  # fmt: skip
    erased = await Guest(a, f"李{mark}明", f"求职者{mark}").joins(room)
    other = await Guest(a, "赵六", None).joins(room)
    stays = [await other.connects(at=node) for node in (a, b)]
    lives = [await erased.connects(at=node) for node in (b, a)]
    assert all(mark in live.texts[0] for live in stays)

    for person in (host.user_id, erased.user_id) if whom == "host" else (erased.user_id,):
        done = await asyncio.to_thread(deployment.run, "erase", person)  # pings are answered
        assert done.returncode == 0, done.stderr
    if whom == "guest":
        mark = f"李{mark}"  # the host's own name has the same mark
    async with asyncio.timeout(patient(FORGOTTEN_SECONDS)):
        for node in (a, b):
            while mark in await told_anew(other, node):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    lives[0].socket.transport.abort()
    lives[1].socket.transport.abort()
    for live in stays:
        away = await live.sees("participant_away", user_id=erased.user_id)
        assert away["participant"]["userName"] == "已删除"


FORGOTTEN_SECONDS = 5.0


async def told_anew(guest: Guest, node: Api) -> str:
    """All that a node tells of a room to somebody who comes: the state, and every event."""
    texts = ""
    for how in ({}, {"since": 0}):
        live = await guest.connects(at=node, **how)
        await live.says(type="sync", since=0)
        await live.says(type="ping")
        await live.sees("pong")
        texts += "".join(live.texts)
        await live.hangs_up()
    return texts


async def test_a_live_interview_forgets_its_person(
    deployment: Deployment, api: httpx.AsyncClient
) -> None:
    mark = secrets.token_hex(8)
    outline = [{"id": "q1", "category": "专业", "question": f"{mark}？", "difficulty": "easy"}]
    body = {"userId": f"sys_{mark}", "jobId": JOBS[0].id, "outline": outline}
    record = (await api.post("/api/open/interviews", json=body)).json()["data"]

    async def welcome() -> str:
        url = str(api.base_url).replace("http", "ws", 1)
        async with connect(
            f"{url}/api/open/interviews/{record['id']}/live", proxy=None,
            additional_headers={"X-API-Key": "wehan_open_api_key_2026"}, open_timeout=patient(10),
        ) as socket:  # fmt: skip
            return str(await socket.recv())

    assert mark in await welcome()
    done = await asyncio.to_thread(deployment.run, "erase", f"interview_{record['id']}")
    assert done.returncode == 0, done.stderr

    async with asyncio.timeout(patient(FORGOTTEN_SECONDS)):
        while mark in await welcome():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_nothing_of_an_interviews_person_is_left(
    deployment: Deployment, database: Database, redis_url: str, api: httpx.AsyncClient
) -> None:
    mark = secrets.token_hex(8)
    record = (
        await api.post(
            "/api/open/interviews",
            json={
                "userId": f"sys_uuid+{mark}=", "jobId": JOBS[0].id, "resumeId": f"resume-{mark}",
                "outline": [{"id": "q1", "category": "专业", "question": f"在{mark}公司做了什么？",
                             "difficulty": "easy"}],
            },
            headers={"Idempotency-Key": mark},
        )
    ).json()["data"]  # fmt: skip
    path = f"/api/open/interviews/{record['id']}"
    changed = await api.patch(
        path,
        json={
            "answers": [{"questionIndex": 0, "question": "?", "answer": f"我是{mark}",
                         "score": 80, "maxScore": 100}],
            "totalScore": 87, "suggestions": f"{mark}应当", "status": "COMPLETED", "grade": "B",
        },
    )  # fmt: skip
    exported = deployment.run("export", f"interview_{record['id']}")

    erased = deployment.run("erase", f"interview_{record['id']}")

    assert changed.status_code == 200, changed.text
    assert mark in exported.stdout, exported.stderr
    assert erased.returncode == 0, erased.stderr
    assert mark not in await everything(database, redis_url)
    read = (await api.get(path)).json()["data"]
    assert (read["status"], read.get("answers", [])) == ("COMPLETED", [])


@pytest.mark.parametrize("who", ["user_9999999", "guest_nobody", "interview_nothing"])
def test_of_nobody_nothing_is_erased_or_told(deployment: Deployment, who: str) -> None:
    for command in ("erase", "export"):
        done = deployment.run(command, who)

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"coordinator: nothing is kept of {who}\n"


async def test_an_id_that_begins_with_anothers_is_somebody_else(
    deployment: Deployment, database: Database, a: Api, host: Host, room: str
) -> None:
    guest = await Guest(a).joins(room)
    before = await database.fetchval(
        "SELECT erasures FROM interview_rooms WHERE room_id = $1", room
    )

    for part in (guest.user_id[:-1], "guest_", "user_"):
        for command in ("export", "erase"):
            done = deployment.run(command, part)

            assert (done.returncode, done.stdout) == (1, ""), done.stdout
            assert done.stderr == f"coordinator: nothing is kept of {part}\n"

    after = await database.fetchval(
        "SELECT erasures FROM interview_rooms WHERE room_id = $1", room
    )
    assert after == before


async def test_what_is_exported_is_json_whatever_letters_the_terminal_has(
    deployment: Deployment, a: Api, room: str
) -> None:
    guest = await Guest(a, "李明😀").joins(room)

    done = deployment.run("export", guest.user_id, PYTHONIOENCODING="ascii")

    assert done.stdout.isascii()
    assert json.loads(done.stdout)["participations"][0]["user_name"] == "李明😀"

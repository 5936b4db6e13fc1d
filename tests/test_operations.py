"""What operators use: commands, settings, health, metrics, logs, several workers, draining."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import jwt
import pytest
import pytest_asyncio

from coordinator.standins.seed import JOBS
from coordinator.store.database import Database
from tests.harness.node import JWT_SECRET, Deployment
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host, refusal


def command(
    *arguments: str, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs `coordinator …` with nothing in its environment but `env`."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "coordinator.cli.main", *arguments],
        env={"PATH": os.environ["PATH"], **env},
        cwd=cwd or tempfile.gettempdir(), capture_output=True, text=True, timeout=patient(60),
        check=False,
    )  # fmt: skip


async def at_once(*calls: Any) -> list[Any]:
    """Runs blocking calls side by side."""
    return list(await asyncio.gather(*(asyncio.to_thread(call) for call in calls)))


@pytest_asyncio.fixture
async def empty_url(database_url: str) -> AsyncIterator[str]:
    """A database without tables, for one test."""
    name = f"coordinator_empty_{secrets.token_hex(4)}"
    connection = await asyncpg.connect(os.environ["TEST_DATABASE_URL"])
    await connection.execute(f"CREATE DATABASE {name}")
    yield urlunsplit(urlsplit(database_url)._replace(path=f"/{name}"))
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


# -- migrating and refusing to serve -------------------------------------------------------------


async def test_many_nodes_migrate_at_once_and_each_migration_runs_once(
    deployment: Deployment, empty_url: str
) -> None:
    def migrate() -> subprocess.CompletedProcess[str]:
        return deployment.run("migrate", DATABASE_URL=empty_url)

    unready = await asyncio.to_thread(
        lambda: deployment.run("serve", "--port", "0", DATABASE_URL=empty_url)
    )
    done = await at_once(*[migrate] * 4)
    again = await asyncio.to_thread(migrate)

    assert unready.returncode == 1
    assert "coordinator migrate" in unready.stderr
    assert [each.returncode for each in done] == [0] * 4, [each.stderr for each in done]
    ran = [re.search(r"^(\d+) migrations run$", each.stdout, re.MULTILINE) for each in done]
    assert again.stdout == "the schema is up to date\n"
    connection = await asyncpg.connect(empty_url)
    names = [row["name"] for row in await connection.fetch("SELECT name FROM migration")]
    tables = await connection.fetchval("SELECT count(*) FROM deployment")
    await connection.close()
    assert names
    assert len(names) == len(set(names))
    assert sum(int(found[1]) for found in ran if found is not None) == len(names)
    assert tables == 1


def test_serve_refuses_with_one_message_that_lists_all_that_is_wrong() -> None:
    refused = command("serve", PORT="many", IDENTITY_PROOF="perhaps", ZEGO_SERVER_SECRET="short",
                      PRESENCE_GRACE="-1", RATE_LIMITS="join=often", LOG_FORMAT="xml",
                      TRUSTED_PROXIES="here", NODE_ENV="production", DB_PORT="x")  # fmt: skip

    assert refused.returncode == 1
    assert refused.stderr.count("coordinator:") == 1
    assert "Traceback" not in refused.stderr
    for name in ("DATABASE_URL", "REDIS_URL", "JWT_SECRET", "PORT", "IDENTITY_PROOF",
                 "ZEGO_SERVER_SECRET", "ZEGO_APP_ID", "PRESENCE_GRACE", "RATE_LIMITS", "LOG_FORMAT",
                 "TRUSTED_PROXIES"):  # fmt: skip
        assert refused.stderr.count(f"- {name}") >= 1, name
    assert "NODE_ENV" not in refused.stderr


def test_a_short_secret_is_refused_and_not_printed(deployment: Deployment) -> None:
    for value in ("only-31-bytes-only-31-bytes-aaa", f"{JWT_SECRET},short-one"):
        refused = deployment.run("serve", JWT_SECRET=value)

        assert refused.returncode == 1
        assert "JWT_SECRET" in refused.stderr
        assert value.split(",")[-1] not in refused.stderr


@pytest.mark.parametrize("arguments", [("serve",), ("serve", "--workers", "2"), ("migrate",)])
def test_without_postgres_it_says_so_once_and_ends(
    deployment: Deployment, arguments: tuple[str, ...]
) -> None:
    url = "postgresql://somebody:the-password@127.0.0.1:1/nothing"

    refused = deployment.run(*arguments, DATABASE_URL=url, PORT="0")

    assert refused.returncode == 1
    assert refused.stderr.count("coordinator:") == 1
    assert "PostgreSQL" in refused.stderr
    assert "the-password" not in refused.stderr + refused.stdout
    assert "Traceback" not in refused.stderr


def test_a_port_that_is_taken_ends_it_with_a_message(deployment: Deployment) -> None:
    taken = deployment.shared_node("a").port

    for workers in ("1", "2"):
        refused = deployment.run("serve", "--host", "127.0.0.1", "--port", str(taken),
                                 "--workers", workers)  # fmt: skip
        assert refused.returncode != 0
        assert "in use" in refused.stdout + refused.stderr
        assert "Traceback" not in refused.stdout + refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [("serve", "--port", "65536"), ("serve", "--port", "x"), ("serve", "--workers", "0"),
     ("token", "user_001", "--days", "many"), ("token", "user_001", "--days", "nan"),
     ("users", "add", "--openid", " "), ("users", "add", "--openid", "o" * 101), ("dance",), ()],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(arguments: tuple[str, ...]) -> None:
    refused = command(*arguments)

    assert refused.returncode == 2
    assert "usage: coordinator" in refused.stderr
    assert "Traceback" not in refused.stderr


# -- commands ------------------------------------------------------------------------------------


async def test_staff_is_added_once_changed_and_shut_out(a: Api, deployment: Deployment) -> None:
    openid = "o" + secrets.token_hex(6)

    first, *others = await at_once(
        *[lambda: deployment.run("users", "add", "--openid", openid, "--name", "王 芳")] * 3
    )
    user_id = first.stdout.strip()
    assert [each.stdout for each in others] == [first.stdout] * 2
    assert user_id.startswith("user_")
    assert len(user_id) >= len("user_001")

    token = deployment.run("token", user_id).stdout
    assert token.count("\n") == 1
    claims = jwt.decode(token.strip(), JWT_SECRET, algorithms=["HS256"])
    assert set(claims) == {"id", "openid", "role", "iat", "exp"}
    assert (claims["openid"], claims["role"]) == (openid, "hr")
    assert claims["exp"] - claims["iat"] == 7 * 86400
    assert (await a.get("/api/interview/rooms", token.strip())).status_code == 200

    role, disabled = await at_once(
        lambda: deployment.run("users", "role", user_id, "admin"),
        lambda: deployment.run("users", "disable", user_id),
    )
    assert role.stdout.strip() == disabled.stdout.strip() == user_id
    answer = await a.get("/api/interview/rooms", token.strip())
    assert refusal(answer) == (401, "UNAUTHORIZED")
    listed = deployment.run("users", "list").stdout.splitlines()
    (line,) = [line for line in listed if user_id in line.split()]
    for told in (openid, "王 芳", "admin", "disabled"):
        assert told in line


async def test_a_token_for_some_days_and_for_nobody(deployment: Deployment, host: Host) -> None:
    day, nobody, nonsense, role = await at_once(
        lambda: deployment.run("token", host.user_id, "--days", "1"),
        lambda: deployment.run("token", "user_9999999999"),
        lambda: deployment.run("token", "user_1"),
        lambda: deployment.run("users", "role", "user_99999", "admin"),
    )

    claims = jwt.decode(day.stdout.strip(), JWT_SECRET, algorithms=["HS256"])
    assert claims["exp"] - claims["iat"] == 86400
    for each in (nobody, nonsense, role):
        assert (each.returncode, each.stdout) == (1, "")
        assert "user_" in each.stderr


async def test_check_has_a_line_for_each_thing(
    deployment: Deployment, tmp_path: Path, empty_url: str
) -> None:
    """It reads a `.env` file as well; what is absent is said, and fails nothing."""
    settings = {"DATABASE_URL": deployment.database_url, "REDIS_URL": deployment.redis_url,
                "JWT_SECRET": JWT_SECRET}  # fmt: skip
    (tmp_path / ".env").write_text("".join(f"{k}='{v}'\n" for k, v in settings.items()))

    good, no_redis, no_tables = await at_once(
        lambda: command("check", cwd=tmp_path),
        lambda: command("check", cwd=tmp_path, REDIS_URL="redis://127.0.0.1:1/0"),
        lambda: command("check", cwd=tmp_path, DATABASE_URL=empty_url),
    )

    assert good.returncode == 0, good.stdout + good.stderr
    for name in ("settings", "postgres", "migrations", "redis"):
        assert any(line.startswith("ok") and name in line for line in good.stdout.splitlines())
    for name in ("ZEGO", "WX_APPID", "OPEN_API_KEYS"):
        assert name in good.stdout
    assert no_redis.returncode == 1
    assert [line for line in no_redis.stdout.splitlines() if line.startswith("FAIL")] == [
        line for line in no_redis.stdout.splitlines() if "redis" in line
    ]
    assert no_tables.returncode == 1
    assert "coordinator migrate" in no_tables.stdout


async def test_the_seed_is_the_documents_jobs_and_no_user_and_no_room(
    deployment: Deployment, empty_url: str
) -> None:
    assert deployment.run("migrate", DATABASE_URL=empty_url).returncode == 0

    for _ in range(2):
        seeded = deployment.run("seed", DATABASE_URL=empty_url)
        assert seeded.returncode == 0, seeded.stderr

    connection = await asyncpg.connect(empty_url)
    jobs = {row["id"] for row in await connection.fetch("SELECT id FROM jobs")}
    counts = [
        await connection.fetchval(f"SELECT count(*) FROM {table}")
        for table in ("enterprises", "interviews", "users", "interview_rooms")
    ]
    await connection.close()
    assert jobs == {job.id for job in JOBS}
    assert counts == [1, 1, 0, 0]


async def test_two_deployments_on_one_redis_do_not_hear_each_other(
    a: Api, host: Host, room: str, deployment: Deployment, empty_url: str
) -> None:
    """Rooms of one id in two databases, and no event of one in the other."""
    assert deployment.run("migrate", DATABASE_URL=empty_url).returncode == 0
    added = deployment.run("users", "add", "--openid", host.openid, DATABASE_URL=empty_url)
    assert added.stdout == "user_001\n"
    other = Api(deployment.node(DATABASE_URL=empty_url))
    namesake = Host(other, 1, host.openid, "hr")
    await namesake.creates(room)
    here, there = await host.connects(room), await namesake.connects(room)

    for number in range(3):
        await Guest(a, f"here {number}").joins(room)
    await Guest(other, "there").joins(room)

    await here.reaches(5)
    await there.reaches(3)
    names = [event["participant"]["userName"] for event in there.history]
    assert names == ["there"]
    assert (await there.hears_pong())["seq"] == 3
    status = await asyncio.to_thread(other.node.stop)
    assert status == 0
    await other.aclose()


# -- health, metrics, logs -----------------------------------------------------------------------


async def test_health_says_live_and_ready(a: Api, b: Api) -> None:
    assert (await a.get("/health/live")).status_code == 200
    ready, other = [(await api.get("/health/ready")).json() for api in (a, b)]
    assert set(ready) == {"status", "postgres", "redis", "node"}
    assert (ready["status"], ready["postgres"], ready["redis"]) == ("ready", "ok", "ok")
    assert ready["node"] != other["node"]


async def test_metrics_count_what_happens(a: Api, host: Host, room: str) -> None:
    before = await _metrics(a)
    live = await host.connects(room)
    await Guest(a).joins(room)
    await live.sees("participant_joined")

    after = await _metrics(a)

    def grew(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert after["coordinator_live_connections"] >= 1
    assert after["coordinator_live_rooms"] >= 1
    assert grew('coordinator_events_total{type="participant_joined"}') == 1
    assert grew('coordinator_events_total{type="participant_online"}') == 1
    assert grew("coordinator_deliveries_total") >= 1
    assert grew("coordinator_delivery_seconds_count") >= 1
    assert any(name.startswith("coordinator_delivery_seconds_bucket") for name in after)
    for name in ("gaps_repaired_total", "slow_consumers_total", "presence_expired_total"):
        assert f"coordinator_{name}" in after
    assert after["coordinator_redis_up"] == 1
    requests = [name for name in after if name.startswith("coordinator_http_requests")]
    assert sum(after[n] - before.get(n, 0.0) for n in requests if "_total" in n) >= 1


async def _metrics(api: Api) -> dict[str, float]:
    answer = await api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in answer.text.splitlines()
        if not line.startswith("#")
    }


async def test_logs_are_one_event_per_line_and_never_tell_a_secret(
    a: Api, deployment: Deployment, database: Database
) -> None:
    keys = "coze:the-open-key-of-this-test"
    talking = Api(deployment.node(LOG_LEVEL="debug", OPEN_API_KEYS=keys))
    host = await Host.hired(database, talking)
    room = await host.creates()
    guest = await Guest(talking).joins(room)
    await (await guest.connects(by="subprotocol", since=0)).hangs_up()
    await (await guest.connects(by="frame")).says(type="refresh", token=guest.token)
    await talking.http.get(
        "/api/open/jobs?secret=in-the-query", headers={"X-API-Key": "the-open-key-of-this-test"}
    )
    for _ in range(3):
        await (await talking.watch(room, "a-broken-token")).is_put_out()
    await talking.post("/api/wechat/login", {"code": "the-login-code"})
    await guest.leaves(token=guest.token)
    talking.node.stop()

    text = talking.node.logs()
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines
    for line in lines:
        assert {"event", "level", "timestamp", "node"} <= line.keys()
    for secret in (JWT_SECRET, host.token, guest.token, "a-broken-token", "the-open-key",
                   "the-login-code", "in-the-query", "since=", "Bearer"):  # fmt: skip
        assert secret not in text, secret
    await talking.aclose()


# -- several workers -----------------------------------------------------------------------------


async def test_workers_share_a_port_are_nodes_each_and_are_replaced(
    a: Api, admin: Host, deployment: Deployment, room: str
) -> None:
    node = deployment.node("--workers", "2")
    api = Api(node)
    first = await _workers(api, 2)
    lives = await asyncio.gather(*(admin.connects(room, at=api) for _ in range(8)))
    guest = await Guest(a).joins(room)
    for live in lives:
        await live.sees("participant_joined", user_id=guest.user_id)

    os.kill(first[0], signal.SIGKILL)
    workers = await _workers(api, 3)
    status = await asyncio.to_thread(node.stop)

    assert status == 0
    codes = [live.frames[-1].get("code") for live in lives if live.frames[-1]["type"] == "bye"]
    assert set(codes) <= {4200}
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    await api.aclose()


async def test_workers_whose_supervisor_was_killed_drain_and_give_the_port_back(
    deployment: Deployment,
) -> None:
    node = deployment.node("--workers", "2", DRAIN_SECONDS="0")
    api = Api(node)
    await _workers(api, 2)

    node.kill()

    async with asyncio.timeout(patient(15)):
        while await _listens(node.port):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await api.aclose()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True


async def _workers(api: Api, count: int) -> list[int]:
    """The process ids of the workers that were ever ready, once there are so many."""
    async with asyncio.timeout(patient(20)):
        while True:
            lines = [json.loads(line) for line in api.node.logs().splitlines()]
            found = [line["pid"] for line in lines if line["event"] == "node_started"]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


# -- draining ------------------------------------------------------------------------------------


async def test_sigterm_sends_everybody_elsewhere_and_ends_with_0_in_time(
    a: Api, deployment: Deployment, database: Database
) -> None:
    leaving = Api(deployment.node(DRAIN_SECONDS="4"))
    host = await Host.hired(database, a)
    room = await host.creates()
    watching = await host.connects(room)
    guests = [await Guest(leaving).joins(room) for _ in range(20)]
    lives = [await guest.connects(leaving) for guest in guests]
    silent = await leaving.watch(room, None)

    started = time.monotonic()
    leaving.node.terminate()
    told: list[float] = []
    for live in lives:
        live.socket.connection_lost_waiter.add_done_callback(
            lambda _: told.append(time.monotonic() - started)
        )
    await asyncio.sleep(0.3)
    assert (await leaving.get("/health/ready")).status_code == 503
    assert (await leaving.room(room))["status"] == "active"
    assert await (await leaving.watch(room, host.token)).is_put_out() == 4200
    for live in lives:
        assert await live.is_put_out() == 4200
        assert 0 <= live.frames[-1]["afterMs"] <= 2000
    assert min(told) >= 2
    assert 1 < max(told) - min(told) < 2.5
    back = [
        await guest.connects(a, since=live.seq) for guest, live in zip(guests, lives, strict=True)
    ]
    status = await asyncio.to_thread(leaving.node.process.wait, 10)

    assert status == 0
    assert time.monotonic() - started < patient(4 + 5)
    with pytest.raises(ConnectionRefusedError):
        await leaving.watch(room, host.token)
    await silent.until(lambda: silent.code is not None)
    log = await host.log(room)
    await watching.reaches(len(log))
    kinds = {event["type"] for event in watching.history}
    assert "participant_left" not in kinds
    assert set(watching.people.values()) == {"online"}
    assert len(back) == 20
    rows = await database.fetchval("SELECT count(*) FROM nodes WHERE name LIKE $1",
                                   f"%:{leaving.node.process.pid}")  # fmt: skip
    assert rows == 0
    await leaving.aclose()


async def test_a_node_ends_in_time_while_redis_hangs(deployment: Deployment) -> None:
    """Redis takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        node = deployment.node(REDIS_URL=f"redis://127.0.0.1:{port}/0")
        ready = (await Api(node).get("/health/ready")).json()
        assert (ready["status"], ready["redis"]) == ("degraded", "down")

        started = time.monotonic()
        status = await asyncio.to_thread(node.stop)

    assert status == 0
    assert time.monotonic() - started < patient(1 + 5)


async def test_requests_under_way_are_answered_while_a_node_ends(
    a: Api, deployment: Deployment, room: str
) -> None:
    leaving = Api(deployment.node())

    asked = [asyncio.create_task(Guest(leaving).asks_to_join(room)) for _ in range(40)]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    leaving.node.terminate()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    status = await asyncio.to_thread(leaving.node.process.wait, 10)

    assert status == 0
    answered = [each for each in answers if isinstance(each, httpx.Response)]
    joined = [each for each in answered if each.status_code == 200]
    assert {each.status_code for each in answered} <= {200, 503}
    people = (await a.room(room))["participants"]
    ids = {person["userId"] for person in people}
    assert {each.json()["data"]["guestId"] for each in joined} <= ids
    await leaving.aclose()

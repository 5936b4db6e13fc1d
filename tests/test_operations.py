"""Health, metrics and logs; two deployments on one Redis."""

from __future__ import annotations

import asyncio
import json
from functools import partial

from coordinator.store.database import Database
from tests.harness.node import JWT_SECRET, Deployment
from tests.harness.observing import becomes, metrics
from tests.harness.people import Api, Guest, Host


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


async def test_health_says_live_and_ready(a: Api, b: Api) -> None:
    assert (await a.get("/health/live")).status_code == 200
    for api in (a, b):
        await becomes(api, "ready")
    ready, other = [(await api.get("/health/ready")).json() for api in (a, b)]
    assert set(ready) == {"status", "postgres", "redis", "node"}
    assert (ready["status"], ready["postgres"], ready["redis"]) == ("ready", "ok", "ok")
    assert ready["node"] != other["node"]


async def test_metrics_count_what_happens(a: Api, host: Host, room: str) -> None:
    before = await metrics(a)
    live = await host.connects(room)
    await Guest(a).joins(room)
    await live.sees("participant_joined")

    after = await metrics(a)

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


async def test_a_node_without_limits_serves(deployment: Deployment, host: Host, room: str) -> None:
    """0 is off, and the largest numbers are no limit either."""
    off = dict.fromkeys(("LIVE_BUFFER", "LIVE_MAX_CONNECTIONS", "ROOM_CAPACITY"), "0")
    most = {name: str(2**53) for name in off}
    for limits in (off, most):
        api = Api(await asyncio.to_thread(partial(deployment.node, **limits)))
        live = await host.connects(room, at=api)
        guest = await Guest(api).joins(room)

        await live.sees("participant_joined", user_id=guest.user_id)

        await live.hangs_up()
        await api.aclose()

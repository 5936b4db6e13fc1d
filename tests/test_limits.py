"""Rate limits: counted in Redis by all nodes, by each node for itself while Redis is away."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest

from coordinator.domain.errors import RateLimited
from coordinator.redis import fail_fast_redis
from coordinator.standins.servers import EmbeddedRedis
from coordinator.standins.wechat import WechatStandin
from coordinator.web import limits as limits_module
from coordinator.web import shared_windows
from coordinator.web.addresses import client_address, counted_as
from coordinator.web.limits import Limits, LocalWindows
from tests.harness.limited import limited_nodes, wait_for_redis
from tests.harness.node import Deployment
from tests.harness.patience import patient
from tests.harness.ports import free_port

RATES = {"login": "3/minute", "join": "", "qr": "2/second", "open": "5/minute"}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy test machine is not a dead Redis: only the tests about that keep the real limit."""
    wait_for_redis(monkeypatch)


def limits_on(redis_url: str, prefix: str | None = None, **more: object) -> Limits:
    redis = fail_fast_redis(redis_url)
    return Limits(RATES, redis, prefix or secrets.token_hex(4), (), **{"nodes": lambda: 1, **more})  # type: ignore[arg-type]


@pytest.fixture
def limits(redis_url: str) -> Limits:
    return limits_on(redis_url)


async def admitted(limits: Limits, name: str, who: str, tries: int) -> int:
    """How many of so many requests at once get through."""
    answers = await asyncio.gather(
        *(limits.check(name, who) for _ in range(tries)), return_exceptions=True
    )
    assert all(a is None or isinstance(a, RateLimited) for a in answers), answers
    return sum(a is None for a in answers)


async def test_the_rate_is_admitted_and_no_more(limits: Limits) -> None:
    assert await admitted(limits, "login", "10.0.0.1", 20) == 3


async def test_everybody_has_a_window_of_its_own(limits: Limits) -> None:
    assert await admitted(limits, "login", "10.0.0.1", 4) == 3
    assert await admitted(limits, "login", "10.0.0.2", 4) == 3


async def test_the_kinds_do_not_share_a_window(limits: Limits) -> None:
    assert await admitted(limits, "login", "10.0.0.1", 4) == 3
    assert await admitted(limits, "open", "10.0.0.1", 6) == 5


@pytest.mark.parametrize("name", ["join", "leave", "zego", "view", "live", "create", "open"])
async def test_what_is_frequent_awaits_nothing(redis_url: str, name: str) -> None:
    """But for the first request at a node that has just started."""
    limits = Limits({name: "60/minute"}, fail_fast_redis(redis_url), "p", (), nodes=lambda: 1)
    who = secrets.token_hex(4)
    await limits.check(name, who)
    with pytest.raises(StopIteration):
        limits.check(name, who).send(None)
    await limits.close()


@pytest.mark.parametrize("name", ["login", "phone", "qr", "key", "ticket"])
async def test_what_secrets_are_guessed_by_is_exact_on_many_nodes(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(shared_windows, "NEW_SECONDS", 0.0)
    redis, prefix = fail_fast_redis(redis_url), secrets.token_hex(4)
    several = [Limits({name: "30/minute"}, redis, prefix, (), nodes=lambda: 3) for _ in range(3)]
    assert await admitted(several[0], name, "10.0.0.1", 29) == 29
    assert sum([await admitted(one, name, "10.0.0.1", 5) for one in several]) == 1
    await redis.aclose()


async def test_a_refusal_says_when_the_next_request_fits(limits: Limits) -> None:
    await admitted(limits, "login", "10.0.0.1", 3)
    with pytest.raises(RateLimited) as refused:
        await limits.check("login", "10.0.0.1")
    assert refused.value.retry_after is not None
    assert 55 <= refused.value.retry_after <= 60


async def test_the_window_slides(limits: Limits) -> None:
    """After the time that a refusal names, one fits again."""
    assert await admitted(limits, "qr", "user_001", 3) == 2
    await asyncio.sleep(1.05)
    assert await admitted(limits, "qr", "user_001", 3) == 2


async def test_an_empty_rate_is_no_limit(limits: Limits) -> None:
    assert await admitted(limits, "join", "10.0.0.1", 500) == 500


async def test_two_nodes_count_together(redis_url: str) -> None:
    one, two = limits_on(redis_url, "shared"), limits_on(redis_url, "shared")
    who = secrets.token_hex(4)
    through = await asyncio.gather(admitted(one, "open", who, 10), admitted(two, "open", who, 10))
    assert sum(through) == 5


async def test_two_deployments_on_one_redis_count_apart(redis_url: str) -> None:
    one, two = limits_on(redis_url, "d1"), limits_on(redis_url, "d2")
    who = secrets.token_hex(4)
    assert await admitted(one, "login", who, 4) == 3
    assert await admitted(two, "login", who, 4) == 3


async def test_without_redis_the_node_counts_for_itself() -> None:
    limits = limits_on(f"redis://127.0.0.1:{free_port()}/0")
    assert await admitted(limits, "login", "10.0.0.1", 20) == 3
    assert await admitted(limits, "login", "10.0.0.2", 20) == 3


class SilentRedis:
    """Accepts connections and never answers: what a half-open network path looks like."""

    def __init__(self, server: socket.socket) -> None:
        self.url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        self._server = server
        self._clients: list[socket.socket] = []

    def was_asked(self) -> bool:
        """True where a client has come or said something since this was asked last."""
        asked = False
        with contextlib.suppress(BlockingIOError):
            while True:
                client, _ = self._server.accept()
                client.setblocking(False)
                self._clients.append(client)
                asked = True
        for client in self._clients:
            with contextlib.suppress(BlockingIOError):
                asked |= client.recv(65536) != b""
        return asked


@pytest.fixture
def silent_redis() -> Iterator[SilentRedis]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield SilentRedis(server)


async def test_a_redis_that_hangs_delays_one_request_and_not_each(
    silent_redis: SilentRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits_module, "REDIS_SECONDS", 0.25)
    limits = limits_on(silent_redis.url, clock=lambda: 0.0)
    await limits.check("open", "10.0.0.1")
    assert silent_redis.was_asked()
    for _ in range(4):
        await limits.check("open", "10.0.0.1")
    assert not silent_redis.was_asked()
    with pytest.raises(RateLimited):
        await limits.check("open", "10.0.0.1")


async def test_redis_counts_again_when_it_returns(tmp_path: Path) -> None:
    now = 0.0
    redis = EmbeddedRedis(tmp_path)
    one = limits_on(redis.url, "x", clock=lambda: now)
    other = limits_on(redis.url, "x", clock=lambda: now)
    assert await admitted(one, "open", "10.0.0.1", 9) == 5
    with redis:
        now += limits_module.PAUSE_SECONDS
        assert await admitted(one, "login", "10.0.0.1", 1) == 1
        assert await admitted(one, "login", "10.0.0.1", 1) == 1
        assert await admitted(other, "login", "10.0.0.1", 3) == 1


def test_local_windows_forget_who_was_seen_longest_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "LOCAL_CALLERS", 2)
    windows = LocalWindows(lambda: 0.0)
    for who in ("a", "b", "a", "c"):
        windows.wait(("login", who), 1, 60)
    assert windows.wait(("login", "a"), 1, 60) == 60
    assert windows.wait(("login", "b"), 1, 60) is None


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::2", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::2", "2001:db8:1:3::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("user_001", "user_001"),
        ("name:with:colons", "name:with:colons"),
    ],
)
def test_an_ipv6_client_counts_as_its_64(address: str, counted: str) -> None:
    assert counted_as(address) == counted


async def test_forwarded_addresses_count_from_trusted_proxies_only(redis_url: str) -> None:
    trusted = (ip_network("10.0.0.0/8"),)
    limits = Limits(RATES, fail_fast_redis(redis_url), "p", trusted, nodes=lambda: 1)
    headers = [(b"x-forwarded-for", b"1.2.3.4, 198.51.100.7")]
    assert limits.address({"client": ("10.1.1.1", 1), "headers": headers}) == "198.51.100.7"
    assert limits.address({"client": ("192.0.2.1", 1), "headers": headers}) == "192.0.2.1"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.1.1.1", "203.0.113.1:4711", "203.0.113.1"),
        ("10.1.1.1", "[2001:db8::1]:443", "2001:db8::1"),
        ("10.1.1.1", "[2001:db8::1]", "2001:db8::1"),
        ("10.1.1.1", "2001:db8::1", "2001:db8::1"),
        ("10.1.1.1", "::ffff:203.0.113.1", "203.0.113.1"),
        ("10.1.1.1", "[::ffff:203.0.113.1]:80", "203.0.113.1"),
        ("10.1.1.1", "198.51.100.1, 203.0.113.1:1, 10.2.2.2:99", "203.0.113.1"),
        ("::ffff:10.1.1.1", "203.0.113.1", "203.0.113.1"),
        ("::ffff:192.0.2.1", "203.0.113.1", "192.0.2.1"),
        ("10.1.1.1", "203.0.113.1, nonsense", "10.1.1.1"),
        ("10.1.1.1", "203.0.113.1:x", "10.1.1.1"),
        ("10.1.1.1", "[203.0.113.1", "10.1.1.1"),
        ("10.1.1.1", "", "10.1.1.1"),
    ],
)
@pytest.mark.parametrize("network", ["10.0.0.0/8", "::ffff:10.0.0.0/104"])
def test_who_is_calling_behind_a_proxy(
    peer: str, forwarded: str, client: str, network: str
) -> None:
    assert client_address(peer, [forwarded], [ip_network(network)]) == client


@pytest.fixture
def standin() -> Iterator[WechatStandin]:
    with WechatStandin() as standin:
        yield standin


def logged_in(client: httpx.Client, who: str) -> dict[str, str]:
    code = f"{who}.{secrets.token_hex(4)}"
    answer = client.post("/api/wechat/login", json={"code": code}).json()
    return {"Authorization": f"Bearer {answer['data']['token']}"}


def answering(client: httpx.Client) -> float:
    """How long the node has been over its answers, by its own clock."""
    name = "coordinator_http_request_seconds_sum "
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))


@pytest.mark.parametrize(("name", "path"), [("phone", "get-phone"), ("qr", "generate-qrcode")])
def test_calls_of_staff_are_counted_per_user(
    standin: WechatStandin, database_url: str, redis_url: str, name: str, path: str
) -> None:
    settings = standin.settings | {"RATE_LIMITS": f"{name}=2/hour"}
    body = {"code": "xxx", "scene": "poster"}
    with Deployment(database_url, redis_url, **settings) as deployment:
        for node in limited_nodes(deployment):
            with httpx.Client(base_url=node.url, timeout=patient(20)) as client:
                users = [logged_in(client, secrets.token_hex(4)) for _ in range(2)]
                answers = [
                    client.post(f"/api/wechat/{path}", json=body, headers=user)
                    for user in users
                    for _ in range(3)
                ]
    assert [answer.status_code for answer in answers] == [200, 200, 429] * 2


def test_a_frozen_redis_neither_refuses_nor_admits_everybody(
    standin: WechatStandin, database_url: str, tmp_path: Path
) -> None:
    """Limits are kept and WeChat's calls work, while Redis accepts connections and says nothing."""
    settings = standin.settings | {"RATE_LIMITS": "zego=3/hour"}
    with (
        EmbeddedRedis(tmp_path) as redis,
        Deployment(database_url, redis.url, **settings) as deployment,
        httpx.Client(base_url=deployment.node().url, timeout=patient(20)) as client,
    ):
        assert redis.process is not None
        redis.process.send_signal(signal.SIGSTOP)
        try:
            before = answering(client)
            headers = logged_in(client, "frozen")
            phone = client.post("/api/wechat/get-phone", json={"code": "xxx"}, headers=headers)
            statuses = [
                client.post("/api/zego/generate-token", json={}).status_code for _ in range(6)
            ]
            took = answering(client) - before
        finally:
            redis.process.send_signal(signal.SIGCONT)
    assert phone.status_code == 200
    assert statuses == [400, 400, 400, 429, 429, 429]
    assert took < 5

"""What stands around the API: health, metrics, the documentation's pages, limits on views."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from coordinator.store.database import Database
from tests.harness.limited import limited_nodes
from tests.harness.node import Deployment, NodeProcess
from tests.harness.people import Api, Host, new_room_id, refusal

# -- health and metrics --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
async def test_head_is_answered_like_get(a: Api, path: str) -> None:
    got, head = await a.http.get(path), await a.http.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"") == (200, b"")
    got.headers.pop("content-length")  # of metrics, the next text may be longer
    assert int(head.headers.pop("content-length")) > 0
    assert head.headers == got.headers


async def test_the_type_of_the_metrics_names_its_charset_once(a: Api) -> None:
    kind = (await a.http.get("/metrics")).headers["content-type"]
    assert kind.count("charset=utf-8") == 1
    assert kind.startswith("text/plain; version=")


async def test_a_proxy_on_this_machine_reads_no_metrics(a: Api) -> None:
    for forwarded in ("203.0.113.1", "127.0.0.1", ""):
        response = await a.http.get("/metrics", headers={"X-Forwarded-For": forwarded})
        assert refusal(response) == (403, "FORBIDDEN")


@pytest.fixture(scope="module")
def proxied(deployment: Deployment) -> NodeProcess:
    """A node behind a proxy on this machine, whose metrics one network may read."""
    return deployment.node(TRUSTED_PROXIES="127.0.0.1", METRICS_ALLOW="10.1.0.0/16,2001:db8::/32")


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        (None, 200),
        ("10.1.2.3", 200),
        ("10.1.2.3:4711", 200),
        ("::ffff:10.1.2.3", 200),
        ("[2001:db8::7]:443", 200),
        ("10.2.2.3", 403),
        ("10.1.2.3, 192.0.2.1", 403),
        ("127.0.0.1", 403),
    ],
)
def test_metrics_are_for_the_networks_that_are_allowed(
    proxied: NodeProcess, forwarded: str | None, status: int
) -> None:
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    assert proxied.get("/metrics", headers=headers).status_code == status


# -- pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/schema/x", "/schema/openapi.yaml", "/schema/a/b", "/x", "/api"])
async def test_an_unknown_path_answers_in_the_documented_shape(a: Api, path: str) -> None:
    assert refusal(await a.http.get(path)) == (404, "NOT_FOUND")


async def test_pages_carry_their_security_headers(a: Api) -> None:
    for path in ("/schema", "/", "/console", "/join/x"):
        response = await a.http.get(path)
        assert response.headers["content-type"] == "text/html; charset=utf-8", path
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy, path
        assert "frame-ancestors 'none'" in policy, path
        assert response.headers["x-content-type-options"] == "nosniff", path


# -- limits --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def limited(database_url: str, redis_url: str) -> Iterator[Deployment]:
    settings = {"RATE_LIMITS": "view=3/hour,create=2/hour", "TRUSTED_PROXIES": "127.0.0.1"}
    with Deployment(database_url, redis_url, **settings) as deployment:
        yield deployment


@pytest.fixture
def caller() -> dict[str, str]:
    """Headers of an address that nobody has called from."""
    return {"X-Forwarded-For": "203." + ".".join(str(secrets.randbelow(256)) for _ in range(3))}


@pytest.mark.parametrize(
    "path",
    [
        "/api/interview/room/nowhere",
        "/api/interview/room/nowhere/participants",
        "/api/interview/room/nowhere/events",
        "/schema",
        "/schema/openapi.json",
        "/uploads/qrcode/x.png",
    ],
)
def test_what_anybody_may_view_is_limited(
    limited: Deployment, caller: dict[str, str], path: str
) -> None:
    for node in limited_nodes(limited, first=limited.shared_node("limited")):
        answers = [node.get(path, headers=caller) for _ in range(4)]
    assert [answer.status_code == 429 for answer in answers] == [False] * 3 + [True]
    assert int(answers[-1].headers["retry-after"]) >= 1


async def test_rooms_and_profiles_are_limited_per_user(
    limited: Deployment, database: Database
) -> None:
    body: dict[str, Any] = {"roomName": "x", "hostName": "y"}
    for node in limited_nodes(limited, first=limited.shared_node("limited")):
        answers: list[httpx.Response] = []
        async with aclosing(Api(node)) as api:
            for who in (await Host.hired(database, api), await Host.hired(database, api)):
                for _ in range(3):
                    room = body | {"roomId": new_room_id()}
                    answers.append(await api.post("/api/interview/create-room", room, who.token))
                for _ in range(3):
                    answers.append(await api.post("/api/wechat/profile", {"name": "z"}, who.token))
    assert [answer.status_code for answer in answers] == [200, 200, 429] * 4

"""What `coordinator check` tries of Redis: what `serve` uses, in the way that it uses it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
)

from coordinator.redis_url import RedisTarget
from coordinator.settings import Settings

OLDEST = (6, 2)
OLDEST_CLUSTER = (7, 0)
SECONDS = 2.0

_MODES = {"standalone": "single"}
_SCHEMES = {"single": "redis://", "sentinel": "redis+sentinel://", "cluster": "redis+cluster://"}
_SCRIPT = "return redis.call('INCR', KEYS[1])"


class RedisUnfit(Exception):
    """This Redis cannot be used; the message says why."""


def explain(error: BaseException) -> str:
    """What Redis' refusal means, in one sentence without its full stop."""
    text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    if isinstance(error, NoPermissionError):
        return f"its user's rights (ACL) do not suffice: {text}"
    if isinstance(error, AuthenticationError | AuthorizationError) or any(
        mark in text for mark in ("NOAUTH", "WRONGPASS", "invalid username-password")
    ):
        return "the login is refused: wrong user or password, or none given"
    if isinstance(error, ReadOnlyError):
        return "it is a read-only replica: REDIS_URL must name the master"
    if isinstance(error, ResponseError):
        return f"it refuses: {text}"
    if isinstance(error, TimeoutError):
        return "it cannot be reached: no answer in time"
    cause = error.__cause__ or error
    return f"it cannot be reached ({type(cause).__name__})"


async def _kind(settings: Settings) -> str:
    target = settings.redis
    async with _client(target) as redis:
        await redis.ping()
        about = await _about(redis)
    if not about:
        return f"{target.kind}, {target.place} (its user may not INFO)"
    mode = about.get("redis_mode") or about.get("server_mode", "standalone")  # Valkey's own name
    found = _MODES.get(mode, mode)
    wanted = "single" if target.kind == "sentinel" else target.kind
    if found != wanted:
        raise RedisUnfit(f"{target.place} is a {found}: write {_SCHEMES.get(found, '?')}")
    version = tuple(int(part) for part in about["redis_version"].split(".")[:2])
    oldest = OLDEST_CLUSTER if target.kind == "cluster" else OLDEST
    if version < oldest:
        raise RedisUnfit(f"version {about['redis_version']} is too old: {oldest[0]}.{oldest[1]}")
    server = about.get("server_name", "redis")
    return f"{target.kind}, {server} {about.get('valkey_version', about['redis_version'])}"


async def _about(redis: Any) -> dict[str, Any]:
    """`INFO server` of one server; empty where that is not allowed."""
    try:
        if isinstance(redis, RedisCluster):
            answer = await redis.info("server", target_nodes=RedisCluster.RANDOM)
            return next(iter(answer.values())) if "redis_version" not in answer else answer
        about: dict[str, Any] = await redis.info("server")
        return about
    except NoPermissionError:
        return {}


async def _writable(settings: Settings) -> str:
    async with _client(settings.redis) as redis:
        key = _name()
        await redis.set(key, "1", px=5000)
        await redis.delete(key)
    return "yes"


async def _scripts(settings: Settings) -> str:
    """As the rate limits run them: EVALSHA, and SCRIPT LOAD where it is not known yet."""
    async with _client(settings.redis) as redis:
        key = _name()
        await redis.register_script(_SCRIPT)(keys=[key])
        await redis.delete(key)
    return "run"


async def _pubsub(settings: Settings) -> str:
    """A round trip, the way that events take."""
    channel, is_sharded = _name(), settings.redis.kind == "cluster"
    async with _client(settings.redis) as redis:
        if is_sharded:
            return await _sharded_round_trip(redis, channel)
        pubsub = redis.pubsub(ignore_subscribe_messages=True)
        try:
            await pubsub.subscribe(channel)
            await redis.publish(channel, "ping")
            async with asyncio.timeout(SECONDS):
                while await pubsub.get_message(timeout=0.2) is None:
                    pass
        except TimeoutError:
            raise RedisUnfit("publishes, but does not deliver") from None
        finally:
            await pubsub.aclose()
    return "round trip"


async def _sharded_round_trip(cluster: Any, channel: str) -> str:
    """SSUBSCRIBE at the node that serves the channel's slot, SPUBLISH through the cluster."""
    node = cluster.get_node_from_key(channel)
    connection = node.acquire_connection()
    try:
        await connection.connect()
        await connection.send_command("SSUBSCRIBE", channel)
        await connection.read_response(timeout=SECONDS)
        await cluster.execute_command("SPUBLISH", channel, "ping")
        await connection.read_response(timeout=SECONDS)
    finally:
        await connection.disconnect()
    return "sharded round trip"


def _name() -> str:
    return f"coordinator:check:{secrets.token_hex(4)}"


@contextlib.asynccontextmanager
async def _client(target: RedisTarget) -> AsyncIterator[Any]:
    """A client of that kind, closed afterwards."""
    client, also_close = _made(target)
    try:
        yield client
    finally:
        await client.aclose()
        for each in also_close:
            await each.aclose()


def _made(target: RedisTarget) -> tuple[Any, list[Any]]:
    login: dict[str, Any] = {"username": target.username, "password": target.password}
    times: dict[str, Any] = {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS}
    tls = {"ssl": True, **target.tls} if target.tls is not None else {}
    if target.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in target.addresses]
        return RedisCluster(startup_nodes=nodes, **login, **times, **tls), []
    if target.kind == "sentinel":
        own = {"username": target.sentinel_username, "password": target.sentinel_password}
        sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py's
            list(target.addresses), sentinel_kwargs={**own, **times, **tls},
            **login, **times, **tls, db=target.db,
        )  # fmt: skip
        return sentinel.master_for(target.master), sentinel.sentinels
    if target.path:
        return Redis(unix_socket_path=target.path, db=target.db, **login, **times), []
    host, port = target.addresses[0]
    return Redis(host=host, port=port, db=target.db, **login, **times, **tls), []


CHECKS: list[tuple[str, Callable[[Settings], Awaitable[str]]]] = [
    ("redis", _kind), ("redis writable", _writable), ("redis scripts", _scripts),
    ("redis pub/sub", _pubsub),
]  # fmt: skip

"""What `coordinator check` tries of Redis: what `serve` uses, in the way that it uses it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from redis.asyncio import RedisCluster
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from coordinator.redis import fail_fast_redis
from coordinator.redis_connection import ConnectionFailed, connect
from coordinator.redis_servers import find_servers
from coordinator.redis_url import RedisTarget
from coordinator.settings import Settings
from coordinator.store.explain import explain_network

OLDEST = (6, 2)
OLDEST_CLUSTER = (7, 0)
SECONDS = 2.0

_MODES = {"standalone": "single"}
_SCHEMES = {"single": "redis://", "sentinel": "redis+sentinel://", "cluster": "redis+cluster://"}
_MISTAKEN = {
    "Cluster mode is not enabled": "it is no cluster: write redis://",
    "unknown command 'SENTINEL'": "it is no sentinel: write redis:// for a server by itself",
}
"""What a server says that is another kind than `REDIS_URL` has it."""
_SCRIPT = "return redis.call('INCR', KEYS[1])"


class RedisUnfit(Exception):
    """This Redis cannot be used; the message says why."""


def explain(error: BaseException) -> str:
    """What Redis' refusal means, in one sentence without its full stop."""
    text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    for mark, sentence in _MISTAKEN.items():
        if mark in text:
            return sentence
    if isinstance(error, NoPermissionError) or text.startswith("NOPERM"):
        return f"its user's rights (ACL) do not suffice: {text}"
    if isinstance(error, AuthenticationError | AuthorizationError) or any(
        mark in text for mark in ("NOAUTH", "WRONGPASS", "invalid username-password")
    ):
        return "the login is refused: wrong user or password, or none given"
    if isinstance(error, ReadOnlyError):
        return "it is a read-only replica: REDIS_URL must name the master"
    if isinstance(error, ResponseError):
        return f"it refuses: {text}"
    if isinstance(error, ConnectionFailed):
        return f"it cannot be used: {text}"
    if isinstance(error, MasterNotFoundError):
        return "it cannot be reached: no sentinel that answers knows its master"
    cause = _first_cause(error)
    return explain(cause) if isinstance(cause, ResponseError) else explain_network(cause)


def _first_cause(error: BaseException) -> BaseException:
    """What the system said, where redis-py's error hides it; a time limit is Python's own."""
    if isinstance(error, RedisTimeoutError):
        return TimeoutError()
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


async def kind(settings: Settings) -> str:
    """What answers, and that it is what `REDIS_URL` says."""
    target = settings.redis
    async with _client(settings) as redis:
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
    async with _client(settings) as redis:
        key = _name()
        await redis.set(key, "1", px=5000)
        await redis.delete(key)
    return "yes"


async def _scripts(settings: Settings) -> str:
    """As the rate limits run them: EVALSHA, and SCRIPT LOAD where it is not known yet."""
    async with _client(settings) as redis:
        key = _name()
        await redis.register_script(_SCRIPT)(keys=[key])
        await redis.delete(key)
    return "run"


async def _pubsub(settings: Settings) -> str:
    """A round trip by each server that holds data, the way that events take."""
    target = settings.redis
    servers = await find_servers(target)
    for address in servers.addresses:
        tag = f"{{{servers.tag_on(address)}}}" if servers.is_cluster else ""
        await _round_trip(target, address, tag)
    count = len(servers.addresses)
    return f"sharded round trip on {count} servers" if servers.is_cluster else "round trip"


async def _round_trip(target: RedisTarget, address: tuple[str, int] | None, tag: str) -> None:
    heard = asyncio.Event()
    channel, sharded = f"{_name()}{tag}", "S" if tag else ""
    connection = await connect(target, address, lambda *_: heard.set())
    try:
        await connection.subscribe(f"{sharded}SUBSCRIBE".encode(), [channel.encode()])
        await connection.ask(f"{sharded}PUBLISH", channel, "ping")
        async with asyncio.timeout(SECONDS):
            await heard.wait()
    except TimeoutError:
        raise RedisUnfit("publishes, but does not deliver") from None
    finally:
        connection.abort("checked")


def _name() -> str:
    return f"coordinator:check:{secrets.token_hex(4)}"


@contextlib.asynccontextmanager
async def _client(settings: Settings) -> AsyncIterator[Any]:
    """The client that limits and tokens use, closed afterwards."""
    client = fail_fast_redis(settings.redis_url)
    try:
        yield client
    finally:
        await client.aclose()


CHECKS: list[tuple[str, Callable[[Settings], Awaitable[str]]]] = [
    ("redis writable", _writable), ("redis scripts", _scripts), ("redis pub/sub", _pubsub),
]  # fmt: skip
"""What is tried of a Redis that answers (`kind`)."""

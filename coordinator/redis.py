"""The way to Redis: for the bus `redis_connection.py`, for limits and tokens the client made here.

The client never waits long and never tries twice, so that a Redis that is down, or that accepts
connections and then says nothing, costs a request a quarter of a second and no more. It goes to the
sentinels' master, or to the cluster's node that has the key.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from coordinator.redis_url import RedisTarget, parse_redis_url

REDIS_SECONDS = 0.25
"""How long one command waits at most, whatever state Redis is in."""
CONNECTIONS = 32

AWAY = (RedisError, RedisClusterException, OSError, TimeoutError, RuntimeError)
"""What a command raises when Redis is gone, going, coming, or too slow. No node of a cluster that
answers is an error of its own kind. redis-py lets uvloop's `RuntimeError` through where the
connection went between two of its steps.
"""

RedisClient = Redis | RedisCluster


def fail_fast_redis(url: str) -> RedisClient:
    """A client with its own connections, none of them opened yet. The caller closes it.

    Raises:
        UrlError: `url` cannot be read.
    """
    target = parse_redis_url(url)
    makes = {"single": _single, "sentinel": _sentinel, "cluster": _cluster}
    return makes[target.kind](target)


def _options(target: RedisTarget) -> dict[str, Any]:
    return {
        "username": target.username,
        "password": target.password,
        "socket_timeout": REDIS_SECONDS,
        "socket_connect_timeout": REDIS_SECONDS,
    }


def _single(target: RedisTarget) -> RedisClient:
    options = _options(target) | {"db": target.db, "retry": Retry(NoBackoff(), 0)}
    if target.path:
        options |= {"path": target.path, "connection_class": UnixDomainSocketConnection}
        del options["socket_connect_timeout"]
    else:
        options["host"], options["port"] = target.addresses[0]
    if target.tls is not None:
        options |= {"connection_class": SSLConnection, **target.tls}
    pool = BlockingConnectionPool(timeout=REDIS_SECONDS, max_connections=CONNECTIONS, **options)
    return Redis.from_pool(pool)


def _sentinel(target: RedisTarget) -> RedisClient:
    times = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
    tls = {} if target.tls is None else {"ssl": True, **target.tls}
    login = {"username": target.sentinel_username, "password": target.sentinel_password}
    make: Any = Sentinel  # redis-py has no types for it
    sentinels = make(target.addresses, sentinel_kwargs=times | tls | login)
    master: Redis = sentinels.master_for(
        target.master, db=target.db, retry=Retry(NoBackoff(), 0), max_connections=CONNECTIONS,
        **_options(target), **tls,
    )  # fmt: skip
    return master


def _cluster(target: RedisTarget) -> RedisClient:
    tls = {} if target.tls is None else {"ssl": True, **target.tls}
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in target.addresses],
        retry=Retry(NoBackoff(), 1),  # a slot that has moved is asked for once more
        max_connections=CONNECTIONS,
        **_options(target),
        **tls,
    )

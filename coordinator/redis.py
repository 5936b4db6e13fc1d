"""Redis for what can do without it: limits and WeChat's access token.

Its connections never wait long and never try twice, so that a Redis that is down, or that accepts
connections and then says nothing, costs a request a quarter of a second and no more.
"""

from __future__ import annotations

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

REDIS_SECONDS = 0.25
"""How long one command waits at most, whatever state Redis is in."""

AWAY = (RedisError, OSError, TimeoutError)
"""What a command raises when Redis is gone, going, coming, or too slow."""


def fail_fast_redis(url: str) -> Redis:
    """A client with its own connections, none of them opened yet. The caller closes it."""
    pool = BlockingConnectionPool.from_url(
        url,
        timeout=REDIS_SECONDS,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        retry=Retry(NoBackoff(), 0),
        max_connections=32,
    )
    return Redis.from_pool(pool)

"""What a Redis that goes is taken for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop

from coordinator.redis import AWAY, fail_fast_redis


def test_what_uvloop_raises_on_a_connection_that_went_counts_as_away(redis_url: str) -> None:
    """redis-py writes to it where it went between its connecting and its first command."""

    async def writes() -> None:
        redis: Any = fail_fast_redis(redis_url)
        await redis.ping()
        (connection,) = redis.connection_pool._available_connections
        connection._writer.transport.abort()
        await asyncio.sleep(0.01)
        connection._writer.writelines([b"PING\r\n"])

    with pytest.raises(AWAY, match="closed"):
        uvloop.run(writes())

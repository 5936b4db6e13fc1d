"""`coordinator check`: a line for each thing that a deployment needs."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from coordinator.domain.errors import Unavailable
from coordinator.settings import Settings
from coordinator.store import migrations
from coordinator.store.database import Database

SECONDS = 4.0


class _Failed(Exception):
    """A check that failed; its message says what to do."""


async def check(settings: Settings) -> int:
    """Prints a line for each check; 1 where one failed, else 0.

    What may be absent (WeChat, ZEGO, the open API) is said, and fails nothing.
    """
    print("ok    settings")
    checks: list[tuple[str, Callable[[Settings], Awaitable[str]]]] = [
        ("postgres", _postgres),
        ("migrations", _migrations),
        ("redis", _redis),
    ]
    failed = False
    for name, run in checks:
        try:
            async with asyncio.timeout(SECONDS):
                print(f"ok    {name}: {await run(settings)}")
        except (_Failed, Unavailable, RedisError, OSError, TimeoutError) as error:
            failed = True
            reason = str(error) if isinstance(error, _Failed) else _reason(error)
            print(f"FAIL  {name}: {reason}")
    absent = {
        "zego": (settings.zego_ready, "ZEGO_APP_ID, ZEGO_SERVER_SECRET"),
        "wechat": (settings.wechat_ready, "WX_APPID, WX_SECRET"),
        "open api": (bool(settings.open_api_keys), "OPEN_API_KEYS"),
    }
    for name, (is_ready, names) in absent.items():
        print(f"ok    {name}" if is_ready else f"-     {name}: off, {names} not set (answers 503)")
    return int(failed)


def _reason(error: BaseException) -> str:
    """What went wrong, without the address and what else a library says of its own."""
    cause = error.__cause__ or error
    return f"cannot be reached ({type(cause).__name__})"


async def _postgres(settings: Settings) -> str:
    database = Database(settings.database_url, pooler=settings.database_pooler)
    await database.open()
    try:
        version = int(await database.fetchval("SHOW server_version_num"))
    finally:
        await database.close()
    if version < 140000:
        raise _Failed(f"version {version // 10000} is too old: 14 or newer is needed")
    return f"version {version // 10000}"


async def _migrations(settings: Settings) -> str:
    database = Database(settings.database_url, pooler=settings.database_pooler)
    await database.open()
    try:
        if not await migrations.is_current(database):
            raise _Failed("not all have run: `coordinator migrate`")
    finally:
        await database.close()
    return "up to date"


async def _redis(settings: Settings) -> str:
    """A round trip through pub/sub, the way that events take."""
    redis = Redis.from_url(settings.redis_url, socket_timeout=2, socket_connect_timeout=2)
    channel = f"coordinator:check:{secrets.token_hex(4)}"
    try:
        pubsub = redis.pubsub(ignore_subscribe_messages=True)
        await pubsub.subscribe(channel)
        await redis.publish(channel, "ping")
        for _ in range(20):
            message = await pubsub.get_message(timeout=0.2)
            if message is not None:
                await pubsub.aclose()  # type: ignore[no-untyped-call]
                return "pub/sub round trip"
        raise _Failed("publishes, but does not deliver")
    finally:
        await redis.aclose()

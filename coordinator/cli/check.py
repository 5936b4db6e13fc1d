"""`coordinator check`: a line for each thing that a deployment needs. What is ok, `serve` can use.

ok    postgres: version 18, UTF8
FAIL  redis scripts: the user may not run scripts (EVAL, EVALSHA): NOPERM …
warn  IDENTITY_PROOF=first-use: …
-     zego: off, ZEGO_APP_ID, ZEGO_SERVER_SECRET not set (answers 503)
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import RedisClusterException, RedisError

from coordinator.cli import check_redis
from coordinator.cli.command import command_settings, opened
from coordinator.platforms.wechat_exchange import wechat_http
from coordinator.settings import NEEDED_TO_SERVE, Settings
from coordinator.store import fitness, migrations
from coordinator.store.explain import DATABASE_ERRORS, explain
from coordinator.store.fitness import Unfit
from coordinator.store.jobs import Jobs

SECONDS = 10.0


def add(commands: Any) -> None:
    check = commands.add_parser("check", help="settings, Postgres, migrations, Redis, ZEGO")
    check.set_defaults(run=_run)


def _run(_: argparse.Namespace) -> int:
    return asyncio.run(check(command_settings(*NEEDED_TO_SERVE)))


async def check(settings: Settings) -> int:
    """Prints a line for each check; 1 where one failed, else 0.

    What may be absent (WeChat, ZEGO, the open API) is said, and fails nothing; nor do warnings.
    """
    await wechat_http(settings.wx_api_base, settings.wx_proxy).aclose()  # as a node makes it
    print("ok    settings")
    failed = [not await _passes(name, run, settings) for name, run in await _checks(settings)]
    failed.append(not await _redis_passes(settings))
    for problem in [*settings.warnings(), *await _unknown_tenants(settings)]:
        print(f"warn  {problem}")
    absent = {
        "zego": (settings.zego_ready, "ZEGO_APP_ID, ZEGO_SERVER_SECRET"),
        "wechat": (settings.wechat_ready, "WX_APPID, WX_SECRET"),
        "open api": (bool(settings.open_api_keys), "OPEN_API_KEYS"),
    }
    for name, (is_ready, names) in absent.items():
        print(f"ok    {name}" if is_ready else f"-     {name}: off, {names} not set (answers 503)")
    return int(any(failed))


Check = Callable[[Settings], Awaitable[str]]


async def _checks(settings: Settings) -> list[tuple[str, Check]]:
    """Where Postgres cannot be reached, that is one line, and not one for each thing in it."""
    of_postgres: list[tuple[str, Check]] = [("postgres", _postgres)]
    try:
        async with asyncio.timeout(SECONDS):
            await _look(settings)
    except (*DATABASE_ERRORS, Unfit):
        pass  # told by its own line
    else:
        of_postgres += [
            ("postgres writable", _writable), ("postgres durable", _durable),
            ("postgres rights", _rights),
            ("postgres clock", _clock), ("postgres pooler", _pooler), ("migrations", _migrations),
        ]  # fmt: skip
    return of_postgres


async def _redis_passes(settings: Settings) -> bool:
    """Where Redis cannot be used at all, that is one line, too."""
    if not await _passes("redis", check_redis.kind, settings):
        return False
    passed = [await _passes(name, run, settings) for name, run in check_redis.CHECKS]
    return all(passed)


async def _passes(name: str, run: Check, settings: Settings) -> bool:
    try:
        async with asyncio.timeout(SECONDS):
            print(f"ok    {name}: {await run(settings)}")
            return True
    except (Unfit, check_redis.RedisUnfit) as error:
        reason = str(error)
    except (RedisError, RedisClusterException) as error:
        reason = check_redis.explain(error)
    except DATABASE_ERRORS as error:
        reason = check_redis.explain(error) if "redis" in name else explain(error)
    print(f"FAIL  {name}: {reason}")
    return False


async def _look(settings: Settings) -> fitness.PostgresFacts:
    async with opened(settings) as database:
        return await fitness.look(database)


async def _postgres(settings: Settings) -> str:
    server = await _look(settings)
    fitness.require_kind(server)
    return f"version {server.version}, {server.encoding}"


async def _writable(settings: Settings) -> str:
    fitness.require_writable(await _look(settings))
    return "yes"


async def _durable(settings: Settings) -> str:
    server = await _look(settings)
    fitness.require_durable(server)
    return "yes" if server.flushes else "but for a power cut (fsync is off)"


async def _rights(settings: Settings) -> str:
    async with opened(settings) as database:
        await fitness.require_rights(database)
    return "suffice"


async def _clock(settings: Settings) -> str:
    ahead = (await _look(settings)).clock_ahead
    if abs(ahead) > fitness.CLOCK_SECONDS:
        raise Unfit(f"{ahead:+.0f} s from this machine's: let both follow a time server (NTP)")
    return f"{ahead:+.1f} s from this machine's"


async def _pooler(settings: Settings) -> str:
    mode = await fitness.pooler(settings.database_url)
    if mode == "transaction" and settings.database_pooler != mode:
        raise Unfit("a pooler in transaction mode stands between: set DATABASE_POOLER=transaction")
    return f"in {mode} mode" if mode else "none"


async def _migrations(settings: Settings) -> str:
    async with opened(settings) as database:
        if not await migrations.is_current(database):
            raise Unfit("not all have run: `coordinator migrate`")
    return "up to date"


async def _unknown_tenants(settings: Settings) -> list[str]:
    """Keys of enterprises that are not there: they are served and see nothing."""
    named = {key.enterprise_id: key.name for key in settings.open_api_keys if key.enterprise_id}
    if not named:
        return []
    try:
        async with opened(settings) as database:
            known = await Jobs(database).enterprises(list(named))
    except DATABASE_ERRORS:
        return []  # why is told already
    return [
        f"OPEN_API_KEYS: {name!r} is bound to the enterprise {tenant!r}, which is not there"
        for tenant, name in named.items()
        if tenant not in known
    ]

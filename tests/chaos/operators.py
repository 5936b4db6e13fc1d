"""Faults that people and machines do to a PostgreSQL that goes on: each done, held, undone."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

from tests.chaos.site import PASSWORD, ROLE, Operator

OLD_ROOMS = 30
OLD_EVENTS = 200
"""Of each old room."""
LEAST_JUMP_SECONDS = 5.0


async def rotate_password(operator: Operator, seconds: float) -> None:
    """The nodes' password is no longer the role's."""
    await operator.shuts_out(f"ALTER ROLE {ROLE} PASSWORD 'second'")
    await asyncio.sleep(seconds)
    await operator.does(f"ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'", database="postgres")


async def let_nobody_in(operator: Operator, seconds: float) -> None:
    """The database takes no connections."""
    await operator.shuts_out("ALTER DATABASE coordinator ALLOW_CONNECTIONS false")
    await asyncio.sleep(seconds)
    await operator.does("ALTER DATABASE coordinator ALLOW_CONNECTIONS true", database="postgres")


async def fill_disk(operator: Operator, seconds: float) -> None:
    """Neither events nor connections can be written: 53100."""
    await operator.does("UPDATE chaos.trouble SET is_full = true")
    await asyncio.sleep(seconds)
    await operator.does("UPDATE chaos.trouble SET is_full = false")


async def set_clock_back(operator: Operator, seconds: float) -> float:
    """Every time that the product asks for jumps back, and at the end forward again.

    Returns:
        The jump in seconds.
    """
    jump = LEAST_JUMP_SECONDS + 2 * seconds
    await operator.does(f"UPDATE chaos.trouble SET behind = '{jump} seconds'")
    await asyncio.sleep(seconds)
    await operator.does("UPDATE chaos.trouble SET behind = '0'")
    return jump


async def lock_room(operator: Operator, seconds: float) -> str:
    """A foreign session holds the row of an open room; which one."""
    async with _holding(
        operator,
        "SELECT room_id FROM interview_rooms WHERE status = 'active' ORDER BY random() LIMIT 1"
        " FOR UPDATE",
    ) as room_id:
        await asyncio.sleep(seconds)
    return room_id


async def lock_table(operator: Operator, seconds: float) -> None:
    """A foreign session lets nobody write who is in which room; reading goes on."""
    async with _holding(operator, "LOCK TABLE interview_participants IN EXCLUSIVE MODE"):
        await asyncio.sleep(seconds)


async def lock_purge(operator: Operator, seconds: float) -> None:
    """There are old logs to purge, and a foreign session holds an event of one of them."""
    name = f"old_{secrets.token_hex(4)}"
    await operator.does(
        f"""
        INSERT INTO interview_rooms (room_id, room_name, host_id, host_name, status, created_at,
            ended_at, last_seq, last_at, present, guests, online, creation, version)
        SELECT '{name}_' || n, 'old', 1, 'h', 'ended', now() - interval '60 days',
            now() - interval '60 days', {OLD_EVENTS}, now() - interval '60 days', 0, 0, 0,
            gen_random_uuid(), n
        FROM generate_series(1, {OLD_ROOMS}) n
        ON CONFLICT DO NOTHING
        """,
        f"""
        INSERT INTO room_events (room_id, seq, type, at, payload, epoch)
        SELECT '{name}_' || n, seq, 'participant_joined', now() - interval '60 days', '{{}}', ''
        FROM generate_series(1, {OLD_ROOMS}) n, generate_series(1, {OLD_EVENTS}) seq
        ON CONFLICT DO NOTHING
        """,
    )
    async with _holding(
        operator, f"SELECT 1 FROM room_events WHERE room_id = '{name}_1' AND seq = 1 FOR UPDATE"
    ):
        await asyncio.sleep(seconds)


@contextlib.asynccontextmanager
async def _holding(operator: Operator, statement: str) -> AsyncIterator[str]:
    """A transaction that stays open after its statement; what that returned first.

    Postgres may die meanwhile: then it holds nothing any more.
    """
    session = await operator.connect()
    try:
        await session.execute("BEGIN")
        yield str(await session.fetchval(statement))
    finally:
        session.terminate()


BY_KIND: dict[str, Callable[[Operator, float], Awaitable[object]]] = {
    "Postgres password rotated": rotate_password,
    "Postgres lets nobody in": let_nobody_in,
    "Postgres disk full": fill_disk,
    "Postgres table locked": lock_table,
    "room locked": lock_room,
    "purge locked": lock_purge,
}

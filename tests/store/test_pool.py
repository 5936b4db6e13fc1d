"""The pool: who is lent which connection, and which of them nobody is lent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from coordinator.domain.errors import Unavailable
from coordinator.store import pool as pools
from coordinator.store.database import Database
from coordinator.store.pool import Pool


class Connecting:
    """Makes connections of the pool: `failures` are raised first."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.failures: list[Exception] = []
        self.made: list[Any] = []

    async def __call__(self) -> Any:
        if self.failures:
            raise self.failures.pop(0)
        self.made.append(await asyncpg.connect(self.url))
        return self.made[-1]


@pytest_asyncio.fixture
async def connecting(database_url: str) -> AsyncIterator[Connecting]:
    made = Connecting(database_url)
    yield made
    for connection in made.made:
        connection.terminate()


@pytest.fixture
def pool(connecting: Connecting) -> Pool:
    return Pool(connecting, most=2)


async def waiting(pool: Pool) -> asyncio.Task[Any]:
    """Somebody who asks for a connection, and has to wait."""
    task = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def ended(connection: Any) -> None:
    """Returns when this end of a connection has been closed."""
    over = asyncio.Event()
    connection.add_termination_listener(lambda _: over.set())
    if not connection.is_closed():
        await over.wait()


async def test_the_connection_that_was_used_last_is_lent_first(
    pool: Pool, connecting: Connecting
) -> None:
    first, second = await pool.acquire(), await pool.acquire()
    pool.release(second)
    pool.release(first)
    assert await pool.acquire() is first
    assert await pool.acquire() is second
    assert connecting.made == [first, second]


async def test_who_asks_for_one_too_many_waits_in_order(pool: Pool) -> None:
    first, second = await pool.acquire(), await pool.acquire()
    third, fourth = await waiting(pool), await waiting(pool)
    pool.release(second)
    assert await third is second
    pool.release(first)
    assert await fourth is first


async def test_who_gives_up_as_it_is_given_one_leaves_it_to_the_others(pool: Pool) -> None:
    first, second = await pool.acquire(), await pool.acquire()
    impatient, patient = await waiting(pool), await waiting(pool)
    pool.release(first)
    impatient.cancel()
    assert await patient is first

    impatient = await waiting(pool)
    impatient.cancel()
    await asyncio.sleep(0)
    pool.release(second)
    assert await pool.acquire() is second


async def test_what_cannot_be_made_takes_no_place(pool: Pool, connecting: Connecting) -> None:
    connecting.failures = [ConnectionRefusedError() for _ in range(3)]
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            await pool.acquire()
    assert await pool.acquire() is not await pool.acquire()


async def test_a_place_goes_to_who_waits_where_its_connection_has_ended(
    pool: Pool, connecting: Connecting
) -> None:
    first, second = await pool.acquire(), await pool.acquire()
    third = await waiting(pool)
    first.terminate()
    pool.release(first)
    assert await third is connecting.made[2]

    connecting.failures = [ConnectionRefusedError()]
    unlucky, fifth = await waiting(pool), await waiting(pool)
    second.terminate()
    pool.release(second)
    with pytest.raises(ConnectionRefusedError):
        await unlucky
    assert await fifth is connecting.made[3]


async def test_an_idle_connection_that_the_server_has_ended_is_not_lent(pool: Pool) -> None:
    first = await pool.acquire()
    pool.release(first)
    first.terminate()
    await asyncio.sleep(0)
    second, third = await pool.acquire(), await pool.acquire()
    assert first not in (second, third)


async def test_nothing_is_lent_again_that_was_there_before_all_expired(
    pool: Pool, connecting: Connecting
) -> None:
    idle, lent = await pool.acquire(), await pool.acquire()
    pool.release(idle)
    pool.expire()
    assert idle.is_closed()
    assert not lent.is_closed()
    pool.release(lent)
    assert lent.is_closed()
    assert await pool.acquire() is connecting.made[2]


async def test_what_expires_while_it_is_given_to_who_waits_is_used_once(pool: Pool) -> None:
    first, _ = await pool.acquire(), await pool.acquire()
    third = await waiting(pool)
    pool.release(first)
    pool.expire()
    assert await third is first
    pool.release(first)
    assert first.is_closed()


async def test_a_connection_that_is_left_in_a_transaction_is_ended(pool: Pool) -> None:
    first = await pool.acquire()
    await first.execute("BEGIN")
    pool.release(first)
    assert first.is_closed()


async def test_what_nobody_needs_for_long_is_ended(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "IDLE_SECONDS", 0.1)
    first, second = await pool.acquire(), await pool.acquire()
    pool.release(first)
    await ended(first)
    pool.release(second)
    await ended(second)
    assert await pool.acquire() is not await pool.acquire()


async def test_closing_waits_for_what_is_lent(pool: Pool) -> None:
    idle, lent = await pool.acquire(), await pool.acquire()
    pool.release(idle)
    closing = asyncio.create_task(pool.close())
    await ended(idle)
    assert not closing.done()
    pool.release(lent)
    await closing
    assert lent.is_closed()


async def test_terminating_waits_for_nobody(pool: Pool) -> None:
    lent = await pool.acquire()
    pool.terminate()
    assert lent.is_closed()


async def test_whoever_waits_as_the_pool_closes_is_told(pool: Pool, connecting: Connecting) -> None:
    first, second = await pool.acquire(), await pool.acquire()
    third = await waiting(pool)
    closing = asyncio.create_task(pool.close())
    with pytest.raises(Unavailable):
        async with asyncio.timeout(10):
            await third
    pool.release(first)
    pool.release(second)
    await closing
    with pytest.raises(Unavailable):
        await pool.acquire()
    assert connecting.made == [first, second], "nobody would end another"


async def test_giving_up_as_the_pool_closes_is_giving_up(pool: Pool) -> None:
    await pool.acquire(), await pool.acquire()
    third = await waiting(pool)
    pool.terminate()
    third.cancel()
    with pytest.raises(asyncio.CancelledError):
        await third


async def test_what_is_being_made_as_the_pool_closes_is_ended(
    pool: Pool, connecting: Connecting
) -> None:
    making = await waiting(pool)
    await pool.close()
    assert [connection.is_closed() for connection in connecting.made] == [True]
    with pytest.raises(Unavailable):
        await making


async def test_who_is_given_a_place_as_the_pool_closes_leaves_it(
    pool: Pool, connecting: Connecting
) -> None:
    first, second = await pool.acquire(), await pool.acquire()
    third = await waiting(pool)
    first.terminate()
    pool.release(first)
    pool.release(second)
    async with asyncio.timeout(10):
        await pool.close()
    with pytest.raises(Unavailable):
        await third
    assert all(connection.is_closed() for connection in connecting.made)


async def test_what_is_given_back_after_nobody_waited_any_longer_is_taken(pool: Pool) -> None:
    lent = await pool.acquire()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await pool.close()
    pool.terminate()
    pool.release(lent)


async def test_a_query_that_outlasts_the_closing_is_told_that_postgres_is_away(
    database_url: str,
) -> None:
    database = Database(database_url)
    await database.open()
    asking = asyncio.create_task(database.fetchval("SELECT pg_sleep(20)"))
    await asyncio.sleep(0.1)
    await database.close()  # after a second, by force
    with pytest.raises(Unavailable):
        await asking

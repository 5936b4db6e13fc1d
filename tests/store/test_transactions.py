"""`Database.transaction`: what is left of one that fails."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.store.database import Database


async def test_a_task_that_is_cancelled_as_it_rolls_back_is_cancelled(database: Database) -> None:
    """A loop that goes on after its own error would otherwise outlive the end of its node."""
    async def fails() -> None:
        async with database.transaction():
            asyncio.get_running_loop().call_soon(rolling_back.cancel)  # ROLLBACK is on its way then
            raise ValueError

    rolling_back = asyncio.create_task(fails())
    with pytest.raises(asyncio.CancelledError):
        await rolling_back

    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT 1") == 1

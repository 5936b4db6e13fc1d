"""A Chromium for the tests of the pages; where the machine has none they are skipped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.desk import Desk, chromium
from tests.harness.chromium import MISSING, WINDOWLESS
from tests.harness.people import Api

Opens = Callable[..., Awaitable[Desk]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if WINDOWLESS is None:
        skip = pytest.mark.skip(reason=MISSING)
        for item in items:
            if "tests/browser/" in item.path.as_posix():
                item.add_marker(skip)


@pytest_asyncio.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened


@pytest_asyncio.fixture
async def opens(browser: Browser, a: Api) -> AsyncIterator[Opens]:
    """`await opens()` sets up a desk at node a; all are closed at the end."""
    desks: list[Desk] = []

    async def set_up(url: str | None = None, **how: Any) -> Desk:
        desk = await Desk.set_up(browser, url or a.node.url, **how)
        desks.append(desk)
        return desk

    yield set_up
    for desk in desks:
        await desk.leaves_the_machine()

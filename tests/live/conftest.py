"""What the tests of the live protocol share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.harness.node import Deployment
from tests.harness.people import Api

GRACE = 3.0
"""Seconds: a busy machine takes some of them for what is done in time on a quiet one."""


@pytest_asyncio.fixture(scope="package")
async def quick(deployment: Deployment) -> AsyncIterator[Api]:
    """A node with a short grace and room for 8 KiB that nobody reads."""
    settings = {"PRESENCE_GRACE": f"{GRACE}", "LIVE_BUFFER": "8192"}
    origins = "https://servicewechat.com,https://crm.example.com/"
    api = Api(deployment.node(**settings, ALLOWED_ORIGINS=origins))
    yield api
    await api.aclose()

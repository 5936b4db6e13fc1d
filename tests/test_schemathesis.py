"""The API's description tells the truth: schemathesis calls what it describes, in every way.

Seeded and bounded; `python -m tests.attacks.schemathesis` is the same without the bounds, and its
module says what is checked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from coordinator.standins.seed import seed
from coordinator.standins.wechat import WechatStandin
from coordinator.store.database import Database
from tests.attacks.schemathesis import run_against, settings_of
from tests.harness.node import Deployment, NodeProcess
from tests.harness.patience import patient

PATHS = {
    "interview": "^/api/interview/",
    "rest": "^/(api/(zego|wechat)|health|uploads|openapi)/",
    "open": "^/api/open/",
    "webhooks and console": "^/api/(webhooks|console)",
}
EXAMPLES = 2


@pytest.fixture(scope="module")
def standin() -> Iterator[WechatStandin]:
    with WechatStandin() as started:
        yield started


@pytest_asyncio.fixture(scope="module")
async def node(
    deployment: Deployment, database: Database, standin: WechatStandin
) -> AsyncIterator[NodeProcess]:
    """A node that has everything set: a 503 would be a failure."""
    await seed(database)
    yield deployment.node(**settings_of(standin))


@pytest.mark.timeout(170)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
async def test_nothing_contradicts_the_description(
    node: NodeProcess, database: Database, tmp_path: Path, path: str
) -> None:
    phases = ("examples", "coverage", "fuzzing")
    async with asyncio.timeout(patient(160)):
        run = await run_against(
            node, database, path=path, per_operation=EXAMPLES, folder=tmp_path, phases=phases
        )
    assert run.is_clean, run.told[-6000:]
    assert run.server_errors == 0
    assert run.unforeseen == []


@pytest.mark.timeout(170)
async def test_walks_from_answer_to_call_meet_no_contradiction(
    node: NodeProcess, database: Database, tmp_path: Path
) -> None:
    async with asyncio.timeout(patient(160)):
        run = await run_against(
            node, database, path="^/api/", per_operation=EXAMPLES, folder=tmp_path,
            phases=("stateful",),
        )  # fmt: skip
    assert run.is_clean, run.told[-6000:]
    assert run.server_errors == 0
    assert run.unforeseen == []

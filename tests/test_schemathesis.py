"""The API's description tells the truth: schemathesis calls what it describes, in every way.

Seeded and bounded. It finds no 500, no status or body that is not documented, no `Allow` that
leaves a method out, and nothing accepted that the schema forbids. That a request which fits the
schema is accepted is checked by our own rule (`schemathesis_hooks.py`): a refusal has to be one
that no schema can tell.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from coordinator.standins.seed import seed
from coordinator.standins.wechat import WechatStandin
from coordinator.store.database import Database
from tests.harness.node import Deployment, Node
from tests.harness.people import Api, Host
from tests.open_api import KEY, KEYS

PATHS = (
    "^/(api/(interview|zego|wechat)|health|uploads|openapi)/",
    "^/api/open/",
)
EXAMPLES = 4
HOOKS = {
    "SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks",
    "PYTHONPATH": str(Path(__file__).parent.parent),
}
SEED = 20261125

LEFT_OUT = {
    "negative_data_rejection": "Coze fills in zero values (null, '', numbers as texts), which the"
    " open API takes as absent, and path ids of any form are looked up: unknown ones are 404",
    "positive_data_acceptance": "our own rule stands in its place",
    "ignored_auth": "an admin's token opens what a key of the open API does",
    "missing_required_header": "likewise: X-API-Key is not required of an admin",
}
"""Checks of schemathesis that are not used here, and why."""

@pytest.fixture(scope="module")
def standin() -> Iterator[WechatStandin]:
    with WechatStandin() as started:
        yield started


@pytest_asyncio.fixture(scope="module")
async def node(
    deployment: Deployment, database: Database, standin: WechatStandin
) -> AsyncIterator[Node]:
    """A node that has everything set: a 503 would be a failure."""
    await seed(database)
    yield deployment.node(
        OPEN_API_KEYS=KEYS, WX_APPID=standin.appid, WX_SECRET=standin.secret,
        WX_API_BASE=standin.url, ZEGO_APP_ID="123456789", ZEGO_SERVER_SECRET="0" * 32,
    )  # fmt: skip


@pytest.mark.timeout(170)
@pytest.mark.parametrize("path", PATHS, ids=["rest", "open"])
async def test_nothing_contradicts_the_description(
    node: Node, database: Database, tmp_path: Path, path: str
) -> None:
    admin = await Host.hired(database, Api(node), "admin")
    await admin.creates()
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", f"{node.url}/schema/openapi.json",
        "--include-path-regex", path, "--header", f"Authorization: Bearer {admin.token}",
        "--header", f"X-API-Key: {KEY['X-API-Key']}", "--seed", str(SEED),
        "--max-examples", str(EXAMPLES), "--phases", "examples,coverage,fuzzing",
        "--exclude-checks", ",".join(LEFT_OUT),
        "--no-color",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=tmp_path,
        env=os.environ | HOOKS,
    )  # fmt: skip
    told, _ = await asyncio.wait_for(run.communicate(), 160)
    assert run.returncode == 0, told.decode()[-6000:]
    assert [line for line in node.logs().splitlines() if "request_failed" in line] == []

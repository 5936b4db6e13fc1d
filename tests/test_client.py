"""The JavaScript client: its form, its decisions in virtual time, a model that tries to break it.

The tests themselves are JavaScript (`tests/client/*.test.mjs`), run by Node's own test runner.
"""

from __future__ import annotations

import asyncio
import io

import pytest
from rich.console import Console

from coordinator.standins.wechat import WechatStandin
from loadtest.screen import Screen
from tests.client_proof import prove
from tests.node_runtime import install_packages, needs_node, run_tests
from tests.people import Api, Host
from tests.product import Deployment

pytestmark = needs_node


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    install_packages()


@pytest.mark.timeout(200)
def test_the_module_is_small_old_enough_in_syntax_and_typed() -> None:
    run_tests("form.test.mjs", timeout=180)


def test_every_row_of_the_contracts_table_holds() -> None:
    run_tests("table.test.mjs")


@pytest.mark.timeout(200)
def test_no_schedule_of_server_network_and_device_breaks_it() -> None:
    run_tests("model.test.mjs", timeout=180)


async def test_it_lives_with_what_wechat_does_to_sockets(a: Api, host: Host) -> None:
    await asyncio.to_thread(run_tests, "wechat.test.mjs", url=a.node.url, hostToken=host.token)


async def test_a_newcomer_who_copies_the_guide_has_a_working_pair_of_pages(
    deployment: Deployment,
) -> None:
    with WechatStandin() as wechat:
        node = deployment.node(
            WX_API_BASE=wechat.url, WX_APPID=wechat.appid, WX_SECRET=wechat.secret,
            ZEGO_APP_ID="123456789", ZEGO_SERVER_SECRET="0123456789abcdef0123456789abcdef",
            WX_QR_PAGES="pages/interview/guest/guest", IDENTITY_PROOF="required",
        )  # fmt: skip
        await asyncio.to_thread(run_tests, "miniprogram.test.mjs", url=node.url)
        node.stop()


@pytest.mark.timeout(240)
async def test_nobody_is_lost_in_chaos() -> None:
    proof = await prove(
        seed=7, seconds=12, clients=24, rooms=4, nodes=2, screen=Screen(Console(file=io.StringIO()))
    )

    assert proof.broken == []
    assert sum(proof.faults.values()) >= 2
    assert proof.told > 100

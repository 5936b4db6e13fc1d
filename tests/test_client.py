"""The JavaScript client: its form, its decisions in virtual time, a model that tries to break it.

The tests themselves are JavaScript (`tests/client/*.test.mjs`), run by Node's own test runner.
"""

from __future__ import annotations

import asyncio
import io
import json
import secrets
from typing import Any

import httpx
import pytest
from rich.console import Console

from coordinator.standins.wechat import WechatStandin
from coordinator.store.database import Database
from tests.chaos.plan import Fault
from tests.client_proof import prove
from tests.harness.chromium import CHROMIUM, MISSING
from tests.harness.node import Deployment
from tests.harness.node_runtime import (
    Follower,
    install_packages,
    needs_node,
    run_program,
    run_tests,
)
from tests.harness.patience import long_enough, patient
from tests.harness.people import Api, Guest, Host
from tests.harness.screen import Screen
from tests.harness.tokens import aged
from tests.open_api import KEY, KEYS, create

pytestmark = needs_node


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    install_packages()


@pytest.mark.timeout(300)
def test_the_module_is_small_old_enough_in_syntax_and_typed() -> None:
    run_tests("form.test.mjs", timeout=180)


def test_every_row_of_the_contracts_table_holds() -> None:
    run_tests("table.test.mjs")


def test_what_runtimes_do_to_sockets_makes_no_second_connection_and_no_stuck_one() -> None:
    run_tests("odd.test.mjs")


def test_the_documented_calls_go_with_their_proofs_and_fail_as_documented() -> None:
    run_tests("api.test.mjs")


def test_large_rooms_cost_it_little() -> None:
    figures = json.loads(run_program("benchmark.mjs"))

    slower = figures["times slower than the machine of the bounds"]
    assert figures["10,000 events through the reducer, room of 1,000, ms"] <= 50 * slower
    assert figures["a snapshot of 10,000 people as text, ms"] <= 30 * slower


@pytest.mark.timeout(300)
def test_no_schedule_of_server_network_and_device_breaks_it() -> None:
    run_tests("model.test.mjs", timeout=180)


@pytest.mark.timeout(150)
async def test_it_lives_with_what_wechat_does_to_sockets(a: Api, host: Host) -> None:
    await asyncio.to_thread(run_tests, "wechat.test.mjs", url=a.node.url, hostToken=host.token)


@pytest.mark.timeout(200)
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


@pytest.mark.timeout(300)
async def test_it_keeps_the_contract_with_real_nodes(
    deployment: Deployment, database: Database, a: Api
) -> None:
    assert deployment.run("seed").returncode == 0
    node, other = deployment.node(OPEN_API_KEYS=KEYS), deployment.node(OPEN_API_KEYS=KEYS)
    api = Api(node)
    host, admin = await Host.hired(database, api), await Host.hired(database, api, "admin")
    room = await host.creates()
    lives = int(long_enough(15))  # in which its program has to come to it
    short, expired = await Guest(api).joins(room), await Guest(api).joins(room)
    async with httpx.AsyncClient(
        base_url=node.url, headers=KEY, timeout=patient(20)
    ) as coze:
        interview = await create(coze, secrets.token_hex(8))

    def kept(guest: Guest, token: str) -> dict[str, Any]:
        return {"roomId": room, "guestId": guest.user_id, "guestToken": token}

    await asyncio.to_thread(
        run_tests, "real.test.mjs", timeout=180,
        url=node.url, otherUrl=other.url, hostToken=host.token, adminToken=admin.token,
        apiKey=KEY["X-API-Key"], interviewId=interview["id"],
        shortLived={**kept(short, aged(short.token, -lives)), "seconds": lives},
        expired=kept(expired, aged(expired.token, 60)),
        expiredHostToken=aged(host.token, 60),
    )  # fmt: skip
    await api.aclose()
    node.stop()
    other.stop()


@pytest.mark.timeout(200)
async def test_it_goes_on_in_a_new_epoch(deployment: Deployment, host: Host) -> None:
    node = deployment.node()
    room = await host.creates()
    follower = await Follower.start(node.url, room, host.token)
    await follower.sees(lambda told: told["status"] == "live")
    before = follower.last["epoch"]

    assert deployment.run("epoch", "new").returncode == 0
    await follower.sees(lambda told: told["epoch"] not in (None, before))
    await Guest(host.api).joins(room)
    log = await host.log(room)
    await follower.sees(lambda told: told["status"] == "live" and told["seq"] == len(log))

    assert follower.last["participantCount"] == 2
    await follower.end()
    node.stop()


@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
@pytest.mark.timeout(300)
async def test_it_lives_with_what_browsers_do_to_pages(a: Api, host: Host) -> None:
    await asyncio.to_thread(
        run_tests, "browser.test.mjs", timeout=180,
        url=a.node.url, hostToken=host.token, executablePath=CHROMIUM,
    )  # fmt: skip


FAULTS = [
    Fault(1, "node killed", 0, 2),
    Fault(4, "node frozen", 1, 5),
    Fault(7, "Redis killed", -1, 2),
    Fault(11, "node drained", 0, 2),
]


@pytest.mark.timeout(400)
async def test_nobody_is_lost_where_nodes_die_freeze_and_drain_and_redis_dies() -> None:
    proof = await prove(
        seed=7, seconds=15, clients=20, rooms=4, nodes=2, faults=FAULTS,
        screen=Screen(Console(file=io.StringIO())),
    )  # fmt: skip

    assert proof.broken == []
    assert proof.faults.total() == len(FAULTS)
    assert proof.told > 100

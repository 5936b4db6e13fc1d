"""Each fault that chaos knows is felt while it lasts, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from tests.chaos.faults import Harm
from tests.chaos.modes import MODES
from tests.chaos.plan import OPERATORS, Fault
from tests.chaos.redis_kinds import masters_among
from tests.chaos.site import Site
from tests.chaos.versions import unpack_release
from tests.harness.patience import long_enough, patient
from tests.harness.pgbouncer import PROGRAM
from tests.harness.receiver import SETTINGS
from tests.harness.tcp_proxy import CUT
from tests.harness.valkeys import Valkey, asked, ended

pytestmark = pytest.mark.timeout(240)

_NAMES = (f"hurt_{number}" for number in itertools.count())


@pytest_asyncio.fixture(scope="module")
async def site() -> AsyncIterator[Site]:
    """One node is enough to be hurt."""
    async with Site(nodes=1, grace=30, **SETTINGS) as started:
        yield started


async def calls(site: Site, path: str, body: Any = None) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=patient(15)) as http:
        headers = {"Authorization": f"Bearer {site.token}"}
        return await http.post(
            f"{site.nodes[0].url}/api/interview{path}", json=body, headers=headers
        )


async def creates(site: Site) -> httpx.Response:
    body = {"roomId": next(_NAMES), "roomName": "n", "hostName": "h"}
    return await calls(site, "/create-room", body)


async def joins(site: Site, room_id: str) -> httpx.Response:
    return await calls(site, "/guest/join", {"roomId": room_id, "userName": "李明"})


@asynccontextmanager
async def suffering(
    site: Site, kind: str, holds: Callable[[], Awaitable[bool]], *, seconds: float = 1.0
) -> AsyncIterator[Harm]:
    """The fault has begun and is felt; at the end it is over, and the node is well again."""
    harm = MODES["default"].harm(site)
    node = 0 if kind.startswith("node") else -1
    done = asyncio.create_task(harm.do(Fault(0, kind, node, long_enough(seconds))))
    deadline = time.monotonic() + patient(20)
    while not await holds():
        assert not done.done(), f"{kind} was never felt: {done}"
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    yield harm
    await done
    await site.ready(site.nodes[0])
    assert (await creates(site)).status_code == 200
    assert [past.kind for past in harm.past] == [kind]


async def has_status(site: Site, status: int) -> bool:
    return (await creates(site)).status_code == status


async def asks(site: Site, sql: str) -> Any:
    session = await site.operator.connect()
    try:
        return await session.fetchval(sql)
    finally:
        await session.close()


@pytest.mark.parametrize(
    "kind", ["Postgres password rotated", "Postgres lets nobody in", "Postgres disk full"]
)
async def test_whom_postgres_refuses_says_so(site: Site, kind: str) -> None:
    async with suffering(site, kind, lambda: has_status(site, 503)):
        pass


async def test_a_log_at_its_limit_costs_lines_alone(site: Site) -> None:
    node = site.nodes[0]

    async def loses_lines() -> bool:
        node.signal(signal.SIGUSR1)  # it logs what it does
        async with httpx.AsyncClient(trust_env=False, timeout=patient(15)) as http:
            said = (await http.get(f"{node.url}/metrics")).text
        return "coordinator_log_lines_lost_total 0.0" not in said

    async with suffering(site, "node's log at its limit", loses_lines):
        assert await asyncio.to_thread(node.health) == "ready"


async def test_a_name_of_redis_may_lead_elsewhere(site: Site) -> None:
    async def is_elsewhere() -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.other_redis.port)
        except OSError:
            return False  # it is started with the fault
        writer.write(b"CLIENT LIST\r\n")
        said = await reader.read(100_000)
        writer.close()
        return said.count(b" addr=") > 1  # somebody beside us

    async with suffering(site, "node's Redis is another", is_elsewhere, seconds=2):
        pass


async def test_a_clock_that_jumped_back_writes_older_times(site: Site) -> None:
    async def is_old() -> bool:
        return bool(await asks(
            site, "SELECT max(created_at) < clock_timestamp() - interval '4 seconds'"
                  " FROM interview_rooms WHERE room_id = '" + await creates_one() + "'",
        ))  # fmt: skip

    async def creates_one() -> str:
        return str((await creates(site)).json()["data"]["roomId"])

    assert not await is_old()
    async with suffering(site, "Postgres clock jumped back", is_old, seconds=3) as harm:
        pass
    assert time.time() - harm.past[0].began > 5 + 2 * 3, "it reaches back as far as the jump"
    assert not await is_old()


@pytest.mark.parametrize("kind", ["room locked", "Postgres table locked"])
async def test_what_a_foreign_session_holds_is_waited_for(site: Site, kind: str) -> None:
    await asks(site, "UPDATE interview_rooms SET status = 'ended'")
    room_id = (await creates(site)).json()["data"]["roomId"]

    async def is_held() -> bool:
        return bool(await asks(
            site, "SELECT count(*) > 0 FROM pg_stat_activity a JOIN pg_locks l USING (pid)"
                  " WHERE state = 'idle in transaction' AND usename = 'postgres'",
        ))  # fmt: skip

    async with suffering(site, kind, is_held, seconds=3):
        waiting = asyncio.create_task(joins(site, room_id))
        await asyncio.sleep(0.3)
        assert not waiting.done()
    assert (await waiting).status_code in (200, 503)
    assert (await joins(site, room_id)).status_code == 200


async def test_an_event_that_is_to_be_purged_can_be_held(site: Site) -> None:
    old = "FROM room_events WHERE room_id LIKE 'old_%' AND seq = 1"
    held = (
        f"SELECT (SELECT count(*) {old})"
        f" - (SELECT count(*) FROM (SELECT 1 {old} FOR UPDATE SKIP LOCKED) AS free)"
    )

    async def is_held() -> bool:
        return bool(await asks(site, held) == 1)

    async with suffering(site, "purge locked", is_held):
        pass
    assert await asks(site, held) == 0


def test_no_fault_of_an_operator_is_forgotten_here() -> None:
    assert set(OPERATORS) == {
        "node's log at its limit", "node's Redis is another", "Postgres password rotated",
        "Postgres lets nobody in", "Postgres disk full", "Postgres table locked",
        "Postgres clock jumped back", "room locked", "purge locked",
    }  # fmt: skip


# -- other deployments: their servers alone --------------------------------------------------------


@pytest.mark.parametrize("mode", ["standby", "synchronous-standby"])
async def test_a_standby_is_promoted_and_has_a_standby(mode: str) -> None:
    site: Any = MODES[mode].site(nodes=1, grace=30)
    try:
        await site.start_servers()
        await site.make_role()
        await site.start_standby()
        before = site.postgres.port
        await site.operator.does("CREATE TABLE kept (number int)", "INSERT INTO kept VALUES (7)")
        if not site.is_synchronous:
            await site.standby.catches_up()
        for kind in ("primary killed", "primary hung"):
            await MODES[mode].harm(site).do(Fault(0, kind, -1, 0.2))
            assert await asks(site, "SELECT number FROM kept") == 7
        assert site.postgres.port == before, "twice"
        assert len(site.promotions) == 2
    finally:
        await site.__aexit__()


async def test_a_standby_that_is_behind_has_another_history() -> None:
    site: Any = MODES["standby"].site(nodes=1, grace=30)
    try:
        await site.start_servers()
        await site.make_role()
        await site.start_standby()
        await site.operator.does("CREATE TABLE kept (number int)")
        await site.standby.catches_up()
        fault = Fault(0, "primary killed, standby behind", -1, long_enough(1))
        done = asyncio.create_task(MODES["standby"].harm(site).do(fault))
        while site.standby.cable.state != CUT:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await site.operator.does("INSERT INTO kept VALUES (7)")
        await done
        assert await asks(site, "SELECT count(*) FROM kept") == 0
    finally:
        await site.__aexit__()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("sentinel", "Redis master killed"), ("cluster", "Redis shard's master killed")],
)
async def test_a_master_is_replaced_and_comes_back(mode: str, kind: str) -> None:
    site: Any = MODES[mode].site(nodes=1, grace=30)
    with ended(site.valkeys):
        await site.redis_ready()
        harm: Any = MODES[mode].harm(site)
        before = {server.port for server in await masters_among(harm.servers)}
        await harm.do(Fault(0, kind, -1, long_enough(4)))
        assert {server.port for server in await masters_among(harm.servers)} != before


async def test_a_shard_that_was_lost_comes_back_with_its_slots() -> None:
    site: Any = MODES["cluster"].site(nodes=1, grace=30)
    with ended(site.valkeys):
        await site.redis_ready()
        await MODES["cluster"].harm(site).do(Fault(0, "Redis shard lost", -1, 0.5))
        while not await is_whole(site.valkeys[0]):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def is_whole(server: Valkey) -> bool:
    """True where every slot of the cluster is served."""
    info = await asked(server, "CLUSTER", "INFO")
    return isinstance(info, bytes) and b"cluster_state:ok" in info


@pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")
async def test_a_pooler_is_killed_and_comes_back() -> None:
    site: Any = MODES["pgbouncer"].site(nodes=1, grace=30)
    try:
        await site.start_servers()
        await site.make_role()
        with site.pooler:
            await MODES["pgbouncer"].harm(site).do(Fault(0, "PgBouncer killed", -1, 0.2))
            session = await asyncpg.connect(site.pooler.url, statement_cache_size=0)
            assert await session.fetchval("SELECT 7") == 7
            await session.close()
    finally:
        await site.__aexit__()


def test_the_release_before_can_be_had(tmp_path: Path) -> None:
    """Where this is a clone with its history."""
    try:
        release = unpack_release(tmp_path)
    except subprocess.CalledProcessError:
        pytest.skip("this copy of the project has no history")
    assert (release / "coordinator" / "cli.py").exists()

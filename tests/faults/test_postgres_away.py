"""Postgres dies, hangs or takes nothing: refused in time, and nobody is put out."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any

from coordinator.standins.servers import EmbeddedPostgres
from coordinator.store.database import Database
from tests.faults import GRACE
from tests.harness.cluster import signal_family
from tests.harness.node import Deployment, NodeProcess
from tests.harness.observing import becomes, gapless, joins_are_seen, kinds_of, status
from tests.harness.patience import patient
from tests.harness.people import (
    Api,
    Guest,
    Host,
    moment,
    new_room,
    refusal,
)
from tests.harness.promises import answers_within, deliveries_within, logged, wall_clock

REFUSED, REPAIR = 5, 5
"""Seconds: until a request that needs Postgres is refused; from commit to delivery by a poll."""


async def test_postgres_restarted_sockets_stay_and_what_happened_meanwhile_is_written(
    two: tuple[Api, Api], boss: Host, postgres: EmbeddedPostgres
) -> None:
    a, b = two
    room = await boss.creates()
    stays = await boss.connects(room, at=a)
    goes = await Guest(b, "goes").joins(room)
    going = await goes.connects(at=b)
    keeps = await Guest(b, "keeps").joins(room)
    keeping = await keeps.connects(at=b)
    returns = await Guest(b, "returns").joins(room)
    await (await returns.connects(at=b)).vanishes()
    await stays.sees("participant_away", user_id=returns.user_id)
    await asyncio.gather(*(a.room(room) for _ in range(40)))  # fills the pool with connections

    killed = time.time()
    await asyncio.to_thread(postgres.kill)
    try:
        async with answers_within(REFUSED, a):
            for refused in await asyncio.gather(
                a.get(f"/api/interview/room/{room}"), Guest(a).asks_to_join(room)
            ):
                assert refusal(refused) == (503, "SERVICE_UNAVAILABLE")
        assert await status(a) == "unavailable"
        await going.vanishes()
        late = await b.watch(room, keeps.token)
        assert await late.is_put_out() == 4103
        await stays.hears_pong()
        await keeping.hears_pong()
        await asyncio.sleep(GRACE)  # the deadline of `returns` passes meanwhile
    finally:
        await asyncio.to_thread(postgres.start)
    is_back = time.time()
    await becomes(a, "ready")
    asking = asyncio.gather(*(a.get(f"/api/interview/room/{room}") for _ in range(60)))
    await asyncio.sleep(is_back + 4.5 - time.time())  # late in the respite: nobody may be judged
    returning = await returns.connects(at=a)
    answers = await asking
    assert {answer.status_code for answer in answers} == {200}  # no dead connection in the pool
    away = await stays.sees("participant_away", 8, user_id=goes.user_id)
    left = await stays.sees("participant_left", 20, user_id=goes.user_id)
    assert left["reason"] == "disconnected"
    assert moment(left["at"]) >= moment(away["leaveAt"])
    reached = [await logged(each.node, "postgres_serves_again", after=killed) for each in two]
    assert wall_clock(left["at"]) - min(reached) >= 10  # every node had the time to renew
    await returning.hears_pong()
    assert kinds_of(stays.history, returns.user_id)[-2:] == ["away", "back"]
    await keeping.hears_pong()
    assert kinds_of(stays.history, keeps.user_id)[-1] == "online"
    assert gapless(stays)


async def test_postgres_that_hangs_is_answered_503_in_time_and_nobody_is_put_out(
    pair: tuple[Api, Api], boss: Host, postgres: EmbeddedPostgres
) -> None:
    a, b = pair
    room = await boss.creates()
    watching = [await boss.connects(room, at=a), await boss.connects(room, at=b)]
    guest = await Guest(b).joins(room)
    live = await guest.connects(at=b)
    assert postgres.process is not None

    signal_family(postgres.process.pid, signal.SIGSTOP)
    try:

        async def is_refused(call: Callable[[], Any], *, after: float = 0) -> None:
            await asyncio.sleep(after)
            assert refusal(await call()) == (503, "SERVICE_UNAVAILABLE")

        async with answers_within(REFUSED, a, b):
            await asyncio.gather(
                is_refused(lambda: a.get(f"/api/interview/room/{room}")),
                is_refused(lambda: a.post(f"/api/interview/room/{room}/end", token=boss.token)),
                is_refused(lambda: a.post("/api/interview/create-room", new_room(), boss.token)),
                is_refused(lambda: Guest(a).asks_to_join(room)),
                is_refused(lambda: Guest(a).asks_to_join(room), after=1),
                is_refused(lambda: Guest(b).asks_to_join(room), after=2.5),
            )
        # Nothing happens that could be waited for: the outage itself has to outlast a lease.
        await asyncio.sleep(4)
    finally:
        signal_family(postgres.process.pid, signal.SIGCONT)
    await becomes(a, "ready")
    await becomes(b, "ready")
    async with deliveries_within(REPAIR, a, b):
        await joins_are_seen(a, room, watching)
    await live.hears_pong()
    log = await boss.log(room)
    assert kinds_of(log, guest.user_id) == ["joined", "online"]
    assert [person["userId"] for person in (await a.room(room))["participants"]].count(
        guest.user_id
    ) == 1
    assert sum(event["type"] == "participant_joined" for event in log) == 2


async def test_a_node_that_is_told_to_stop_while_postgres_hangs_stops_in_time(
    two: tuple[Api, Api], boss: Host, postgres: EmbeddedPostgres
) -> None:
    a, b = two
    room = await boss.creates()
    live = await (await Guest(b).joins(room)).connects(at=b)
    assert postgres.process is not None
    signal_family(postgres.process.pid, signal.SIGSTOP)
    try:
        assert refusal(await Guest(b).asks_to_join(room)) == (503, "SERVICE_UNAVAILABLE")
        told = time.time()
        b.node.terminate()
        assert await live.is_put_out() == 4200
        assert await asyncio.to_thread(b.node.process.wait, patient(15)) == 0
        assert await logged(b.node, "node_stopped", after=told) - told < 1 + 5  # DRAIN_SECONDS + 5
    finally:
        signal_family(postgres.process.pid, signal.SIGCONT)
    await becomes(a, "ready")


async def test_a_node_that_cannot_write_to_postgres_is_unready_and_says_why_once(
    ground: Deployment, apis: Callable[[NodeProcess], Api], own: Database
) -> None:
    """A full disk: reads go on, the lease does not."""
    a = apis(await asyncio.to_thread(ground.node))
    make = "CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS $$"
    await own.execute(f"{make} BEGIN RAISE disk_full; END $$")
    await own.execute(
        "CREATE TRIGGER refuses BEFORE UPDATE ON nodes FOR EACH ROW EXECUTE FUNCTION refuses()"
    )
    try:
        await becomes(a, "unavailable")
        assert (await a.get("/health/ready")).status_code == 503
        await asyncio.sleep(1)
    finally:
        await own.execute("DROP FUNCTION refuses CASCADE")
    await becomes(a, "ready")
    assert a.node.logs().count("DiskFull") == 1

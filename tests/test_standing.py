"""Staff who may no longer listen are hung up on, on every node, within five seconds."""

from __future__ import annotations

from coordinator.store.database import Database
from tests.harness.people import Api, Guest, Host
from tests.harness.promises import wall_clock
from tests.harness.tokens import staff_token


async def test_a_disabled_host_is_put_out_on_every_node_and_its_guests_stay(
    a: Api, b: Api, host: Host, database: Database, room: str
) -> None:
    guest = await (await Guest(a).joins(room)).connects()
    lives = [await host.connects(room), await host.connects(room, at=b)]
    looking = await host.connects(room, at=b, observe="1")

    disabled = await database.fetchval(
        "UPDATE users SET disabled_at = now() WHERE id = $1 RETURNING disabled_at", host.number
    )

    assert [await live.is_put_out() for live in (*lives, looking)] == [4003] * 3
    away = await guest.sees("participant_away", user_id=host.user_id)
    assert away["leaveAt"]
    assert wall_clock(away["at"]) - disabled.timestamp() < 5
    await guest.hears_pong()


async def test_an_admin_who_is_one_no_more_keeps_its_own_rooms_alone(
    a: Api, admin: Host, host: Host, database: Database, room: str
) -> None:
    own = await admin.connects(await admin.creates())
    others = await admin.connects(room)

    await database.execute("UPDATE users SET role = 'hr' WHERE id = $1", admin.number)

    assert await others.is_put_out() == 4003
    await own.hears_pong()


async def test_signing_out_ends_the_connections_of_that_token_alone(
    a: Api, host: Host, database: Database, room: str
) -> None:
    signed_out = staff_token(host.number, host.openid, jti="session-1")
    other = staff_token(host.number, host.openid, jti="session-2")
    first, second = [await a.watch(room, token) for token in (signed_out, other)]
    plain = await host.connects(room)
    for live in (first, second):
        await live.sees("welcome")

    await database.execute(
        "INSERT INTO revoked_sessions (jti, expires_at) VALUES ('session-1', now() + '1 day')"
    )

    assert await first.is_put_out() == 4301
    for live in (second, plain):
        await live.hears_pong()

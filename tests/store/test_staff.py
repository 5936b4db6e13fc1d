"""Staff as they are stored: what a change moves, and adding somebody twice."""

from __future__ import annotations

import secrets

from coordinator.store.database import Database
from coordinator.store.people import People
from tests.harness.node import CIPHER


async def test_a_change_moves_updated_at(database: Database) -> None:
    people = People(database, CIPHER)
    staff = await people.add("o" + secrets.token_hex(8))
    sql = "SELECT updated_at FROM users WHERE id = $1"
    moments = [await database.fetchval(sql, staff.number)]
    await people.add(staff.openid)
    assert await database.fetchval(sql, staff.number) == moments[0], "nothing was changed"
    for change in (
        people.add(staff.openid, role="admin"),
        people.set_role(staff.number, "hr"),
        people.set_phone(staff.number, "13800138000"),
        people.set_profile(staff.number, name="李"),
        people.disable(staff.number),
    ):
        await change
        moments.append(await database.fetchval(sql, staff.number))
    assert moments == sorted(set(moments))


async def test_adding_is_idempotent_and_lets_the_disabled_in_again(database: Database) -> None:
    people, openid = People(database), "o" + secrets.token_hex(8)
    added = await people.add(openid, "李明", "admin")
    assert (await people.add(openid)) == added
    assert added.role == "admin"
    await people.disable(added.number)
    assert await people.staff(added.number) is None
    assert await people.add(openid) == added
    assert added in await people.list_all()

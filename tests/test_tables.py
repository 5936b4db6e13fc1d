"""The tables as Piccolo knows them are the tables that the migrations make."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from piccolo.columns import ForeignKey, Varchar

from coordinator.store.database import Database
from coordinator.store.people import People
from coordinator.store.piccolo_app import APP_CONFIG

TABLES: list[Any] = list(APP_CONFIG.table_classes)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table._meta.tablename)
async def test_columns_types_lengths_and_nulls_are_the_same(database: Database, table: Any) -> None:
    rows = await database.fetch(
        """
        SELECT column_name, data_type, character_maximum_length, is_nullable
        FROM information_schema.columns WHERE table_name = $1
        """,
        table._meta.tablename,
    )
    made = {
        row["column_name"]: (_kind(row["data_type"]), row["character_maximum_length"],
                             row["is_nullable"] == "YES")
        for row in rows
    }  # fmt: skip
    known = {
        column._meta.db_column_name: (
            _kind(column.column_type),
            _length(column),
            column._meta.null,
        )
        for column in table._meta.columns
    }
    assert made == known


async def test_the_migrations_make_no_other_tables(database: Database) -> None:
    rows = await database.fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    )
    known = {table._meta.tablename for table in TABLES}
    assert {row["table_name"] for row in rows} == known | {"migration"}


def _length(column: Any) -> int | None:
    """How many characters a column holds; a foreign key has the length of what it points to."""
    if isinstance(column, ForeignKey):
        column = column._foreign_key_meta.resolved_target_column
    return column.length if isinstance(column, Varchar) else None


def _kind(name: str) -> str:
    """One word for a type, whether Postgres or Piccolo names it."""
    kind = name.lower().partition("(")[0]
    words = {
        "character varying": "varchar",
        "timestamp with time zone": "timestamptz",
        "serial": "integer",
        "bigserial": "bigint",
    }
    return words.get(kind, kind)


async def test_each_query_runs_on_the_database_that_was_asked(
    database: Database, lonely_database: Database
) -> None:
    """Piccolo knows one engine by the table's class: it is lent a connection, query by query."""
    await People(database).sign_up("piccolo-one")
    both = database, lonely_database  # the last one that is made wins nothing

    found = await asyncio.gather(
        *[People(asked).by_openid("piccolo-one") for asked in both * 5]
    )

    assert [one is not None for one in found] == [True, False] * 5


async def test_what_is_changed_of_staff_is_only_what_was_given(database: Database) -> None:
    people = People(database)
    staff = await people.sign_up("piccolo-two")

    await people.set_profile(staff.number, name="张三", avatar="https://example.com/a.png")
    changed = await people.set_profile(staff.number, name="李四")

    assert changed is not None
    assert (changed.name, changed.avatar) == ("李四", "https://example.com/a.png")
    first = await people.disable(staff.number)
    assert first is not None
    assert first.disabled
    assert await people.set_role(-1, "admin") is None

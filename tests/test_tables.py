"""The tables as Piccolo knows them are the tables that the migrations make."""

from __future__ import annotations

from typing import Any

import pytest
from piccolo.columns import Varchar

from coordinator.store.database import Database
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
            column.length if isinstance(column, Varchar) else None,
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

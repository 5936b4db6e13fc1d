"""Lists in pages: how many rows there are, and one page of them, newest first, by one statement.

SQL by hand: as two queries of Piccolo's the list of rooms cost twice as much, the rest of the call
included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.store.line import Queries


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedList:
    """What is listed, as SQL.

    Attributes:
        table: whose rows are counted and listed.
        number: its column that breaks ties of `created_at`.
        shown: the columns that are told of a row, which is `p`.
        joins: what is joined to the rows of a page, such as `LEFT JOIN jobs j ON j.id = p.job_id`.
            Nothing but LEFT JOIN: an empty page is a row, too, that of the number alone.
    """

    table: str
    number: str
    shown: str
    joins: str = ""

    async def page(
        self, queries: Queries, wanted: Mapping[str, Any], *, limit: int, offset: int
    ) -> tuple[int, list[Any]]:
        """How many rows are wanted, and one page of them.

        Args:
            wanted: conditions, each with `{}` for its value. Only what is asked for stands in the
                statement, so that its index is used.
        """
        values = list(wanted.values())
        conditions = [each.format(f"${place}") for place, each in enumerate(wanted, start=1)]
        if offset:
            values.append(offset)
        # A literal: with a parameter here PostgreSQL plans the statement each time anew. In a
        # SELECT: where it knows how many are asked for, and takes the wanted rows for fewer (the
        # table was never analyzed), it reads and sorts all of them instead of following the index.
        most = f"(SELECT {limit})" if conditions else f"{limit}"
        sql = self._sql(
            f"WHERE {' AND '.join(conditions)}" if conditions else "",
            f"LIMIT {most}" + (f" OFFSET ${len(values)}" if offset else ""),
        )
        rows = await queries.fetch(sql, *values)
        return rows[0]["total"], [row for row in rows if row["is_there"]]

    def _sql(self, where: str, part: str) -> str:
        return f"""
            SELECT counted.total, p.{self.number} IS NOT NULL AS is_there, {self.shown}
            FROM (SELECT count(*) AS total FROM {self.table} {where}) counted
            LEFT JOIN (
                SELECT * FROM {self.table} {where}
                ORDER BY created_at DESC, {self.number} DESC {part}
            ) p ON true
            {self.joins}
            ORDER BY p.created_at DESC, p.{self.number} DESC
        """

"""Whether a Postgres can be served with: looked at once, before the start and by `check`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from coordinator.postgres_url import parse_postgres_url
from coordinator.store.connect import Connector
from coordinator.store.database import Database
from coordinator.store.piccolo_app import APP_CONFIG

OLDEST = 14
CLOCK_SECONDS = 30.0
"""How far the server's clock may be from ours: the times of tokens are ours, those of events its.
"""

_FACTS = """
    SELECT current_setting('server_version_num')::int / 10000 AS version,
           current_setting('server_encoding') AS encoding,
           pg_is_in_recovery() AS is_standby,
           current_setting('transaction_read_only') = 'on' AS is_read_only,
           current_setting('synchronous_commit') <> 'off' AS waits_for_disk,
           current_setting('fsync') = 'on' AS flushes,
           extract(epoch FROM clock_timestamp())::float8 AS clock
"""
_WITHOUT_RIGHTS = """
    SELECT relname FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relname = ANY($1) AND relkind = 'r'
    AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
             AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
    ORDER BY relname
"""
# Sequences of columns (`serial`) are an INSERT's own to use: a right on the table is not enough.
_SEQUENCES_WITHOUT_RIGHTS = """
    SELECT s.relname FROM pg_class s
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.deptype = 'a'
    JOIN pg_class t ON d.refclassid = 'pg_class'::regclass AND t.oid = d.refobjid
    WHERE t.relnamespace = current_schema()::regnamespace AND t.relname = ANY($1)
    AND CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE') END
    ORDER BY s.relname
"""


class Unfit(Exception):
    """This Postgres cannot be served with; the message says why."""


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """What a server says of itself.

    Attributes:
        waits_for_disk: a commit to this server, in a session of ours, is answered once it is safe.
        flushes: the server hands to the disk what it says is there.
        clock_ahead: seconds, of its clock before ours.
    """

    version: int
    encoding: str
    is_standby: bool
    is_read_only: bool
    waits_for_disk: bool
    flushes: bool
    clock_ahead: float


async def look(database: Database) -> PostgresFacts:
    """Asks the server.

    Raises:
        Unavailable: Postgres is away.
    """
    row = await database.fetchrow(_FACTS)
    return PostgresFacts(
        version=row["version"],
        encoding=row["encoding"],
        is_standby=row["is_standby"],
        is_read_only=row["is_read_only"],
        waits_for_disk=row["waits_for_disk"],
        flushes=row["flushes"],
        clock_ahead=row["clock"] - time.time(),
    )


def require_kind(server: PostgresFacts) -> None:
    """What no waiting mends: `serve` refuses it at its start.

    Raises:
        Unfit
    """
    if server.version < OLDEST:
        raise Unfit(f"version {server.version} is too old: {OLDEST} or newer is needed")
    if server.encoding != "UTF8":
        raise Unfit(
            f"the database's encoding is {server.encoding}: names need UTF8"
            " (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0)"
        )


def require_writable(server: PostgresFacts) -> None:
    """
    Raises:
        Unfit
    """
    if server.is_standby:
        raise Unfit("it is a standby: read-only until it is promoted")
    if server.is_read_only:
        raise Unfit("it is read-only (default_transaction_read_only)")


def require_durable(server: PostgresFacts) -> None:
    """
    Raises:
        Unfit: commits do not wait for the disk. Nodes set that in their sessions, but have none of
            their own behind a pooler in transaction mode.
    """
    if not server.waits_for_disk:
        raise Unfit(
            "synchronous_commit is off: a crash would lose what clients were told"
            " (ALTER DATABASE … SET synchronous_commit = on)"
        )


async def require_rights(database: Database) -> None:
    """
    Raises:
        Unfit: rights on tables that are there, or on their sequences, are missing.
    """
    tables = [table._meta.tablename for table in APP_CONFIG.table_classes]
    rows = await database.fetch(_WITHOUT_RIGHTS, tables)
    if rows:
        names = ", ".join(row["relname"] for row in rows)
        raise Unfit(f"the user may not SELECT, INSERT, UPDATE and DELETE in {names}")
    sequences = await database.fetch(_SEQUENCES_WITHOUT_RIGHTS, tables)
    if sequences:
        names = ", ".join(row["relname"] for row in sequences)
        raise Unfit(f"the user may not use (GRANT USAGE) the sequences {names}")


async def pooler(url: str) -> str:
    """What stands between: "" nothing, "session" or "transaction" a pooler in that mode.

    Told by the process ids: a pooler hands out ids of its own, and in transaction mode a client's
    next transaction may run in the server process that another client has just given back.
    """
    connect = Connector(parse_postgres_url(url))
    one, other = [await connect(statement_cache_size=0) for _ in range(2)]
    try:
        try:
            async with asyncio.timeout(2):
                before = await _processes(one, other)
        except TimeoutError:
            return "transaction"  # both wait for the one server connection that there is
        if before == [connection.get_server_pid() for connection in (one, other)]:
            return ""
        after = await _processes(one, other), (await _processes(other, one))[::-1]
        return "session" if after == (before, before) else "transaction"
    finally:
        one.terminate()
        other.terminate()


async def _processes(*connections: Any) -> list[int]:
    """The server processes of transactions that are open at once, begun in this order."""
    found = []
    for connection in connections:
        await connection.execute("BEGIN")
        found.append(await connection.fetchval("SELECT pg_backend_pid()"))
    for connection in connections:
        await connection.execute("ROLLBACK")
    return found

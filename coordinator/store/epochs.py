"""Epochs: which history the database is in.

A `seq` once told never means another event within an epoch. The epoch is a random string in the
one row of `deployment`; beside it stands the fingerprint of the server that it was made for:

    7469…412/00000003/16384      system identifier / time line / oid of the database

A promotion starts a new time line, a clone has another system identifier or oid: whoever finds that
the fingerprint is not the server's own makes a new epoch (of many at once, one does). What nothing
can tell from its past (a restored disk snapshot) is told by `coordinator epoch new`.

Each physical connection proves the history once, when it is made: a session cannot move to another
server, and one that began on a standby is refused (it would survive the promotion, unproven). A
pooler in transaction mode may move it: there each statement that reads or writes what is told is
proven by itself (`Epochs.fenced`). Between two looks a lease's renewal looks again.

Of two primaries with one system identifier the one with the longer time line is the deployment's;
the other is refused as long as the longer one has been seen within `STALE_SECONDS`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import structlog

from coordinator.domain.errors import Unavailable

log = structlog.get_logger()

STALE_SECONDS = 15.0

_DATABASE = "(SELECT oid FROM pg_database WHERE datname = current_database())"
FINGERPRINT = f"""(
    (SELECT system_identifier FROM pg_control_system())
    || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) || '/' || {_DATABASE})"""
"""SQL: the server's own fingerprint, 20 µs; an error (55000) on a standby."""

_LOOK = f"""
    SELECT epoch, fingerprint, pg_is_in_recovery() AS is_standby,
           CASE WHEN NOT pg_is_in_recovery() THEN {FINGERPRINT} END AS own
    FROM deployment
"""
_LOOK_WITHOUT = """
    SELECT epoch, fingerprint, pg_is_in_recovery() AS is_standby, NULL AS own FROM deployment
"""
_MINT = """
    UPDATE deployment SET epoch = $1, fingerprint = $2
    WHERE epoch = '' OR ($2::varchar IS NOT NULL AND fingerprint IS DISTINCT FROM $2)
    RETURNING epoch
"""
_FENCED = """
    WITH proven AS MATERIALIZED (
        SELECT epoch AS proven_epoch FROM deployment WHERE fingerprint = {fingerprint}
    ), answer AS ({sql})
    SELECT proven.proven_epoch, answer.* FROM (SELECT 1) AS one
    LEFT JOIN proven ON true LEFT JOIN answer ON true
"""

Listener = Callable[[str], None]


class Epochs:
    """The epoch as this process knows it, and how it is looked up.

    Attributes:
        current: the epoch of the history that this process reads and writes; '' before the first
            connection, and on a database that has not been migrated.
        is_hidden: the server does not show its identity (some managed services): then only
            `coordinator epoch new` starts an epoch.
    """

    def __init__(self, connection: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._connection = connection
        self._listeners: list[Listener] = []
        self._newest: tuple[str, int, float] | None = None
        self.current = ""
        self.is_hidden = False

    def on_change(self, listener: Listener) -> None:
        """Has `listener(epoch)` called as soon as another epoch is known; it must not block.

        The first epoch that this process learns is no change.
        """
        self._listeners.append(listener)

    async def check(self) -> str:
        """Looks the epoch up, and makes a new one where the server is another; the epoch.

        Safe from many nodes at once: they agree on one.

        Raises:
            Unavailable: Postgres is away, a standby, or an older primary than the one seen.
        """
        async with self._connection() as connection:
            return await self.prove(connection)

    async def start_new(self) -> str:
        """`coordinator epoch new`: what was told before may not be in the log; the new epoch.

        Running nodes notice it at their next renewal.
        """
        async with self._connection() as connection:
            await connection.execute("UPDATE deployment SET epoch = $1", _new_epoch())
            return await self.prove(connection)

    async def prove(self, connection: Any) -> str:
        """`check` on a connection that is at hand (each new one goes through here)."""
        row = await self._look(connection)
        if row is None:
            return self.current
        if row["is_standby"]:
            raise Unavailable("database is a standby", retry_after=1)
        self._refuse_older(row["own"])
        epoch = str(row["epoch"])
        if epoch == "" or (row["own"] is not None and row["own"] != row["fingerprint"]):
            epoch = await self._mint(connection, row["own"])
        self._learn(epoch)
        return epoch

    def fenced(self, sql: str) -> str:
        """`sql`, a SELECT, with the proof of its history in the same statement.

        Its rows begin with `proven_epoch`: null where the server is not the deployment's. Where
        `sql` finds nothing there is one row, null in all other columns.
        """
        return _FENCED.format(fingerprint=FINGERPRINT, sql=sql)

    async def _look(self, connection: Any) -> Any:
        """The row of `deployment`; None where the migrations have not made it yet."""
        try:
            if self.is_hidden:
                return await connection.fetchrow(_LOOK_WITHOUT)
            return await connection.fetchrow(_LOOK)
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
            return None
        except (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedFunctionError):
            self.is_hidden = True
            return await connection.fetchrow(_LOOK_WITHOUT)

    def _refuse_older(self, own: str | None) -> None:
        if own is None:
            return
        system, timeline, _ = own.split("/")
        number, now = int(timeline, 16), time.monotonic()
        if self._newest is not None:
            newest_system, newest, seen_at = self._newest
            is_older = system == newest_system and number < newest
            if is_older and now - seen_at < STALE_SECONDS:
                raise Unavailable("an older primary: another was promoted", retry_after=1)
        self._newest = (system, number, now)

    async def _mint(self, connection: Any, own: str | None) -> str:
        epoch: str | None = await connection.fetchval(_MINT, _new_epoch(), own)
        if epoch is None:  # another node was faster: its row is what counts
            epoch = await connection.fetchval("SELECT epoch FROM deployment")
        return str(epoch)

    def _learn(self, epoch: str) -> None:
        before, self.current = self.current, epoch
        if before in ("", epoch):
            return
        log.warning("epoch_changed", before=before, epoch=epoch)
        for listener in self._listeners:
            listener(epoch)


def _new_epoch() -> str:
    return secrets.token_hex(4)

"""A physical standby of an embedded PostgreSQL: replication that can be cut, and a promotion."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import asyncpg

from coordinator.standins.servers import EmbeddedPostgres
from tests.harness.patience import patient
from tests.harness.tcp_proxy import TcpProxy

CAUGHT_UP_SECONDS = 30.0


class StandbyPostgres(EmbeddedPostgres):
    """Streams from a primary through a proxy of its own (`cable`)."""

    def __init__(
        self, primary: EmbeddedPostgres, folder: Path, *, port: int, cable: TcpProxy,
        options: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__(folder, port=port, options=options)
        self.primary = primary
        self.cable = cable

    def _make_cluster(self, binaries: Path) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        self.user.own(self.data)
        self._run(
            str(binaries / "pg_basebackup"), "-D", str(self.data), "-h", "127.0.0.1",
            "-p", str(self.primary.port), "-U", "postgres", "-c", "fast", "-X", "stream",
            "--no-sync", "-R",
        )  # fmt: skip
        settings = self.data / "postgresql.auto.conf"
        settings.write_text(
            settings.read_text()
            + f"primary_conninfo = 'host=127.0.0.1 port={self.cable.port} user=postgres"
            " application_name=standby'\n"
            "wal_retrieve_retry_interval = '200ms'\n"
        )

    def _ensure_database(self, binaries: Path) -> None:
        """It comes with the backup."""

    async def catches_up(self) -> None:
        """Returns when everything that the primary has written is there."""
        primary = await asyncpg.connect(self.primary.url)
        standby = await asyncpg.connect(self.url)
        try:
            written = await primary.fetchval("SELECT pg_current_wal_lsn()::text")
            deadline = time.monotonic() + patient(CAUGHT_UP_SECONDS)
            while not await standby.fetchval(
                "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", written
            ):
                assert time.monotonic() < deadline, "the standby does not catch up"
                await asyncio.sleep(0.02)
        finally:
            await primary.close()
            await standby.close()

    async def is_synchronous(self) -> None:
        """Makes the primary's commits wait for it; returns when they do."""
        state = "SELECT sync_state FROM pg_stat_replication WHERE application_name = 'standby'"
        primary = await asyncpg.connect(self.primary.url)
        try:
            await primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
            await primary.execute("SELECT pg_reload_conf()")
            deadline = time.monotonic() + patient(CAUGHT_UP_SECONDS)
            while await primary.fetchval(state) != "sync":
                assert time.monotonic() < deadline, "the standby is not waited for"
                await asyncio.sleep(0.02)
        finally:
            await primary.close()

    async def is_promoted(self) -> float:
        """Makes it a primary with a time line of its own; returns when it takes writes.

        Returns:
            By its own clock, when that was: seconds of the wall clock.
        """
        connection: Any = await asyncpg.connect(self.database_url("postgres"))
        try:
            assert await connection.fetchval("SELECT pg_promote(true, 30)")
            now = "SELECT extract(epoch FROM clock_timestamp())"
            return float(await connection.fetchval(now))
        finally:
            await connection.close()

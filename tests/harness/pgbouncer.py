"""PgBouncer before a test's PostgreSQL: Debian's package, where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import asyncpg

from coordinator.postgres_url import parse_postgres_url
from tests.harness.patience import patient
from tests.harness.ports import free_port, wait_open

PROGRAM = shutil.which("pgbouncer")


class PgBouncer:
    """As a package configures it: no startup parameter is ignored but the drivers' usual one.

    Args:
        target_url: the database behind it.
        mode: `session` or `transaction`.
        servers: connections that it opens to PostgreSQL, at most.
    """

    def __init__(self, target_url: str, *, mode: str, servers: int) -> None:
        target = parse_postgres_url(target_url)
        host, port = target.hosts[0]
        password = f" password={target.password}" if target.password else ""
        self.port = free_port()
        self.url = f"postgresql://{target.user}@127.0.0.1:{self.port}/{target.database}"
        self._folder = Path(tempfile.mkdtemp(prefix="coordinator-pgbouncer-", dir="/tmp"))
        self._settings = self._folder / "pgbouncer.ini"
        self._database, self._server = target.database, f"host={host} port={port}{password}"
        self._user = target.user
        self._login = f"user={target.user}"
        self._rest = (
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            f"auth_type = any\npool_mode = {mode}\nunix_socket_dir =\nmax_client_conn = 500\n"
            f"default_pool_size = {servers}\nadmin_users = {target.user}\nserver_round_robin = 1\n"
            "server_login_retry = 1\n"
        )
        self._write(str(target.database))
        self._folder.chmod(0o755)

    def _write(self, behind: str) -> None:
        self._settings.write_text(
            f"[databases]\n{self._database} = dbname={behind} {self._login} {self._server}\n"
            + self._rest
        )

    async def moves_to(self, database: str) -> None:
        """Another database is behind it from now on; its clients stay connected."""
        self._write(database)
        console = await asyncpg.connect(
            host="127.0.0.1", port=self.port, user=self._user, database="pgbouncer"
        )
        await console.execute("RELOAD")  # it answers when it has read them
        await console.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Returns when it listens."""
        assert PROGRAM is not None
        command = [PROGRAM, "-q", str(self._settings)]
        as_root = os.geteuid() == 0
        self._process = subprocess.Popen(
            command, user="nobody" if as_root else None, stderr=subprocess.DEVNULL
        )
        wait_open(self.port)

    def kill(self) -> None:
        """`kill -9`; it starts again at the same port."""
        self._process.kill()
        self._process.wait(patient(10))

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

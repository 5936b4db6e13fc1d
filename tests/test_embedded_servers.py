"""The servers of `coordinator dev` let in nobody but who started them, and touch nothing of others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.standins.server_user import server_user
from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis

ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in one that is closed to others."""
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o700)
    return closed / "data"


@pytest.fixture(scope="module")
def postgres(folder: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(folder, options=("fsync=off",)) as server:
        yield server


@pytest.fixture(scope="module")
def redis(folder: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(folder) as server:
        yield server


def test_the_folder_and_every_socket_are_closed_to_others(
    folder: Path, postgres: EmbeddedPostgres, redis: EmbeddedRedis
) -> None:
    sockets = [path for path in folder.rglob("*") if path.is_socket()]

    assert len(sockets) == 2
    for path in (folder, folder / "pgdata", folder / "run", *sockets):
        assert path.stat().st_mode & 0o077 == 0, path


def test_folders_outside_are_left_as_they_are(folder: Path, postgres: EmbeddedPostgres) -> None:
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_uid == os.geteuid()


def test_no_port_is_open(postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> None:
    assert postgres.process is not None
    assert redis.process is not None
    assert (postgres.port, redis.port) == (0, 0)
    for process in (postgres.process, redis.process):
        assert "tcp" not in _descriptors(process.pid)


def _descriptors(pid: int) -> str:
    """`tcp` where one of the process's sockets is in the kernel's table of TCP listeners."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = str(link.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    listening = {
        row.split()[9]
        for table in tables
        for row in table.splitlines()[1:]
        if row.split()[3] == "0A"
    }
    return "tcp" if inodes & listening else ""


@pytest.mark.skipif(not ROOT, reason="takes root to become somebody else")
def test_another_local_user_gets_in_by_no_door(
    folder: Path, postgres: EmbeddedPostgres, redis: EmbeddedRedis
) -> None:
    """Neither by the path, nor where the path is opened for it: the server asks who it is."""
    knock = textwrap.dedent(f"""
        import os, socket
        inside = os.open({str(folder / "run")!r}, os.O_PATH)
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        for path in ({str(folder / "run" / ".s.PGSQL.5432")!r},
                     {str(folder / "run" / "redis.sock")!r},
                     f"/proc/self/fd/{{inside}}/.s.PGSQL.5432",
                     f"/proc/self/fd/{{inside}}/redis.sock"):
            try:
                socket.socket(socket.AF_UNIX).connect(path)
                print("in by", path)
            except PermissionError:
                pass
    """)
    told = subprocess.run([sys.executable, "-c", knock], capture_output=True, text=True, check=True)

    assert told.stdout == ""


@pytest.mark.skipif(not ROOT, reason="takes root to become somebody else")
def test_the_server_of_root_keeps_one_capability_and_no_more(postgres: EmbeddedPostgres) -> None:
    assert postgres.process is not None
    lines = Path(f"/proc/{postgres.process.pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)

    assert int(status["Uid"].split()[0]) == server_user().uid
    assert bin(int(status["CapEff"], 16)).count("1") <= 1


@pytest.mark.skipif(not ROOT, reason="takes root to become somebody else")
def test_the_server_of_root_finds_its_programs_in_a_closed_folder(tmp_path: Path) -> None:
    """As where the environment is in /root: initdb asks by access(2), which looks at no capability
    of others.
    """
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "program"
    program.touch(mode=0o755)
    ask = f"import os; print(os.access({str(program)!r}, os.R_OK | os.X_OK))"

    told = subprocess.run(
        ["/usr/bin/env", "python3", "-c", ask], capture_output=True, text=True, check=True,
        preexec_fn=server_user().become(),
    )  # fmt: skip

    assert told.stdout == "True\n"


def test_a_folder_that_let_everybody_in_is_closed_at_the_next_start(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path, options=("fsync=off",))
    with server:
        pass
    (server.data / "pg_hba.conf").write_text("local all all trust\nhost all all all trust\n")
    tmp_path.chmod(0o777)

    with server:
        rules = (server.data / "pg_hba.conf").read_text()

    assert "trust" not in rules
    assert tmp_path.stat().st_mode & 0o077 == 0


def test_a_path_that_is_too_long_for_a_socket_gets_a_short_one(tmp_path: Path) -> None:
    long = tmp_path / ("folder-" * 8) / ("folder-" * 8)
    with EmbeddedRedis(long) as server:
        path = Path(server.url.removeprefix("unix://").partition("?")[0])

        assert path.is_socket()
        assert path.parent.stat().st_mode & 0o077 == 0
    assert not path.parent.exists()

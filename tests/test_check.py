"""`coordinator check`, and what `migrate` and `serve` say of a Postgres that is unfit."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from coordinator.postgres_url import parse_postgres_url
from coordinator.standins.server_user import server_user
from coordinator.standins.servers import EmbeddedPostgres
from coordinator.store.database import Database
from tests.harness.node import Deployment
from tests.harness.observing import comes_true
from tests.harness.patience import patient
from tests.harness.ports import free_port, wait_open
from tests.test_commands import answers, at, made


@pytest.fixture
def name() -> str:
    """Of a database or role, for one test."""
    return f"coordinator_{secrets.token_hex(4)}"


def failures(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("FAIL")]


@pytest.mark.parametrize("command", ["migrate", "check", "serve"])
async def test_a_missing_database_is_one_sentence(
    deployment: Deployment, name: str, command: str
) -> None:
    status, out, err = await answers(
        deployment, command, DATABASE_URL=at(deployment.database_url, path=f"/{name}"), PORT="0"
    )

    assert status == 1
    lines = [line for line in (out + err).splitlines() if "does not exist" in line]
    assert len(lines) == 1
    assert name in lines[0]


async def test_check_goes_on_behind_a_postgres_that_is_away(deployment: Deployment) -> None:
    status, out, _ = await answers(
        deployment, "check", DATABASE_URL="postgresql://u:the-password@127.0.0.1:1/d"
    )

    slow = "it cannot be reached: no answer in time"  # a full machine's Redis
    failed = [line for line in failures(out) if slow not in line]
    assert status == 1
    assert failed == ["FAIL  postgres: it cannot be reached: nobody listens there"]
    assert "ok    redis pub/sub: round trip" in out.splitlines()
    assert "the-password" not in out


async def test_a_postgres_that_speaks_no_tls_is_told_so(
    deployment: Deployment, tmp_path: Path
) -> None:
    with EmbeddedPostgres(tmp_path, port=free_port(), options=("fsync=off",)) as server:
        url = f"{server.url}?sslmode=require"
        status, out, _ = await answers(deployment, "check", DATABASE_URL=url)

    assert status == 1
    assert "FAIL  postgres: it speaks no TLS, and sslmode asks for it" in out.splitlines()


async def test_a_node_commits_durably_where_the_server_would_not(
    deployment: Deployment, name: str
) -> None:
    """A pooler in transaction mode has the server's sessions: `check` says what is to be set."""
    make = (f"CREATE DATABASE {name}", f"ALTER DATABASE {name} SET synchronous_commit = off")
    async with made(*make, undo=(f"DROP DATABASE {name} WITH (FORCE)",)):
        url = at(deployment.database_url, path=f"/{name}")
        database = Database(url)
        await database.open()
        own = await database.fetchval("SHOW synchronous_commit")
        await database.close()
        _, direct, _ = await answers(deployment, "check", DATABASE_URL=url)
        status, pooled, _ = await answers(
            deployment, "check", DATABASE_URL=url, DATABASE_POOLER="transaction"
        )

    assert own == "on"
    assert "ok    postgres durable: but for a power cut (fsync is off)" in direct.splitlines()
    assert status == 1
    assert "FAIL  postgres durable: synchronous_commit is off: a crash would lose" in pooled


async def test_rights_that_are_missing_on_schema_public_are_named(
    deployment: Deployment, name: str
) -> None:
    """Since PostgreSQL 15 only the owner of a database may create in it."""
    make = (f"CREATE ROLE {name} LOGIN PASSWORD 'word'", f"CREATE DATABASE {name}")
    undo = (f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")
    async with made(*make, undo=undo):
        url = f"{at(deployment.database_url, path=f'/{name}')}"
        separator = "&" if urlsplit(url).query else "?"
        status, _, err = await answers(
            deployment, "migrate", DATABASE_URL=f"{url}{separator}user={name}&password=word"
        )

    assert status == 1
    assert "schema public" in err
    assert "GRANT CREATE" in err
    assert err.count("\n") == 1


@contextlib.asynccontextmanager
async def role(
    deployment: Deployment, name: str, *grants: str
) -> AsyncIterator[tuple[Any, str]]:
    """A role with these rights: a connection of its owner, and the URL that the role uses."""
    url = urlsplit(deployment.database_url)
    connection = await asyncpg.connect(deployment.database_url)
    await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'word'")
    try:
        for grant in grants:
            await connection.execute(f"GRANT {grant} TO {name}")
        login = f"user={name}&password=word&dbname={url.path.lstrip('/')}"
        yield connection, f"{deployment.database_url}{'&' if url.query else '?'}{login}"
    finally:
        await connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
        await connection.close()


async def test_rights_that_are_missing_on_tables_fail_the_check(
    deployment: Deployment, name: str
) -> None:
    grants = ("SELECT ON ALL TABLES IN SCHEMA public", "UPDATE ON deployment")
    async with role(deployment, name, *grants) as (_, url):
        status, out, _ = await answers(deployment, "check", DATABASE_URL=url)

    (line,) = failures(out)
    assert status == 1
    assert line.startswith("FAIL  postgres rights: ")
    assert "interview_rooms" in line


async def test_rights_that_are_missing_on_sequences_fail_the_check(
    deployment: Deployment, name: str
) -> None:
    """They are granted apart from those on the tables, and every INSERT needs them."""
    async with role(deployment, name, "ALL ON ALL TABLES IN SCHEMA public") as (owner, url):
        without = await answers(deployment, "check", DATABASE_URL=url)
        await owner.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}")
        granted = await answers(deployment, "check", DATABASE_URL=url)

    (line,) = failures(without[1])
    assert without[0] == 1
    assert line.startswith("FAIL  postgres rights: ")
    assert "interview_rooms_id_seq" in line
    assert granted[0] == 0, granted[1]


@pytest.mark.parametrize("command", ["check", "serve", "migrate"])
async def test_a_database_whose_encoding_holds_no_names_is_refused(
    deployment: Deployment, name: str, command: str
) -> None:
    make = f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'"
    async with made(make, undo=(f"DROP DATABASE {name} WITH (FORCE)",)):
        status, out, err = await answers(
            deployment, command, DATABASE_URL=at(deployment.database_url, path=f"/{name}"), PORT="0"
        )

    assert status == 1
    assert len([line for line in (out + err).splitlines() if "SQL_ASCII" in line]) == 1


async def test_a_read_only_postgres_fails_the_check(deployment: Deployment) -> None:
    separator = "&" if urlsplit(deployment.database_url).query else "?"
    option = f"{separator}options=-c%20default_transaction_read_only%3Don"

    status, out, _ = await answers(
        deployment, "check", DATABASE_URL=deployment.database_url + option
    )

    assert status == 1
    assert "it is read-only" in out


async def test_a_wrong_password_is_one_sentence_and_not_shown(
    deployment: Deployment, tmp_path: Path
) -> None:
    with EmbeddedPostgres(tmp_path, port=free_port(), options=("fsync=off",)) as server:
        rules = server.data / "pg_hba.conf"
        rules.write_text(rules.read_text().replace(" trust", " scram-sha-256"))
        connection = await asyncpg.connect(
            f"postgresql:///postgres?host={tmp_path}/run&port={server.port}&user=postgres"
        )
        await connection.execute("CREATE ROLE app LOGIN PASSWORD 'the-right-one'")
        await connection.fetch("SELECT pg_reload_conf()")
        await connection.close()
        url = f"postgresql://app:the-wrong-one@127.0.0.1:{server.port}/coordinator"
        await comes_true(partial(_is_refused, url))
        told = [await answers(deployment, command, DATABASE_URL=url, PORT="0")
                for command in ("check", "migrate", "serve")]  # fmt: skip

    for status, out, err in told:
        lines = [line for line in (out + err).splitlines() if "the login is refused" in line]
        assert status == 1
        assert len(lines) == 1
        assert "the-wrong-one" not in out + err


async def _is_refused(url: str) -> bool:
    """True once the server has read its rules anew."""
    try:
        await (await asyncpg.connect(url)).close()
    except asyncpg.InvalidPasswordError:
        return True
    return False


# -- PgBouncer -----------------------------------------------------------------------------------


@pytest.fixture
def pgbouncer(deployment: Deployment, request: pytest.FixtureRequest) -> Iterator[str]:
    """PgBouncer in the mode of the test's parameter, before the tests' PostgreSQL."""
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.skip("pgbouncer is not installed (apt-get install pgbouncer)")
    target, port = parse_postgres_url(deployment.database_url), free_port()
    host, server_port = target.hosts[0]
    folder = Path(tempfile.mkdtemp(prefix="coordinator-pgbouncer-"))
    password = f" password={target.password}" if target.password else ""
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{target.database} = host={host} port={server_port} user={target.user}"
        f"{password}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"auth_type = any\npool_mode = {request.param}\nunix_socket_dir =\n"
        "ignore_startup_parameters = extra_float_digits,lock_timeout,statement_timeout,"
        "idle_in_transaction_session_timeout,options\n"
    )
    folder.chmod(0o755)
    process = subprocess.Popen(
        [program, "-q", str(folder / "pgbouncer.ini")], preexec_fn=server_user().become()
    )
    wait_open(port)
    yield f"postgresql://{target.user}@127.0.0.1:{port}/{target.database}"
    process.terminate()
    process.wait(patient(10))
    shutil.rmtree(folder)


@pytest.mark.parametrize("pgbouncer", ["transaction"], indirect=True)
async def test_a_pooler_in_transaction_mode_is_found(
    deployment: Deployment, pgbouncer: str
) -> None:
    status, out, _ = await answers(deployment, "check", DATABASE_URL=pgbouncer)

    assert status == 1
    assert "set DATABASE_POOLER=transaction" in out


@pytest.mark.parametrize("pgbouncer", ["session"], indirect=True)
async def test_a_pooler_in_session_mode_is_as_good_as_none(
    deployment: Deployment, pgbouncer: str
) -> None:
    _, out, _ = await answers(deployment, "check", DATABASE_URL=pgbouncer)

    assert "ok    postgres pooler: in session mode" in out.splitlines()

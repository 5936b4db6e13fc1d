"""`DATABASE_URL` as libpq reads it, and the way to whichever host serves."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import asyncpg
import pytest

from coordinator.connection_url import UrlError
from coordinator.postgres_url import parse_postgres_url
from coordinator.store.connect import Connector
from coordinator.store.database import Database


def test_login_host_port_and_database_are_read() -> None:
    target = parse_postgres_url("postgresql://u%40x:p%3A%2F%20%25@db.cn:6432/interview_db")

    assert target.hosts == (("db.cn", 6432),)
    assert (target.user, target.password, target.database) == ("u@x", "p:/ %", "interview_db")
    assert "p:/" not in repr(target)


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("postgresql://u@h/d", "d"), ("postgresql://u@h/d?dbname=wanted", "wanted"),
        ("postgresql://h?dbname=wanted", "wanted"), ("postgresql://u@h", None),
        ("postgresql://u@h/", None), ("postgres:///d", "d"),
    ],
)  # fmt: skip
def test_the_options_database_wins_and_none_is_left_to_the_users_name(
    url: str, database: str | None
) -> None:
    target = parse_postgres_url(url)

    assert target.database == database
    assert target.attempts()[0].get("database") == database


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql:///d", ()),
        ("postgresql://h/d", (("h", 5432),)),
        ("postgresql://[2001:DB8::1]:6432/d", (("2001:db8::1", 6432),)),
        ("postgresql://%2Fvar%2Frun/d", (("/var/run", 5432),)),
        ("postgresql:///d?host=/var/run&port=6432", (("/var/run", 6432),)),
        ("postgresql://a,b:6432,c/d", (("a", 5432), ("b", 6432), ("c", 5432))),
        ("postgresql://x/d?host=a,b&port=1,2", (("a", 1), ("b", 2))),
        ("postgresql://x/d?host=a,b&port=6432", (("a", 6432), ("b", 6432))),
    ],
)
def test_hosts_are_those_of_libpq(url: str, hosts: tuple[tuple[str, int], ...]) -> None:
    assert parse_postgres_url(url).hosts == hosts


def test_of_several_hosts_it_wants_the_one_that_writes() -> None:
    assert parse_postgres_url("postgresql://a,b/d").session_attrs == "read-write"
    assert parse_postgres_url("postgresql://a/d").session_attrs == "any"
    given = parse_postgres_url("postgresql://a,b/d?target_session_attrs=any")
    assert given.session_attrs == "any"


def test_harmless_options_are_taken() -> None:
    target = parse_postgres_url(
        "postgresql://h/d?connect_timeout=1&keepalives=1&keepalives_idle=30&keepalives_interval=5"
        "&keepalives_count=3&channel_binding=prefer&gssencmode=prefer&application_name=crm"
        "&tcp_user_timeout=1000&sslmode=verify-full&sslrootcert=/etc/ca.pem"
    )

    (attempt,) = target.attempts()
    assert attempt["timeout"] == 1.0
    assert attempt["server_settings"] == {"application_name": "crm"}
    assert attempt["dsn"] == "postgresql://?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem"


def test_a_long_connect_timeout_is_cut_and_zero_is_the_default() -> None:
    long = parse_postgres_url("postgresql://h/d?connect_timeout=60")
    off = parse_postgres_url("postgresql://a,b/d?connect_timeout=0")

    assert (long.connect_seconds, off.connect_seconds) == (3.0, 2.0)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:se#cret@h/d", "holds a #"),
        ("postgresql://u:se/cret@h/d", "login"), ("postgresql://u:12/cret@h/d", "login"),
        ("postgresql://u:se[cret@h/d", "login"), ("postgresql://u:se@cret@h/d", "login"),
        ("postgresql://u:se?cret@h/d", "port"), ("postgresql://u:se cret@h/d", "blank"),
        ("postgresql://u:secret%@h/d", "%"), ("postgresql://u:secret@h:0/d", "port"),
        ("postgresql://u:secret@h:70000/d", "port"), ("postgresql://u:secret@[::g]/d", "IPv6"),
        ("postgresql://u:secret@h/d?channel_binding=require", "channel_binding"),
        ("postgresql://u:secret@h/d?gssencmode=require", "gssencmode"),
        ("postgresql://u:secret@h/d?require_auth=scram-sha-256", "require_auth"),
        ("postgresql://u:secret@h/d?requirepeer=root", "requirepeer"),
        ("postgresql://u:secret@h/d?sslmode=on", "sslmode"),
        ("postgresql://u:secret@h/d?pool_size=5", "pool_size is unknown"),
        ("postgresql://u:secret@h/d?service=x", "service"),
        ("postgresql://u:secret@h/d?target_session_attrs=standby", "target_session_attrs"),
        ("postgresql://u:secret@h/d?connect_timeout=soon", "connect_timeout"),
        ("postgresql://u:secret@h/d?sslrootcert=system&sslmode=require", "verify-full"),
        ("postgresql://u:secret@a,b/d?port=1,2,3", "ports"), ("mysql://u:secret@h/d", "start with"),
        ("postgresql://u:secret@h/d?x", "options"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_without_the_password(url: str, said: str) -> None:
    with pytest.raises(UrlError) as raised:
        parse_postgres_url(url)

    assert said in str(raised.value)
    assert "cret" not in str(raised.value)


# -- connecting ----------------------------------------------------------------------------------


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A host that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def after(database_url: str) -> object:
    """The tests' database as the last of several hosts."""

    def url(*ports: int) -> str:
        target = parse_postgres_url(database_url)
        host, port = target.hosts[0]
        names = ",".join([*("127.0.0.1" for _ in ports), host])
        numbers = ",".join(map(str, [*ports, port]))
        login = f"user={target.user}" + (f"&password={target.password}" if target.password else "")
        return f"postgresql:///{target.database}?host={names}&port={numbers}&{login}"

    return url


async def test_a_silent_first_host_costs_three_seconds_at_most_and_once(
    after: object, silent_port: int
) -> None:
    connector = Connector(parse_postgres_url(after(silent_port)))  # type: ignore[operator]  # a fixture's function

    started = time.monotonic()
    first = await connector()
    took = time.monotonic() - started
    second = await connector()
    took_again = time.monotonic() - started - took

    assert await first.fetchval("SELECT 1") == 1
    assert 1.9 < took < 3.0
    assert took_again < 1.0
    await first.close()
    await second.close()


async def test_a_pool_reaches_the_second_host(after: object, closed_port: int) -> None:
    database = Database(after(closed_port))  # type: ignore[operator]  # a fixture's function
    await database.open()

    found = await asyncio.gather(*(database.fetchval("SELECT 1") for _ in range(20)))

    assert found == [1] * 20
    await database.close()


async def test_a_refused_login_is_not_tried_on_the_next_host(
    database_url: str, silent_port: int
) -> None:
    target = parse_postgres_url(database_url)
    host, port = target.hosts[0]
    url = f"postgresql:///nowhere?host={host},127.0.0.1&port={port},{silent_port}"

    with pytest.raises(asyncpg.PostgresError):
        await Connector(parse_postgres_url(url + "&user=nobody_of_this_name"))()


async def test_the_name_in_the_url_is_the_sessions(database_url: str) -> None:
    database = Database(f"{database_url}{'&' if '?' in database_url else '?'}application_name=crm")
    await database.open()

    assert await database.fetchval("SHOW application_name") == "crm"
    await database.close()

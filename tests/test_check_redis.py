"""What `coordinator check` says of a Redis that is unfit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from coordinator.standins.servers import EmbeddedRedis
from tests.harness.node import Deployment
from tests.harness.ports import free_port
from tests.harness.valkeys import Sentinels, ValkeyCluster, ended
from tests.test_check import failures
from tests.test_commands import answers


@pytest_asyncio.fixture
async def redis(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A Redis that the test may spoil."""
    with EmbeddedRedis(tmp_path) as server:
        yield server


async def configured(server: EmbeddedRedis, *command: str) -> None:
    client = Redis.from_url(server.url)
    await client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py
    await client.aclose()


async def test_a_read_only_replica_fails_the_check(
    deployment: Deployment, redis: EmbeddedRedis
) -> None:
    await configured(redis, "REPLICAOF", "127.0.0.1", "1")

    status, out, _ = await answers(deployment, "check", REDIS_URL=redis.url)

    assert status == 1
    assert any(line.startswith("FAIL  redis writable: ") for line in failures(out))
    assert "replica" in out


async def test_a_user_without_scripts_fails_the_check(
    deployment: Deployment, redis: EmbeddedRedis
) -> None:
    await configured(redis, "ACL", "SETUSER", "app", "on", ">word", "~*", "&*", "+@all",
                     "-@scripting")  # fmt: skip
    url = redis.url.replace("://", "://app:word@")

    status, out, _ = await answers(deployment, "check", REDIS_URL=url)

    (line,) = failures(out)
    assert status == 1
    assert line.startswith("FAIL  redis scripts: its user's rights (ACL) do not suffice")
    assert "word" not in out


async def test_a_database_that_redis_does_not_have_is_said_in_words(
    deployment: Deployment, redis: EmbeddedRedis
) -> None:
    url = redis.url.partition("?")[0]

    status, out, _ = await answers(deployment, "check", REDIS_URL=f"{url}?db=99")

    assert status == 1
    assert "FAIL  redis: it refuses: DB index is out of range" in out.splitlines()


async def test_a_wrong_password_of_redis_is_said_in_words(
    deployment: Deployment, redis: EmbeddedRedis
) -> None:
    await configured(redis, "ACL", "SETUSER", "default", "on", ">the-right-one", "resetpass",
                     ">the-right-one")  # fmt: skip
    url = redis.url.replace("://", "://:the-wrong-one@")

    status, out, _ = await answers(deployment, "check", REDIS_URL=url)

    assert status == 1
    assert "FAIL  redis: the login is refused: wrong user or password, or none given" in out
    assert "the-wrong-one" not in out


async def test_a_cluster_under_a_plain_url_is_told_which_url_it_needs(
    deployment: Deployment, tmp_path: Path
) -> None:
    cluster = ValkeyCluster(tmp_path)
    with ended(cluster.servers):
        await cluster.ready()
        port = cluster.servers[0].port
        wrong = await answers(deployment, "check", REDIS_URL=f"redis://127.0.0.1:{port}/0")
        right = await answers(deployment, "check", REDIS_URL=cluster.url)

    assert wrong[0] == 1
    assert "is a cluster: write redis+cluster://" in wrong[1]
    assert right[0] == 0, right[1]
    assert "ok    redis pub/sub: sharded round trip on 3 servers" in right[1].splitlines()


@pytest.mark.parametrize(
    ("kind", "told"),
    [("redis+cluster://{}", "it is no cluster: write redis://"),
     ("redis+sentinel://{}/mymaster/0", "it is no sentinel: write redis://")],
)  # fmt: skip
async def test_a_server_by_itself_under_another_kinds_url_is_told_which_url_it_needs(
    deployment: Deployment, tmp_path: Path, kind: str, told: str
) -> None:
    with EmbeddedRedis(tmp_path, port=free_port()) as server:
        url = kind.format(f"127.0.0.1:{server.port}")
        status, out, _ = await answers(deployment, "check", REDIS_URL=url)

    (line,) = failures(out)
    assert status == 1
    assert line.startswith(f"FAIL  redis: {told}")


@pytest.mark.parametrize(
    ("url", "told"),
    [("redis://127.0.0.1:1", "nobody listens there"), ("unix:///no.sock", "no such socket"),
     ("redis+cluster://127.0.0.1:1", "nobody listens there"),
     ("redis+sentinel://127.0.0.1:1/mymaster/0", "no sentinel that answers knows its master"),
     ("redis://nowhere.invalid", "its host name is not known")],
)  # fmt: skip
async def test_a_redis_that_is_away_is_one_line_with_the_cause_in_words(
    deployment: Deployment, url: str, told: str
) -> None:
    status, out, _ = await answers(deployment, "check", REDIS_URL=url)

    (line,) = failures(out)
    assert status == 1
    assert line.startswith("FAIL  redis: it cannot be reached: ")
    assert told in line


async def test_sentinels_with_a_password_are_asked_for_the_master(
    deployment: Deployment, tmp_path: Path
) -> None:
    sentinels = Sentinels(tmp_path, "the-password")
    with ended(sentinels.servers):
        await sentinels.ready()
        status, out, _ = await answers(deployment, "check", REDIS_URL=sentinels.url)

    assert status == 0, out
    assert any(line.startswith("ok    redis: sentinel, ") for line in out.splitlines())
    assert "the-password" not in out

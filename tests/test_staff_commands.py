"""What operators type: users, tokens, check, seed."""

from __future__ import annotations

import secrets
from pathlib import Path

import asyncpg
import jwt

from coordinator.domain.ids import staff_number
from coordinator.standins.seed import JOBS
from tests.harness.commands import at_once, command
from tests.harness.node import JWT_SECRET, Deployment
from tests.harness.people import Api, Host, refusal


def test_somebody_has_one_id() -> None:
    assert staff_number("user_001") == 1
    for other in ("user_1", "user_0001", "user_00１", "user_٠٠١", "user_001 "):
        assert staff_number(other) is None


async def test_staff_is_added_once_changed_and_shut_out(a: Api, deployment: Deployment) -> None:
    openid = "o" + secrets.token_hex(6)

    first, *others = await at_once(
        *[lambda: deployment.run("users", "add", "--openid", openid, "--name", "王 芳")] * 3
    )
    user_id = first.stdout.strip()
    assert [each.stdout for each in others] == [first.stdout] * 2
    assert user_id.startswith("user_")
    assert len(user_id) >= len("user_001")

    token = deployment.run("token", user_id).stdout
    assert token.count("\n") == 1
    claims = jwt.decode(token.strip(), JWT_SECRET, algorithms=["HS256"])
    assert set(claims) == {"id", "openid", "role", "iat", "exp"}
    assert (claims["openid"], claims["role"]) == (openid, "hr")
    assert claims["exp"] - claims["iat"] == 7 * 86400
    assert (await a.get("/api/interview/rooms", token.strip())).status_code == 200

    role, disabled = await at_once(
        lambda: deployment.run("users", "role", user_id, "admin"),
        lambda: deployment.run("users", "disable", user_id),
    )
    assert role.stdout.strip() == disabled.stdout.strip() == user_id
    (refused,) = await at_once(lambda: deployment.run("token", user_id))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "disabled" in refused.stderr
    answer = await a.get("/api/interview/rooms", token.strip())
    assert refusal(answer) == (401, "UNAUTHORIZED")
    listed = deployment.run("users", "list").stdout.splitlines()
    (line,) = [line for line in listed if user_id in line.split()]
    for told in (openid, "王 芳", "admin", "disabled"):
        assert told in line


async def test_a_token_for_some_days_and_for_nobody(deployment: Deployment, host: Host) -> None:
    day, nobody, nonsense, role = await at_once(
        lambda: deployment.run("token", host.user_id, "--days", "1"),
        lambda: deployment.run("token", "user_9999999999"),
        lambda: deployment.run("token", "user_1"),
        lambda: deployment.run("users", "role", "user_99999", "admin"),
    )

    claims = jwt.decode(day.stdout.strip(), JWT_SECRET, algorithms=["HS256"])
    assert claims["exp"] - claims["iat"] == 86400
    for each in (nobody, nonsense, role):
        assert (each.returncode, each.stdout) == (1, "")
        assert "user_" in each.stderr


async def test_check_has_a_line_for_each_thing(
    deployment: Deployment, tmp_path: Path, empty_url: str
) -> None:
    """It reads a `.env` file as well; what is absent is said, and fails nothing."""
    settings = {"DATABASE_URL": deployment.database_url, "REDIS_URL": deployment.redis_url,
                "JWT_SECRET": JWT_SECRET}  # fmt: skip
    (tmp_path / ".env").write_text("".join(f"{k}='{v}'\n" for k, v in settings.items()))

    good, no_redis, no_tables = await at_once(
        lambda: command("check", cwd=tmp_path),
        lambda: command("check", cwd=tmp_path, REDIS_URL="redis://127.0.0.1:1/0"),
        lambda: command("check", cwd=tmp_path, DATABASE_URL=empty_url),
    )

    assert good.returncode == 0, good.stdout + good.stderr
    for name in ("settings", "postgres", "migrations", "redis"):
        assert any(line.startswith("ok") and name in line for line in good.stdout.splitlines())
    for name in ("ZEGO", "WX_APPID", "OPEN_API_KEYS"):
        assert name in good.stdout
    assert no_redis.returncode == 1
    assert [line for line in no_redis.stdout.splitlines() if line.startswith("FAIL")] == [
        line for line in no_redis.stdout.splitlines() if "redis" in line
    ]
    assert no_tables.returncode == 1
    assert "coordinator migrate" in no_tables.stdout


async def test_the_seed_is_the_documents_jobs_and_no_user_and_no_room(
    deployment: Deployment, empty_url: str
) -> None:
    assert deployment.run("migrate", DATABASE_URL=empty_url).returncode == 0

    for _ in range(2):
        seeded = deployment.run("seed", DATABASE_URL=empty_url)
        assert seeded.returncode == 0, seeded.stderr

    connection = await asyncpg.connect(empty_url)
    jobs = {row["id"] for row in await connection.fetch("SELECT id FROM jobs")}
    counts = [
        await connection.fetchval(f"SELECT count(*) FROM {table}")
        for table in ("enterprises", "interviews", "users", "interview_rooms")
    ]
    await connection.close()
    assert jobs == {job.id for job in JOBS}
    assert counts == [1, 1, 0, 0]

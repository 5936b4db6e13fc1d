"""Settings: what each variable means, and that a mistake is named."""

from __future__ import annotations

import base64
from ipaddress import ip_network
from pathlib import Path

import pytest

from coordinator.settings import DEFAULT_LIMITS, ApiKey, Settings, SettingsError

SECRET = "s" * 32
NEEDED = {"DATABASE_URL": "postgresql:///x", "REDIS_URL": "redis://h:6379/0", "JWT_SECRET": SECRET}


def settings(**values: str) -> Settings:
    return Settings.from_env({**NEEDED, **values})


def problems(**values: str) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        Settings.from_env({**NEEDED, **values})
    return raised.value.problems


def test_what_is_not_set_has_the_contracts_default() -> None:
    given = settings()

    assert (given.port, given.presence_grace, given.room_capacity) == (3000, 30.0, 500)
    assert (given.live_buffer, given.live_max_connections) == (256 * 1024, 20_000)
    assert (given.drain_seconds, given.events_keep_days) == (20.0, 30.0)
    assert (given.host_absent_end, given.room_empty_end, given.room_max_age) == (0.0, 0.0, 0.0)
    assert (given.participants_keep_days, given.interviews_keep_days) == (0.0, 0.0)
    assert (given.unconnected_guest_end, given.unconnected_per_address) == (0.0, 0)
    assert (given.connections_per_address, given.webhook_keep_days) == (200, 30.0)
    assert (given.metrics_allow, given.webhook_allow_private, given.dev_hosts) == ((), (), ())
    assert (given.wx_console_page, given.data_keys, given.database_pooler) == ("", (), "session")
    assert {name: given.rate_limits[name] for name in ("view", "create", "key", "ticket")} == {
        "view": "600/minute", "create": "60/minute", "key": "30/minute", "ticket": "10/minute",
    }  # fmt: skip
    assert (given.zego_token_cipher, given.log_format, given.signup) == ("gcm", "json", "open")
    assert given.wx_qr_pages == ("pages/interview/guest/guest",)
    assert given.wx_api_base == "https://api.weixin.qq.com"
    assert given.rate_limits == DEFAULT_LIMITS


def test_blank_is_not_set_and_foreign_names_are_ignored() -> None:
    assert settings(PORT=" ", NODE_ENV="production", ROOM_CAPACITY="") == settings()


def test_the_documents_database_names_make_an_url() -> None:
    values = {
        "DB_HOST": "db",
        "DB_NAME": "interview_db",
        "DB_USER": "root",
        "DB_PASSWORD": "p@:/ %",
    }
    given = Settings.from_env({**NEEDED, "DATABASE_URL": "", **values})

    assert given.database_url == "postgresql://root:p%40%3A%2F%20%25@db:5432/interview_db"
    assert settings(**values).database_url == "postgresql:///x", "DATABASE_URL wins"


def test_a_dotenv_file_fills_in_what_the_environment_does_not_name(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("PORT=4000\nPRESENCE_GRACE=5\n# a comment\n")

    given = Settings.from_env({**NEEDED, "PORT": "5000"}, dotenv=path)

    assert (given.port, given.presence_grace) == (5000, 5.0)
    assert Settings.from_env(NEEDED, dotenv=tmp_path / "missing") == settings()


def test_secrets_can_be_listed_and_do_not_show() -> None:
    given = settings(JWT_SECRET=f"{SECRET}, {'t' * 40}", OPEN_API_KEYS="coze:the-key",
                     WX_SECRET="wx-secret", ZEGO_APP_ID="5", ZEGO_SERVER_SECRET="z" * 32,
                     DATABASE_URL="postgresql://u:the-password@h/d")  # fmt: skip

    assert given.jwt_secrets == (SECRET, "t" * 40)
    for secret in (SECRET, "tttt", "the-key", "wx-secret", "zzzz", "the-password"):
        assert secret not in repr(given)


def test_keys_of_the_open_api() -> None:
    given = settings(OPEN_API_KEYS="a:k1, b:k2:ro ,c:k3:rw:ent_1")

    assert given.open_api_keys == (
        ApiKey("a", "k1"), ApiKey("b", "k2", writes=False), ApiKey("c", "k3", True, "ent_1")
    )  # fmt: skip
    assert len(problems(OPEN_API_KEYS="nameless, x:, y:k:maybe")) == 3


def test_rates_are_overridden_by_name_or_switched_off() -> None:
    given = settings(RATE_LIMITS="join=600/minute, login=off,open=5/s").rate_limits

    assert given == {**DEFAULT_LIMITS, "join": "600/minute", "login": "", "open": "5/second"}
    assert set(settings(RATE_LIMITS="off").rate_limits.values()) == {""}
    assert len(problems(RATE_LIMITS="dance=1/minute,join=often,leave=0/minute")) == 3


def test_lists_of_networks_origins_and_pages() -> None:
    given = settings(TRUSTED_PROXIES="10.0.0.1, fd00::/8",
                     ALLOWED_ORIGINS="https://a.cn/,http://b", WX_QR_PAGES="a/b, c/d",
                     PUBLIC_BASE_URL="https://crm.example.com/")  # fmt: skip

    assert given.trusted_proxies == (ip_network("10.0.0.1"), ip_network("fd00::/8"))
    assert given.allowed_origins == ("https://a.cn", "http://b")
    assert given.wx_qr_pages == ("a/b", "c/d")
    assert given.base_url == "https://crm.example.com"


def test_data_keys_are_base64_of_either_alphabet() -> None:
    given = settings(DATA_KEYS=f"{'_' * 43}=,{'+' * 43}=")

    assert given.data_keys == (b"\xff" * 32, base64.b64decode("+" * 43 + "="))
    assert "xff" not in repr(given)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"), ("PORT", "3000.5"), ("ROOM_CAPACITY", "0"), ("PRESENCE_GRACE", "soon"),
        ("PRESENCE_GRACE", "nan"), ("DRAIN_SECONDS", "-1"), ("DRAIN_SECONDS", "inf"),
        ("LIVE_BUFFER", "1"), ("REDIS_URL", "http://h"), ("DATABASE_URL", "mysql://h/d"),
        ("PUBLIC_BASE_URL", "crm.example.com"), ("WX_API_BASE", "ftp://x"), ("SIGNUP", "closed"),
        ("JWT_SECRET", "s" * 31), ("JWT_SECRET", ","), ("ZEGO_SERVER_SECRET", "z" * 32),
        ("ZEGO_APP_ID", "5"), ("ZEGO_APP_ID", "4294967296"), ("ZEGO_TOKEN_CIPHER", "des"),
        ("LOG_LEVEL", "loud"), ("METRICS_ALLOW", "inside"),
        ("WEBHOOK_ALLOW_PRIVATE", "10.0.0.0/99"),
        ("WEBHOOK_KEEP_DAYS", "-1"), ("UNCONNECTED_PER_ADDRESS", "-1"), ("DATA_KEYS", "short"),
        ("DATA_KEYS", "!" * 44), ("DATABASE_POOLER", "x"), ("CONNECTIONS_PER_ADDRESS", "x"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"), ("IDENTITY_PROOF", "never"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named(name: str, value: str) -> None:
    assert any(name in problem for problem in problems(**{name: value}))

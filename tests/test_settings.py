"""Settings: what each variable means, and that a mistake is named."""

from __future__ import annotations

import base64
import re
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path

import pytest

import coordinator
from coordinator.environment import NO_LIMIT
from coordinator.postgres_url import parse_postgres_url
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


@pytest.mark.parametrize("host", ["::1", "[::1]", "fe80::1:2"])
def test_an_ipv6_host_needs_no_brackets_where_it_stands_alone(host: str) -> None:
    values = {"DB_HOST": host, "DB_NAME": "d", "DB_USER": "u"}

    given = Settings.from_env({**NEEDED, "DATABASE_URL": "", **values})

    assert parse_postgres_url(given.database_url).hosts == ((host.strip("[]"), 5432),)


def test_each_of_the_documents_database_names_that_is_missing_is_named() -> None:
    given = {**NEEDED, "DATABASE_URL": "", "DB_HOST": "db", "DB_PORT": "5432"}
    with pytest.raises(SettingsError) as raised:
        Settings.from_env(given)

    assert [problem.split()[0] for problem in raised.value.problems] == ["DB_NAME", "DB_USER"]


def test_a_dotenv_file_fills_in_what_the_environment_does_not_name(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("PORT=4000\nPRESENCE_GRACE=5\n# a comment\n")

    given = Settings.from_env({**NEEDED, "PORT": "5000"}, dotenv=path)

    assert (given.port, given.presence_grace) == (5000, 5.0)
    assert Settings.from_env(NEEDED, dotenv=tmp_path / "missing") == settings()


def test_secrets_can_be_listed_and_do_not_show() -> None:
    given = settings(JWT_SECRET=f"{SECRET}, {'t' * 40}", OPEN_API_KEYS="coze:the-key-of-this-test",
                     WX_APPID="wx1", WX_SECRET="wx-secret", ZEGO_APP_ID="5",
                     ZEGO_SERVER_SECRET="z" * 32,
                     DATABASE_URL="postgresql://u:the-password@h/d")  # fmt: skip

    assert given.jwt_secrets == (SECRET, "t" * 40)
    for secret in (SECRET, "tttt", "the-key", "wx-secret", "zzzz", "the-password"):
        assert secret not in repr(given)


def test_keys_of_the_open_api() -> None:
    one, two, three = (letter * 16 for letter in "abc")

    given = settings(OPEN_API_KEYS=f"a:{one}, b:{two}:ro ,c:{three}:rw:ent_1")

    assert given.open_api_keys == (
        ApiKey("a", one), ApiKey("b", two, writes=False), ApiKey("c", three, True, "ent_1")
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ("nameless", "name:key"), ("x:", "name:key"), (f":{'k' * 16}", "name:key"),
        (f"x:{'k' * 16}:maybe", "unknown right"), (f"x:{'k' * 16}:", "unknown right"),
        (f"x:{'k' * 16}:rw:", "empty enterprise"), (f"x:{'k' * 16}:ro:", "empty enterprise"),
        (f"x:{'k' * 15}", "fewer than 16"),
        (f"x:{'k' * 16}:rw:ent_1,x:{'l' * 16}:rw:ent_2", "two tenants"),
        (f"x:{'k' * 16}:rw:ent_1,x:{'l' * 16}", "two tenants"),
        (f"x:{'k' * 16}:ro,y:{'k' * 16}", "one key stands in two entries"),
        (f"{'x' * 101}:{'k' * 16}", "more than 100"),
    ],
)  # fmt: skip
def test_keys_that_would_open_too_much_are_refused_and_not_shown(
    entries: str, problem: str
) -> None:
    found = problems(OPEN_API_KEYS=entries)

    assert len(found) == 1
    assert found[0].startswith("OPEN_API_KEYS")
    assert problem in found[0]
    assert "kkk" not in found[0]


def test_one_name_may_have_several_keys_of_one_tenant() -> None:
    keys = settings(OPEN_API_KEYS=f"x:{'k' * 16}:rw:ent_1,x:{'l' * 16}:ro:ent_1").open_api_keys

    assert [key.enterprise_id for key in keys] == ["ent_1", "ent_1"]


def test_rates_are_overridden_by_name_or_switched_off() -> None:
    given = settings(RATE_LIMITS="join=600/minute, login=off,open=5/s").rate_limits

    assert given == {**DEFAULT_LIMITS, "join": "600/minute", "login": "", "open": "5/second"}
    assert set(settings(RATE_LIMITS="off").rate_limits.values()) == {""}
    assert len(problems(RATE_LIMITS="dance=1/minute,join=often,leave=-1/minute")) == 3


def test_zero_is_off_everywhere() -> None:
    names = ("ROOM_CAPACITY", "LIVE_BUFFER", "LIVE_MAX_CONNECTIONS", "PRESENCE_GRACE",
             "HOST_ABSENT_END", "ROOM_EMPTY_END", "ROOM_MAX_AGE", "EVENTS_KEEP_DAYS",
             "DRAIN_SECONDS", "UNCONNECTED_GUEST_END", "PARTICIPANTS_KEEP_DAYS",
             "INTERVIEWS_KEEP_DAYS", "UNCONNECTED_PER_ADDRESS", "CONNECTIONS_PER_ADDRESS",
             "WEBHOOK_KEEP_DAYS")  # fmt: skip

    given = settings(**dict.fromkeys(names, "0"), RATE_LIMITS="join=0/minute,view=0")

    assert given.room_capacity == given.live_buffer == given.live_max_connections == NO_LIMIT
    assert (given.presence_grace, given.events_keep_days, given.drain_seconds) == (0.0, 0.0, 0.0)
    assert (given.rate_limits["join"], given.rate_limits["view"]) == ("", "")


def test_lists_of_networks_origins_and_pages() -> None:
    given = settings(TRUSTED_PROXIES="10.0.0.1, fd00::/8",
                     ALLOWED_ORIGINS="https://a.cn/,http://b", WX_QR_PAGES="a/b, c/d",
                     PUBLIC_BASE_URL="https://crm.example.com/")  # fmt: skip

    assert given.trusted_proxies == (ip_network("10.0.0.1"), ip_network("fd00::/8"))
    assert given.allowed_origins == ("https://a.cn", "http://b")
    assert given.wx_qr_pages == ("a/b", "c/d")
    assert given.base_url == "https://crm.example.com"


def test_origins_are_compared_as_browsers_send_them() -> None:
    given = settings(ALLOWED_ORIGINS="https://Meet.Example.cn:443/,HTTP://a.cn:80,http://b:8080,"
                     "https://[2001:DB8::1]:8443,*")  # fmt: skip

    assert given.allowed_origins == (
        "https://meet.example.cn", "http://a.cn", "http://b:8080", "https://[2001:db8::1]:8443", "*"
    )  # fmt: skip


@pytest.mark.parametrize(
    "origin", ["meet.example.cn", "https://a.cn/path", "https://a:port", "https://[x", "ftp://a"]
)
def test_an_origin_that_no_browser_sends_is_named(origin: str) -> None:
    (problem,) = problems(ALLOWED_ORIGINS=f"https://a.cn,{origin}")

    assert problem.startswith("ALLOWED_ORIGINS: entry 2 ")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "gbk"])
def test_a_dotenv_file_that_is_not_utf8_is_one_line_of_the_message(
    tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / ".env"
    path.write_bytes("PORT=4000\n# 中文\n".encode(encoding))

    with pytest.raises(SettingsError) as raised:
        Settings.from_env({}, dotenv=path)

    assert sum(problem.startswith(".env is not UTF-8") for problem in raised.value.problems) == 1
    assert any(problem.startswith("REDIS_URL") for problem in raised.value.problems)


def test_a_dotenv_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes("PORT=4000\n".encode("utf-8-sig"))

    assert Settings.from_env(NEEDED, dotenv=path).port == 4000


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_dotenv_file_is_read_to_the_letter(tmp_path: Path, quote: str) -> None:
    """No variable is filled in: what looks like one may be of a password."""
    path = tmp_path / ".env"
    path.write_text(f"WX_APPID=wx1\nWX_SECRET={quote}p${{HOME}}$HOME#${{gone:-x}}{quote}\n")
    assert Settings.from_env(NEEDED, dotenv=path).wx_secret == "p${HOME}$HOME#${gone:-x}"


def test_a_line_of_a_dotenv_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("PORT=4000\nLOG_LEVEL='debug\n")

    with pytest.raises(SettingsError) as raised:
        Settings.from_env(NEEDED, dotenv=path)

    assert raised.value.problems == [".env cannot be read at line 2: expected NAME=value"]


def test_what_is_not_utf8_in_the_environment_is_named() -> None:
    assert problems(WX_SECRET="\udcd6\udcd0") == ["WX_SECRET is not UTF-8 text"]


def test_every_url_that_cannot_be_read_is_one_line_without_its_password() -> None:
    found = problems(
        DATABASE_URL="postgresql://u:pass#word@h/d", REDIS_URL="redis://:pass/word@h:x/0",
        PUBLIC_BASE_URL="https://[x", WX_API_BASE="https://u:password@h:99999",
    )  # fmt: skip

    assert [problem.split()[0] for problem in found] == [
        "DATABASE_URL", "REDIS_URL", "PUBLIC_BASE_URL", "WX_API_BASE",
    ]  # fmt: skip
    assert not any("pass#" in text or "pass/" in text or "password@" in text for text in found)


def test_data_keys_are_base64_of_either_alphabet() -> None:
    given = settings(DATA_KEYS=f"{'_' * 43}=,{'+' * 43}=")

    assert given.data_keys == (b"\xff" * 32, base64.b64decode("+" * 43 + "="))
    assert "xff" not in repr(given)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"), ("PORT", "3000.5"), ("ROOM_CAPACITY", "-1"), ("PRESENCE_GRACE", "soon"),
        ("PORT", "3_000"), ("ROOM_CAPACITY", "٣"), ("DRAIN_SECONDS", "1_0"),
        ("RATE_LIMITS", "join=٣/minute"),
        ("PRESENCE_GRACE", "nan"), ("DRAIN_SECONDS", "-1"), ("DRAIN_SECONDS", "inf"),
        ("LIVE_BUFFER", "1"), ("REDIS_URL", "http://h"), ("DATABASE_URL", "mysql://h/d"),
        ("PUBLIC_BASE_URL", "crm.example.com"), ("WX_API_BASE", "ftp://x"),
        ("PUBLIC_BASE_URL", "https://h/?x=1"), ("PUBLIC_BASE_URL", "https://u:p@h"),
        ("SIGNUP", "closed"), ("WX_APPID", "wx1"), ("WX_SECRET", "s"),
        ("JWT_SECRET", "s" * 31), ("JWT_SECRET", ","), ("ZEGO_SERVER_SECRET", "z" * 32),
        ("ZEGO_APP_ID", "5"), ("ZEGO_APP_ID", "4294967296"), ("ZEGO_TOKEN_CIPHER", "des"),
        ("LOG_LEVEL", "loud"), ("METRICS_ALLOW", "inside"),
        ("WEBHOOK_ALLOW_PRIVATE", "10.0.0.0/99"),
        ("EVENTS_KEEP_DAYS", "1000001"),
        ("WEBHOOK_KEEP_DAYS", "-1"), ("UNCONNECTED_PER_ADDRESS", "-1"), ("DATA_KEYS", "short"),
        ("DATA_KEYS", "!" * 44), ("DATABASE_POOLER", "x"), ("CONNECTIONS_PER_ADDRESS", "x"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"), ("IDENTITY_PROOF", "never"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named(name: str, value: str) -> None:
    assert any(name in problem for problem in problems(**{name: value}))


def test_a_page_that_wechat_would_refuse_is_named() -> None:
    for page in ("/pages/a/a", "pages/a/a?x=1", "pages/a a"):
        assert [
            problem.split(" must look like ")[0]
            for problem in problems(WX_QR_PAGES=f"pages/b/b,{page}", WX_CONSOLE_PAGE=page)
        ] == ["WX_QR_PAGES", "WX_CONSOLE_PAGE"]
    assert len(problems(WX_CONSOLE_PAGE="pages/a/a,pages/b/b")) == 1
    assert settings(WX_CONSOLE_PAGE="pages/a/a").wx_console_page == "pages/a/a"


def test_a_host_that_no_request_can_name_is_told() -> None:
    for host in ("http://my.phone", "my.phone:3000", "my.phone/", "::1"):
        assert problems(DEV_HOSTS=f"ok.example,{host}") == [
            f"DEV_HOSTS must list host names, without scheme and port, not {host!r}"
        ]
    given = settings(DEV_HOSTS="My.Phone.example, [::1], 10.0.0.7")
    assert given.dev_hosts == ("my.phone.example", "[::1]", "10.0.0.7")


def test_what_a_number_may_be_is_said_in_full() -> None:
    assert problems(PRESENCE_GRACE="30s", LIVE_BUFFER="1", EVENTS_KEEP_DAYS="-1") == [
        "PRESENCE_GRACE must be a number from 0 to 316224000, not '30s'",
        "EVENTS_KEEP_DAYS must be a number from 0 to 1000000, not '-1'",
        "LIVE_BUFFER must be a number of at least 4096 (0: no limit), not '1'",
    ]


@pytest.mark.parametrize("port", ["0", "65536", "x"])
def test_a_bad_port_of_the_database_is_told_once(port: str) -> None:
    found = problems(DATABASE_URL="", DB_HOST="h", DB_NAME="n", DB_USER="u", DB_PORT=port)
    assert found == [f"DB_PORT must be a number from 1 to 65535, not {port!r}"]


def test_no_zego_app_has_the_number_0() -> None:
    """With a secret beside it, it would be off while it seems to be set."""
    assert problems(ZEGO_APP_ID="0", ZEGO_SERVER_SECRET="z" * 32) == [
        "ZEGO_APP_ID must be a number from 1 to 4294967295, not '0'"
    ]


def test_no_setting_is_read_by_nobody() -> None:
    """An option that nothing reads would promise what nothing does."""
    root = Path(coordinator.__file__).parent
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for path in root.rglob("*.py")
        if path.name not in ("settings.py", "environment.py")
    )
    read = set(re.findall(r"settings\.(\w+)", sources))
    derived = {"port", "host"}  # read by what `Settings` derives from them
    own = (root / "settings.py").read_text(encoding="utf-8")
    derived |= set(re.findall(r"self\.(\w+)", own))
    unread = {each.name for each in fields(Settings)} - read - derived
    assert unread == set()


# -- the proxies of the environment --------------------------------------------------------------

WECHAT = {"WX_APPID": "wx1", "WX_SECRET": "s"}


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ({"HTTPS_PROXY": "p:3128"}, "http://p:3128"),
        ({"ALL_PROXY": "http://p:3128", "HTTP_PROXY": "http://q"}, "http://p:3128"),
        ({"HTTPS_PROXY": "http://p", "https_proxy": "http://q"}, "http://q"),
        ({"HTTPS_PROXY": "http://p", "ALL_PROXY": "socks5://q:1080"}, "http://p"),
        ({"ALL_PROXY": "socks5://q:1080", "NO_PROXY": "localhost,[::1],.weixin.qq.com"}, ""),
        ({"ALL_PROXY": "socks5://q:1080", "NO_PROXY": "*"}, ""),
        ({"ALL_PROXY": "socks5://q:1080", "WX_API_BASE": "http://127.0.0.1:1"}, ""),
        ({"ALL_PROXY": "socks5://q:1080", "WX_APPID": "", "WX_SECRET": ""}, ""),
        ({"NO_PROXY": "localhost,127.0.0.1,::1,[::1],fe80::/10"}, ""),
    ],
)
def test_wechat_is_called_through_the_proxy_of_the_environment(
    environ: dict[str, str], proxy: str
) -> None:
    assert Settings.from_env({**NEEDED, **WECHAT, **environ}).wx_proxy == proxy


@pytest.mark.parametrize("proxy", ["socks5://u:hush@q:1080", "x://q", "http://", "http://q:x"])
def test_a_proxy_that_cannot_be_used_is_refused_where_wechat_is_called(proxy: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_env({**NEEDED, **WECHAT, "ALL_PROXY": proxy})
    (problem,) = raised.value.problems
    assert problem.startswith("ALL_PROXY must be http://host:port")
    assert "hush" not in problem

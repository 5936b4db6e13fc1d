"""What an operator can set: one frozen object, read once from the environment and checked whole.

`Settings.from_env` collects every mistake and raises one `SettingsError` that lists them all, so
that a deployment is mended in one go. Secrets do not show in `repr`. Nothing here does I/O but
reading the optional `.env` file.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit

from dotenv import dotenv_values

T = TypeVar("T")

DOCUMENTED_KEYS = "coze:wehan_open_api_key_2026,coze-dev:wehan_dev_test_2026"
"""The two keys printed in the Coze document: valid in development and tests, nowhere else."""

WECHAT_HOST = "https://api.weixin.qq.com"

DEFAULT_LIMITS: Mapping[str, str] = {
    "login": "20/minute",
    "join": "60/minute",
    "leave": "120/minute",
    "zego": "120/minute",
    "phone": "30/minute",
    "qr": "30/minute",
    "open": "600/minute",
    "live": "120/minute",
    "view": "600/minute",
    "create": "60/minute",
    "key": "30/minute",
    "ticket": "10/minute",
}
"""Rate limits by name; `RATE_LIMITS` overrides them by name, `off` switches one or all off."""


class SettingsError(Exception):
    """Settings that cannot be served with.

    Attributes:
        problems: one sentence per missing or bad setting, each starting with its name.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(
            "the settings are not complete:\n" + "\n".join(f"  - {p}" for p in problems)
        )


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key of the open API.

    Attributes:
        name: stands in the log and on records; the key itself never does.
        writes: False for a key that may only read (`name:key:ro`).
        enterprise_id: the tenant whose jobs and interviews it sees (`name:key:rw:ent`), None for
        all.
    """

    name: str
    key: str = field(repr=False)
    writes: bool = True
    enterprise_id: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. Durations are seconds or days; 0 switches a limit off.

    Attributes:
        unconnected_guest_end: after so long a guest who has never connected leaves.
        unconnected_per_address: seats of one address in one room that have never connected.
        connections_per_address: TCP connections of one address that have not authenticated a live
            connection.
        metrics_allow: networks beside loopback that may read `/metrics`.
        webhook_allow_private: private networks that a webhook may call.
        wx_console_page: the mini-program page that confirms sign-ins; "" hides that way.
        dev_hosts: host names that `dev` answers beside its own.
        data_keys: 32 bytes each: the first encrypts what is encrypted at rest, all decrypt.
        database_pooler: "transaction" where PgBouncer in that mode stands before Postgres; else
            "session", also where there is no pooler.
    """

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    jwt_secrets: tuple[str, ...] = field(repr=False)
    port: int = 3000
    public_base_url: str = ""
    wx_appid: str = ""
    wx_secret: str = field(default="", repr=False)
    wx_api_base: str = WECHAT_HOST
    wx_qr_pages: tuple[str, ...] = ("pages/interview/guest/guest",)
    zego_app_id: int = 0
    zego_server_secret: str = field(default="", repr=False)
    zego_token_cipher: str = "gcm"
    open_api_keys: tuple[ApiKey, ...] = ()
    identity_proof: str = "first-use"
    signup: str = "open"
    room_capacity: int = 500
    presence_grace: float = 30.0
    host_absent_end: float = 0.0
    room_empty_end: float = 0.0
    room_max_age: float = 0.0
    events_keep_days: float = 30.0
    participants_keep_days: float = 0.0
    interviews_keep_days: float = 0.0
    unconnected_guest_end: float = 0.0
    unconnected_per_address: int = 0
    connections_per_address: int = 200
    live_buffer: int = 256 * 1024
    live_max_connections: int = 20_000
    drain_seconds: float = 20.0
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    metrics_allow: tuple[IPv4Network | IPv6Network, ...] = ()
    webhook_allow_private: tuple[IPv4Network | IPv6Network, ...] = ()
    webhook_keep_days: float = 30.0
    wx_console_page: str = ""
    dev_hosts: tuple[str, ...] = ()
    data_keys: tuple[bytes, ...] = field(default=(), repr=False)
    database_pooler: str = "session"
    rate_limits: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_LIMITS))
    log_format: str = "json"
    log_level: str = "info"

    @property
    def wechat_ready(self) -> bool:
        """True where WeChat's calls can be made at all."""
        return bool(self.wx_appid and self.wx_secret)

    @property
    def zego_ready(self) -> bool:
        """True where ZEGO tokens can be made."""
        return bool(self.zego_app_id and self.zego_server_secret)

    @property
    def base_url(self) -> str:
        """Where clients reach this deployment, without a trailing slash."""
        return self.public_base_url or f"http://localhost:{self.port}"

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, dotenv: Path | None = None) -> Settings:
        """Reads settings from `environ`; a `.env` file fills in what it does not name.

        Raises:
            SettingsError: one or more are missing or bad; it lists all of them.
        """
        values = dict(environ)
        if dotenv is not None and dotenv.is_file():
            values = {k: v for k, v in dotenv_values(dotenv).items() if v is not None} | values
        return _Reader(values).settings()


class _Reader:
    """Reads one value after the other and remembers what is wrong with each."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = {name: value.strip() for name, value in values.items()}
        self.problems: list[str] = []

    def settings(self) -> Settings:
        database_url = self._database_url()
        redis_url = self._required("REDIS_URL", "redis://host:6379/0")
        if redis_url and urlsplit(redis_url).scheme not in ("redis", "rediss", "unix"):
            self.problems.append("REDIS_URL must start with redis://, rediss:// or unix://")
        defaults = Settings(database_url="", redis_url="", jwt_secrets=())
        result = Settings(
            database_url=database_url,
            redis_url=redis_url,
            jwt_secrets=self._jwt_secrets(),
            port=self._number("PORT", int, defaults.port, least=0, most=65535),
            public_base_url=self._url("PUBLIC_BASE_URL"),
            wx_appid=self._text("WX_APPID"),
            wx_secret=self._text("WX_SECRET"),
            wx_api_base=self._url("WX_API_BASE") or defaults.wx_api_base,
            wx_qr_pages=self._list("WX_QR_PAGES") or defaults.wx_qr_pages,
            zego_app_id=self._number("ZEGO_APP_ID", int, 0, least=0, most=2**32 - 1),
            zego_server_secret=self._zego_secret(),
            zego_token_cipher=self._choice("ZEGO_TOKEN_CIPHER", ("gcm", "cbc")),
            open_api_keys=self._api_keys(),
            identity_proof=self._choice("IDENTITY_PROOF", ("first-use", "required")),
            signup=self._choice("SIGNUP", ("open", "invite")),
            room_capacity=self._number("ROOM_CAPACITY", int, defaults.room_capacity, least=1),
            presence_grace=self._seconds("PRESENCE_GRACE", defaults.presence_grace),
            host_absent_end=self._seconds("HOST_ABSENT_END", 0.0),
            room_empty_end=self._seconds("ROOM_EMPTY_END", 0.0),
            room_max_age=self._seconds("ROOM_MAX_AGE", 0.0),
            events_keep_days=self._seconds("EVENTS_KEEP_DAYS", defaults.events_keep_days),
            participants_keep_days=self._seconds("PARTICIPANTS_KEEP_DAYS", 0.0),
            interviews_keep_days=self._seconds("INTERVIEWS_KEEP_DAYS", 0.0),
            unconnected_guest_end=self._seconds("UNCONNECTED_GUEST_END", 0.0),
            unconnected_per_address=self._number("UNCONNECTED_PER_ADDRESS", int, 0, least=0),
            connections_per_address=self._number(
                "CONNECTIONS_PER_ADDRESS", int, defaults.connections_per_address, least=0
            ),
            live_buffer=self._number("LIVE_BUFFER", int, defaults.live_buffer, least=4096),
            live_max_connections=self._number(
                "LIVE_MAX_CONNECTIONS", int, defaults.live_max_connections, least=1
            ),
            drain_seconds=self._seconds("DRAIN_SECONDS", defaults.drain_seconds),
            trusted_proxies=self._networks("TRUSTED_PROXIES"),
            allowed_origins=tuple(o.rstrip("/") for o in self._list("ALLOWED_ORIGINS")),
            metrics_allow=self._networks("METRICS_ALLOW"),
            webhook_allow_private=self._networks("WEBHOOK_ALLOW_PRIVATE"),
            webhook_keep_days=self._seconds("WEBHOOK_KEEP_DAYS", defaults.webhook_keep_days),
            wx_console_page=self._text("WX_CONSOLE_PAGE"),
            dev_hosts=tuple(host.lower() for host in self._list("DEV_HOSTS")),
            data_keys=self._data_keys(),
            database_pooler=self._choice("DATABASE_POOLER", ("session", "transaction")),
            rate_limits=self._rate_limits(),
            log_format=self._choice("LOG_FORMAT", ("json", "text")),
            log_level=self._choice("LOG_LEVEL", ("info", "debug", "warning", "error")),
        )
        if self.problems:
            raise SettingsError(self.problems)
        return result

    def _text(self, name: str) -> str:
        return self.values.get(name, "")

    def _list(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self._text(name).split(",") if part.strip())

    def _required(self, name: str, example: str) -> str:
        value = self._text(name)
        if not value:
            self.problems.append(f"{name} is missing (for example {example})")
        return value

    def _choice(self, name: str, choices: tuple[str, ...]) -> str:
        """The first choice is the default."""
        value = self._text(name).lower() or choices[0]
        if value not in choices:
            self.problems.append(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        return value

    def _number(
        self, name: str, kind: Callable[[str], T], default: T, *, least: float, most: float = 2**53
    ) -> T:
        text = self._text(name)
        if not text:
            return default
        try:
            value = kind(text)
            in_range = least <= value <= most  # type: ignore[operator]  # kind is int or float
        except ValueError:
            in_range, value = False, default
        if not in_range:
            self.problems.append(
                f"{name} must be a number from {least:g} to {most:g}, not {text!r}"
            )
        return value

    def _seconds(self, name: str, default: float) -> float:
        return self._number(name, float, default, least=0, most=10 * 366 * 86400)

    def _url(self, name: str) -> str:
        value = self._text(name).rstrip("/")
        if value and (
            urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname
        ):
            self.problems.append(f"{name} must be an http(s) URL, not {value!r}")
        return value

    def _database_url(self) -> str:
        url = self._text("DATABASE_URL")
        if url:
            if urlsplit(url).scheme not in ("postgres", "postgresql"):
                self.problems.append("DATABASE_URL must start with postgresql://")
            return url
        host, name, user = (self._text(f"DB_{part}") for part in ("HOST", "NAME", "USER"))
        if not (host and name and user):
            self.problems.append(
                "DATABASE_URL is missing (for example postgresql://user:password@host:5432/name;"
                " or DB_HOST, DB_NAME, DB_USER, DB_PASSWORD)"
            )
            return ""
        port = self._number("DB_PORT", int, 5432, least=1, most=65535)
        login = quote(user, safe="") + ":" + quote(self._text("DB_PASSWORD"), safe="")
        return f"postgresql://{login}@{host}:{port}/{quote(name, safe='')}"

    def _jwt_secrets(self) -> tuple[str, ...]:
        given = self._required("JWT_SECRET", "64 random characters: openssl rand -hex 32")
        secrets = self._list("JWT_SECRET")
        if given and min((len(secret.encode()) for secret in secrets), default=0) < 32:
            self.problems.append("JWT_SECRET must have at least 32 bytes (each one, in a list)")
        return secrets

    def _zego_secret(self) -> str:
        """ZEGO's server secret is 32 ASCII characters used as the AES-256 key as they are."""
        secret, app_id = self._text("ZEGO_SERVER_SECRET"), self._text("ZEGO_APP_ID")
        if secret and len(secret.encode()) != 32:
            self.problems.append("ZEGO_SERVER_SECRET must have exactly 32 bytes")
        if bool(secret) != bool(app_id):
            self.problems.append("ZEGO_APP_ID and ZEGO_SERVER_SECRET go together: one is missing")
        return secret

    def _api_keys(self) -> tuple[ApiKey, ...]:
        keys = []
        for entry in self._list("OPEN_API_KEYS"):
            name, _, rest = entry.partition(":")
            key, mode, enterprise = ([*rest.split(":", 2), "", ""])[:3]
            if not name or not key or mode not in ("", "ro", "rw"):
                self.problems.append(
                    f"OPEN_API_KEYS: the entry {name!r} must be name:key, name:key:ro"
                    " or name:key:rw:<enterpriseId>"
                )
                continue
            keys.append(ApiKey(name, key, mode != "ro", enterprise or None))
        return tuple(keys)

    def _networks(self, name: str) -> tuple[IPv4Network | IPv6Network, ...]:
        networks = []
        for text in self._list(name):
            try:
                networks.append(ip_network(text, strict=False))
            except ValueError:
                self.problems.append(f"{name} must list addresses or networks, not {text!r}")
        return tuple(networks)

    def _data_keys(self) -> tuple[bytes, ...]:
        """AES-256 keys in base64, the standard alphabet or the URL-safe one."""
        keys = []
        for place, text in enumerate(self._list("DATA_KEYS"), 1):
            try:
                key = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
            except binascii.Error:
                key = b""
            if len(key) != 32:
                self.problems.append(
                    f"DATA_KEYS: key {place} must be 32 bytes in base64: openssl rand -base64 32"
                )
            keys.append(key)
        return tuple(keys)

    def _rate_limits(self) -> dict[str, str]:
        """`off`, or `name=count/period` pairs over the defaults; an empty rate is no limit."""
        limits = dict(DEFAULT_LIMITS)
        if self._text("RATE_LIMITS").lower() in ("off", "0"):
            return dict.fromkeys(limits, "")
        for pair in self._list("RATE_LIMITS"):
            name, _, rate = (part.strip().lower() for part in pair.partition("="))
            if name not in limits:
                self.problems.append(f"RATE_LIMITS: {name!r} is none of {', '.join(limits)}")
            elif rate in ("off", "0"):
                limits[name] = ""
            elif match := re.fullmatch(
                r"([1-9]\d{0,8})/(s|sec|second|m|min|minute|h|hour|d|day)", rate
            ):
                period = {"s": "second", "m": "minute", "h": "hour", "d": "day"}[match[2][0]]
                limits[name] = f"{match[1]}/{period}"
            else:
                self.problems.append(
                    f"RATE_LIMITS: {pair!r} must look like {name}=60/minute or {name}=off"
                )
        return limits


def connection_options(database_url: str) -> dict[str, object]:
    """asyncpg's keyword arguments for a libpq URL; unix sockets stand in `?host=/dir`."""
    url = urlsplit(database_url)
    return {"dsn": database_url, "database": unquote(url.path.lstrip("/")) or "postgres"}

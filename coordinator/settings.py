"""What an operator can set: one frozen object, read once from the environment and checked whole.

`Settings.from_env` collects every mistake and raises one `SettingsError` that lists them all, so
that a deployment is mended in one go. Secrets do not show in `repr`. Nothing here does I/O but
reading the optional `.env` file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from urllib.parse import quote

from coordinator.environment import Environment, read_dotenv
from coordinator.postgres_url import parse_postgres_url
from coordinator.redis_url import RedisTarget, parse_redis_url

DOCUMENTED_KEYS = "coze:wehan_open_api_key_2026,coze-dev:wehan_dev_test_2026"
"""The two keys printed in the Coze document: valid in development and tests, nowhere else."""

PRINTED_KEYS = frozenset(entry.partition(":")[2] for entry in DOCUMENTED_KEYS.split(","))
"""Those keys alone. `serve` takes them, with a warning: everybody can read them."""

NEEDED_TO_SERVE = ("REDIS_URL", "JWT_SECRET")
"""Beside the database, which every command works on."""

SHORTEST_API_KEY = 16
LONGEST_KEY_NAME = 100
"""Characters: the name stands on the records that its key makes."""

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
        wx_proxy: through which WeChat is called, as the environment has it; "" = straight.
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
    wx_proxy: str = field(default="", repr=False)
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
    def redis(self) -> RedisTarget:
        """Where Redis is."""
        return parse_redis_url(self.redis_url)

    @property
    def wechat_ready(self) -> bool:
        """True where WeChat's calls can be made at all."""
        return bool(self.wx_appid and self.wx_secret)

    @property
    def zego_ready(self) -> bool:
        """True where ZEGO tokens can be made."""
        return bool(self.zego_app_id and self.zego_server_secret)

    @property
    def limits_are_off(self) -> bool:
        """True where `RATE_LIMITS=off`: then nothing is counted by address."""
        return not any(self.rate_limits.values())

    @property
    def base_url(self) -> str:
        """Where clients reach this deployment, without a trailing slash."""
        return self.public_base_url or f"http://localhost:{self.port}"

    def warnings(self) -> list[str]:
        """What can be served with, and what an operator should know of; each begins with its name.
        """
        found = []
        if printed := [key.name for key in self.open_api_keys if key.key in PRINTED_KEYS]:
            found.append(
                f"OPEN_API_KEYS: the key of {', '.join(map(repr, printed))} is printed in a public"
                " document: everybody has it"
            )
        if self.identity_proof == "first-use":
            found.append(
                "IDENTITY_PROOF=first-use: until a guest has used its token, anybody can speak for"
                " it by its public id; new deployments set `required`"
            )
        if not self.data_keys:
            found.append(
                "DATA_KEYS is not set: phone numbers are not stored and webhooks cannot be added"
                " (openssl rand -base64 32)"
            )
        return found

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str], *, dotenv: Path | None = None,
        needed: Collection[str] = NEEDED_TO_SERVE,
    ) -> Settings:  # fmt: skip
        """Reads settings from `environ`; a `.env` file fills in what it does not name.

        Args:
            needed: which of `NEEDED_TO_SERVE` may not be missing, beside the database.

        Raises:
            SettingsError: one or more are missing or bad; it lists all of them.
        """
        of_file, problems = read_dotenv(dotenv) if dotenv is not None else ({}, [])
        env = Environment(of_file | dict(environ), optional=set(NEEDED_TO_SERVE) - set(needed))
        env.problems += problems
        settings = _read(env)
        if env.problems:
            raise SettingsError(env.problems)
        return settings


def _read(env: Environment) -> Settings:
    defaults = Settings(database_url="", redis_url="", jwt_secrets=())
    return Settings(
        database_url=_database_url(env),
        redis_url=_redis_url(env),
        jwt_secrets=_jwt_secrets(env),
        port=env.number("PORT", int, defaults.port, least=0, most=65535),
        public_base_url=env.web_url("PUBLIC_BASE_URL"),
        wx_appid=env.text("WX_APPID"),
        wx_secret=_wechat_secret(env),
        wx_api_base=env.web_url("WX_API_BASE") or defaults.wx_api_base,
        wx_proxy=_wechat_proxy(env),
        wx_qr_pages=env.pages("WX_QR_PAGES") or defaults.wx_qr_pages,
        wx_console_page=next(iter(env.pages("WX_CONSOLE_PAGE", most=1)), ""),
        zego_app_id=env.number("ZEGO_APP_ID", int, 0, least=1, most=2**32 - 1),
        zego_server_secret=_zego_secret(env),
        zego_token_cipher=env.choice("ZEGO_TOKEN_CIPHER", ("gcm", "cbc")),
        open_api_keys=_api_keys(env),
        identity_proof=env.choice("IDENTITY_PROOF", ("first-use", "required")),
        signup=env.choice("SIGNUP", ("open", "invite")),
        room_capacity=env.limit("ROOM_CAPACITY", defaults.room_capacity),
        presence_grace=env.duration("PRESENCE_GRACE", defaults.presence_grace),
        host_absent_end=env.duration("HOST_ABSENT_END", 0.0),
        room_empty_end=env.duration("ROOM_EMPTY_END", 0.0),
        room_max_age=env.duration("ROOM_MAX_AGE", 0.0),
        unconnected_guest_end=env.duration("UNCONNECTED_GUEST_END", 0.0),
        unconnected_per_address=env.number("UNCONNECTED_PER_ADDRESS", int, 0, least=0),
        connections_per_address=env.number(
            "CONNECTIONS_PER_ADDRESS", int, defaults.connections_per_address, least=0
        ),
        events_keep_days=env.days("EVENTS_KEEP_DAYS", defaults.events_keep_days),
        participants_keep_days=env.days("PARTICIPANTS_KEEP_DAYS", 0.0),
        interviews_keep_days=env.days("INTERVIEWS_KEEP_DAYS", 0.0),
        webhook_keep_days=env.days("WEBHOOK_KEEP_DAYS", defaults.webhook_keep_days),
        webhook_allow_private=env.networks("WEBHOOK_ALLOW_PRIVATE"),
        live_buffer=env.limit("LIVE_BUFFER", defaults.live_buffer, least=4096),
        live_max_connections=env.limit("LIVE_MAX_CONNECTIONS", defaults.live_max_connections),
        drain_seconds=env.duration("DRAIN_SECONDS", defaults.drain_seconds),
        trusted_proxies=env.networks("TRUSTED_PROXIES"),
        metrics_allow=env.networks("METRICS_ALLOW"),
        allowed_origins=env.origins("ALLOWED_ORIGINS"),
        dev_hosts=env.host_names("DEV_HOSTS"),
        data_keys=env.keys("DATA_KEYS"),
        database_pooler=env.choice("DATABASE_POOLER", ("session", "transaction")),
        rate_limits=_rate_limits(env),
        log_format=env.choice("LOG_FORMAT", ("json", "text")),
        log_level=env.choice("LOG_LEVEL", ("info", "debug", "warning", "error")),
    )


def _database_url(env: Environment) -> str:
    if url := env.text("DATABASE_URL"):
        env.connection_url("DATABASE_URL", url, parse_postgres_url)
        return url
    host, name, user = given = [env.text(f"DB_{part}") for part in ("HOST", "NAME", "USER")]
    if not any(given):
        env.problems.append(
            "DATABASE_URL is missing (for example postgresql://user:password@host:5432/name;"
            " or DB_HOST, DB_NAME, DB_USER, DB_PASSWORD)"
        )
        return ""
    if not all(given):
        for part, example in (("HOST", "localhost"), ("NAME", "interview_db"), ("USER", "root")):
            env.required(f"DB_{part}", example)
        return ""
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"  # IPv6, as it stands where there is no port beside it
    port = env.number("DB_PORT", int, 5432, least=1, most=65535)
    login = quote(user, safe="") + ":" + quote(env.text("DB_PASSWORD"), safe="")
    url = f"postgresql://{login}@{quote(host, safe=':[]')}:{port}/{quote(name, safe='')}"
    env.connection_url("DB_HOST", url, parse_postgres_url)
    return url


def _redis_url(env: Environment) -> str:
    url = env.required("REDIS_URL", "redis://host:6379/0")
    env.connection_url("REDIS_URL", url, parse_redis_url)
    return url


def _jwt_secrets(env: Environment) -> tuple[str, ...]:
    given = env.required("JWT_SECRET", "64 random characters: openssl rand -hex 32")
    secrets = env.list("JWT_SECRET")
    if given and min((len(secret.encode()) for secret in secrets), default=0) < 32:
        env.problems.append("JWT_SECRET must have at least 32 bytes (each one, in a list)")
    return secrets


def _wechat_secret(env: Environment) -> str:
    secret = env.text("WX_SECRET")
    if bool(secret) != bool(env.text("WX_APPID")):
        env.problems.append("WX_APPID and WX_SECRET go together: one is missing")
    return secret


def _wechat_proxy(env: Environment) -> str:
    """Where WeChat is not called, a proxy that cannot be used is nobody's concern."""
    return env.proxy(env.text("WX_API_BASE") or WECHAT_HOST) if env.text("WX_APPID") else ""


def _zego_secret(env: Environment) -> str:
    """ZEGO's server secret is 32 ASCII characters used as the AES-256 key as they are."""
    secret, app_id = env.text("ZEGO_SERVER_SECRET"), env.text("ZEGO_APP_ID")
    if secret and len(secret.encode()) != 32:
        env.problems.append("ZEGO_SERVER_SECRET must have exactly 32 bytes")
    if bool(secret) != bool(app_id):
        env.problems.append("ZEGO_APP_ID and ZEGO_SERVER_SECRET go together: one is missing")
    return secret


def _api_keys(env: Environment) -> tuple[ApiKey, ...]:
    keys = [_api_key(env, place, entry) for place, entry in enumerate(env.list("OPEN_API_KEYS"), 1)]
    found = tuple(key for key in keys if key is not None)
    tenants: dict[str, set[str | None]] = {}
    for key in found:
        tenants.setdefault(key.name, set()).add(key.enterprise_id)
    for name, of in tenants.items():
        if len(of) > 1:
            env.problems.append(f"OPEN_API_KEYS: the name {name!r} is given to two tenants")
    if len({key.key for key in found}) < len(set(found)):
        env.problems.append("OPEN_API_KEYS: one key stands in two entries")
    return found


def _api_key(env: Environment, place: int, entry: str) -> ApiKey | None:
    """`name:key`, `name:key:ro` or `name:key:rw:<enterpriseId>`; None where it is refused.

    A message names the entry by its place alone: what stands first may be a key.
    """
    name, key, right, enterprise = ([part.strip() for part in entry.split(":", 3)] + [""] * 3)[:4]
    colons = entry.count(":")
    problem = ""
    if not name or not key:
        problem = "must be name:key, name:key:ro or name:key:rw:<enterpriseId>"
    elif right not in ("", "ro", "rw") or (colons > 1 and not right):
        problem = "has an unknown right: ro or rw"
    elif colons > 2 and not enterprise:
        problem = "has an empty enterprise: leave out the colon before it for all of them"
    elif len(key) < SHORTEST_API_KEY:
        problem = f"has a key of fewer than {SHORTEST_API_KEY} characters: openssl rand -hex 32"
    elif len(name) > LONGEST_KEY_NAME:
        problem = f"has a name of more than {LONGEST_KEY_NAME} characters"
    if problem:
        env.problems.append(f"OPEN_API_KEYS: entry {place} {problem}")
        return None
    return ApiKey(name, key, right != "ro", enterprise or None)


def _rate_limits(env: Environment) -> dict[str, str]:
    """`off`, or `name=count/period` pairs over the defaults; an empty rate is no limit."""
    limits = dict(DEFAULT_LIMITS)
    if env.text("RATE_LIMITS").lower() in ("off", "0"):
        return dict.fromkeys(limits, "")
    for pair in env.list("RATE_LIMITS"):
        name, _, rate = (part.strip().lower() for part in pair.partition("="))
        if name not in limits:
            env.problems.append(f"RATE_LIMITS: {name!r} is none of {', '.join(limits)}")
        elif rate in ("off", "0"):
            limits[name] = ""
        elif match := re.fullmatch(r"([0-9]{1,9})/(s|sec|second|m|min|minute|h|hour|d|day)", rate):
            period = {"s": "second", "m": "minute", "h": "hour", "d": "day"}[match[2][0]]
            limits[name] = f"{int(match[1])}/{period}" if int(match[1]) else ""
        else:
            env.problems.append(
                f"RATE_LIMITS: {pair!r} must look like {name}=60/minute or {name}=off"
            )
    return limits

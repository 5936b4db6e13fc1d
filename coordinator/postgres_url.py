"""`DATABASE_URL`, read as libpq reads it: where PostgreSQL is, and how to connect.

    postgresql://[user[:password]@][host[:port]][,…][/database][?option=value&…]

Options (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS) stand in
one of four groups: used, harmless where nobody reads them, refused because ignoring them would
weaken what they ask for, and unknown.
"""

from __future__ import annotations

import getpass
import os
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from coordinator.connection_url import ConnectionUrl, UrlError, port_number, split_url, unescape

CONNECT_SECONDS = 3.0
"""How long a host may take to let us in."""

NEXT_HOST_SECONDS = 2.0
"""The same where there are several: after that it is the next one's turn."""

_TLS = ("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation",
        "ssl_min_protocol_version", "ssl_max_protocol_version")  # fmt: skip
_USED = {
    *_TLS, "host", "hostaddr", "port", "dbname", "user", "password", "passfile", "connect_timeout",
    "target_session_attrs", "application_name", "fallback_application_name", "options",
    "channel_binding", "gssencmode", "krbsrvname", "ssl", "client_encoding", "require_auth",
    "sslcertmode",
}  # fmt: skip
_HARMLESS = {
    "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
    "load_balance_hosts", "sslcompression", "sslsni", "gsslib", "gssdelegation",
    "max_protocol_version",
}  # fmt: skip
_WEAKENING = {"sslcrldir", "requirepeer", "sslkeylogfile", "scram_client_key", "scram_server_key",
              "oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope",
              "min_protocol_version"}  # fmt: skip
_ELSEWHERE = {"service", "servicefile", "replication"}

_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "read-write", "primary"),
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "sslcertmode": ("disable", "allow"),
    "require_auth": ("",),
    "client_encoding": ("utf8", "UTF8", "auto", "UNICODE"),
    "ssl_min_protocol_version": ("TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSv1.2", "TLSv1.3"),
}
"""What can be given. `channel_binding=require` and the like are refused: the driver cannot do it,
and connecting without it is not what was asked for."""


@dataclass(frozen=True, slots=True)
class PostgresTarget:
    """Where PostgreSQL is.

    Attributes:
        hosts: in the order in which they are tried; a host that begins with `/` is the folder of a
            unix socket. Empty: the driver's default (the usual sockets, then localhost).
        database: None = the user's name.
        user: None = that of the process.
        connect_seconds: per host.
        session_attrs: what a server must be: `any`, `read-write` or `primary`.
        settings: of the session, such as `application_name`.
    """

    hosts: tuple[tuple[str, int], ...]
    database: str | None
    user: str | None
    password: str | None = field(repr=False)
    connect_seconds: float
    session_attrs: str
    settings: dict[str, str]
    more: dict[str, str] = field(repr=False)
    tls: dict[str, str] = field(repr=False)

    def attempts(self) -> list[dict[str, Any]]:
        """asyncpg's keyword arguments for each host, to be tried in this order."""
        dsn = "postgresql://?" + urlencode(self.tls) if self.tls else None
        login = {"user": self.user, "password": self.password, "database": self.database}
        common: dict[str, Any] = {
            name: value for name, value in (login | self.more).items() if value is not None
        }
        if dsn is not None:
            common["dsn"] = dsn
        if self.tls.get("sslrootcert") == "system":
            common |= {"dsn": None, "ssl": True}
        common |= {
            "timeout": self.connect_seconds,
            "target_session_attrs": self.session_attrs,
            "server_settings": dict(self.settings),
        }
        if not self.hosts:
            return [common]
        return [{**common, "host": host, "port": port} for host, port in self.hosts]

    @property
    def place(self) -> str:
        """The hosts in words, for messages: `db1:5432, db2:5432`."""
        return ", ".join(f"{host}:{port}" for host, port in self.hosts) or "the default socket"


def parse_postgres_url(url: str) -> PostgresTarget:
    """Reads a libpq URL.

    Raises:
        UrlError: it cannot be read, or an option is unknown or cannot be honoured.
    """
    parts = split_url(url)
    if parts.scheme not in ("postgres", "postgresql"):
        raise UrlError("it must start with postgresql://")
    options = parts.options
    _check_options(options)
    hosts = _hosts(parts)
    for_many = "read-write" if len(hosts) > 1 else "any"
    user = options.get("user") or parts.user
    if not user and not os.environ.get("PGUSER"):
        _require_a_name()
    return PostgresTarget(
        hosts=hosts,
        database=options.get("dbname") or unescape(parts.path) or None,
        user=user,
        password=options.get("password") or parts.password,
        connect_seconds=_connect_seconds(
            options.get("connect_timeout", ""),
            most=NEXT_HOST_SECONDS if len(hosts) > 1 else CONNECT_SECONDS,
        ),
        session_attrs=options.get("target_session_attrs") or for_many,
        settings=_session_settings(options),
        more={name: options[name] for name in ("passfile", "krbsrvname") if options.get(name)},
        tls=_tls(options),
    )


def _require_a_name() -> None:
    """The driver takes the name of the process's user; in a container its id may have none."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        raise UrlError("it names no user, and this process's user has no name") from None


def _check_options(options: dict[str, str]) -> None:
    for name, value in options.items():
        if name in _WEAKENING:
            raise UrlError(f"its option {name} cannot be honoured, and ignoring it is not safe")
        if name in _ELSEWHERE:
            raise UrlError(f"its option {name} is not served: name host, user and database in full")
        if name not in _USED and name not in _HARMLESS:
            raise UrlError(f"its option {name} is unknown")
        choices = _CHOICES.get(name)
        if choices is not None and value not in choices:
            can = " or ".join(choice for choice in choices if choice) or "left out"
            raise UrlError(f"its option {name} can only be {can} here")
    if options.get("ssl", "true") != "true":
        raise UrlError("its option ssl can only be true: write sslmode")


def _hosts(parts: ConnectionUrl) -> tuple[tuple[str, int], ...]:
    """Hosts and ports; those of the options win over those before the path, as in libpq."""
    names = [host for host, _ in parts.hosts]
    ports = [port or 5432 for _, port in parts.hosts]
    named = parts.options.get("hostaddr") or parts.options.get("host")
    if named and parts.options.get("sslmode") == "verify-full" and parts.options.get("hostaddr"):
        raise UrlError("its option hostaddr leaves sslmode=verify-full no name to verify")
    if named:
        names = named.split(",")
        ports = ports if len(ports) == len(names) else [5432] * len(names)
    if given := parts.options.get("port"):
        ports = [port_number(port) if port else 5432 for port in given.split(",")]
        ports = ports * len(names) if len(ports) == 1 else ports
        names = names or ["localhost"] * len(ports)
    if len(ports) != len(names):
        raise UrlError("it names another number of ports than of hosts")
    if len(names) > 1 and not all(names):
        raise UrlError("one of its hosts is empty")
    return tuple(zip(names, ports, strict=True)) if any(names) else ()


def _connect_seconds(text: str, *, most: float) -> float:
    """Less than `most` where that is asked for: requests do not wait longer for an answer."""
    if not re.fullmatch(r"-?[0-9]{1,9}|", text):
        raise UrlError("its option connect_timeout must be a whole number of seconds")
    seconds = int(text or "0")
    return min(float(seconds), most) if seconds > 0 else most


def _session_settings(options: dict[str, str]) -> dict[str, str]:
    name = options.get("application_name") or options.get("fallback_application_name")
    settings = {"application_name": name} if name else {}
    if options.get("options"):
        settings["options"] = options["options"]
    return settings


def _tls(options: dict[str, str]) -> dict[str, str]:
    tls = {name: options[name] for name in _TLS if options.get(name)}
    if options.get("ssl") == "true":
        tls.setdefault("sslmode", "require")
    if tls.get("sslrootcert") == "system" and tls.setdefault("sslmode", "verify-full") != (
        "verify-full"
    ):
        raise UrlError("its option sslrootcert=system needs sslmode=verify-full")
    if tls.get("sslnegotiation") == "direct" and tls.get("sslmode", "prefer") in (
        "disable", "allow", "prefer",
    ):  # fmt: skip
        raise UrlError("its option sslnegotiation=direct needs sslmode=require or more")
    return tls

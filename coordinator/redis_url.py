"""`REDIS_URL`: one server, a master behind Sentinel, or a cluster.

redis://[[user]:password@]host[:6379][/db]          rediss:// the same over TLS
unix://[[user]:password@]/path/of.sock[?db=0]
redis+sentinel://[[user]:password@]host[:26379],…/<master name>[/db]
redis+cluster://[[user]:password@]host[:6379],…      (rediss+… over TLS)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from coordinator.connection_url import ConnectionUrl, UrlError, split_url, unescape

Kind = Literal["single", "sentinel", "cluster"]

_KINDS: dict[str, tuple[Kind, bool]] = {
    "redis": ("single", False), "rediss": ("single", True), "unix": ("single", False),
    "redis+sentinel": ("sentinel", False), "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False), "rediss+cluster": ("cluster", True),
}  # fmt: skip
_TLS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_LOGIN = ("username", "password", "db")
_SENTINEL = ("sentinel_username", "sentinel_password")
_HARMLESS = {
    "protocol", "client_name", "socket_timeout", "socket_connect_timeout", "socket_keepalive",
    "socket_read_size", "health_check_interval", "max_connections", "retry_on_timeout", "timeout",
}  # fmt: skip
"""Options of redis-py that are the coordinator's own business: taken and not used."""


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """Where Redis is.

    Attributes:
        kind: what answers at the addresses: one server, sentinels, or nodes of a cluster.
        addresses: host and port of each; empty for a unix socket.
        path: of the unix socket, else "".
        username, password: of the servers that hold the data.
        master: the name under which the sentinels know it, else "".
        sentinel_username, sentinel_password: of the sentinels. Where both are None, they let
            anybody in, or take the login of the servers.
        tls: None = plain; else redis-py's `ssl_…` arguments, also for the sentinels.
    """

    kind: Kind
    addresses: tuple[tuple[str, int], ...]
    path: str = ""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    master: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def place(self) -> str:
        """The addresses in words, for messages."""
        return self.path or ", ".join(f"{host}:{port}" for host, port in self.addresses)


def parse_redis_url(url: str) -> RedisTarget:
    """Reads a URL of one of the forms above.

    Raises:
        UrlError: it cannot be read, or an option is unknown.
    """
    parts = split_url(url)
    if parts.scheme not in _KINDS:
        raise UrlError(
            "it must start with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
        )
    kind, is_tls = _KINDS[parts.scheme]
    _check_options(parts, kind, is_tls)
    options = parts.options
    master, db = _master_and_db(parts, kind)
    return RedisTarget(
        kind=kind,
        addresses=_addresses(parts, kind),
        path="/" + unescape(parts.path) if parts.scheme == "unix" else "",
        username=options.get("username") or parts.user,
        password=options.get("password") or parts.password,
        db=db,
        master=master,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        tls=_tls(options) if is_tls else None,
    )


def _check_options(parts: ConnectionUrl, kind: Kind, is_tls: bool) -> None:
    for name in parts.options:
        if name in _TLS and not is_tls:
            raise UrlError(f"its option {name} needs rediss:// (TLS)")
        if name in _SENTINEL and kind != "sentinel":
            raise UrlError(f"its option {name} needs redis+sentinel://")
        if name in ("ssl", "tls"):
            raise UrlError(f"its option {name} is unknown: for TLS write rediss://")
        if name not in (*_TLS, *_LOGIN, *_SENTINEL, *_HARMLESS):
            raise UrlError(f"its option {name} is unknown")


def _addresses(parts: ConnectionUrl, kind: Kind) -> tuple[tuple[str, int], ...]:
    if parts.scheme == "unix":
        if parts.hosts or not parts.path:
            raise UrlError("it must be unix:///path/of.sock")
        return ()
    if kind == "single" and len(parts.hosts) > 1:
        raise UrlError(
            "it names several hosts: redis+sentinel:// and redis+cluster:// are for them"
        )
    usual = 26379 if kind == "sentinel" else 6379
    hosts = parts.hosts or ((("localhost", None),) if kind == "single" else ())
    if not hosts or not all(host for host, _ in hosts):
        raise UrlError("a host is missing")
    return tuple((host, port or usual) for host, port in hosts)


def _master_and_db(parts: ConnectionUrl, kind: Kind) -> tuple[str, int]:
    if parts.scheme == "unix":
        return "", _db(parts.options.get("db", ""))
    names = [unescape(name) for name in parts.path.split("/")] if parts.path else []
    if names and not names[-1]:
        names.pop()  # a trailing slash
    master = ""
    if kind == "sentinel":
        if not names or not names[0]:
            raise UrlError("the master's name is missing: redis+sentinel://host:26379/<name>/<db>")
        master = names.pop(0)
    if len(names) > 1:
        raise UrlError("its path cannot be read")
    db = _db(parts.options.get("db") or (names[0] if names else ""))
    if kind == "cluster" and db:
        raise UrlError("a cluster has database 0 alone")
    return master, db


def _db(text: str) -> int:
    if text and not re.fullmatch(r"[0-9]{1,5}", text):
        raise UrlError("its database must be a number")
    return int(text or "0")


def _tls(options: dict[str, str]) -> dict[str, Any]:
    tls: dict[str, Any] = {name: options[name] for name in _TLS if options.get(name)}
    if tls.get("ssl_cert_reqs", "required") not in ("required", "optional", "none"):
        raise UrlError("its option ssl_cert_reqs must be required, optional or none")
    if check := tls.get("ssl_check_hostname"):
        if check.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise UrlError("its option ssl_check_hostname must be true or false")
        tls["ssl_check_hostname"] = check.lower() in ("true", "1", "yes")
    elif tls.get("ssl_cert_reqs") == "none":
        tls["ssl_check_hostname"] = False  # there is no certificate whose name could be compared
    return tls

"""What the URLs of PostgreSQL and Redis have in common: login, hosts, path and options.

    scheme://[user[:password]@]host[:port][,host[:port]…][/path][?name=value&…]

Stricter than `urllib.parse`, which reads `#`, `/` and `[` in a password as parts of the URL: they
are refused here, as RFC 3986 has it. No message shows a part that may be of a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from urllib.parse import unquote_to_bytes

_ESCAPES = "in a password write # as %23, / as %2F, ? as %3F, @ as %40, [ as %5B and % as %25"


class UrlError(ValueError):
    """A URL that cannot be used; the message says why and never shows a login."""


@dataclass(frozen=True, slots=True)
class ConnectionUrl:
    """The parts of a URL, unescaped.

    Attributes:
        hosts: name or address, and port (None where the URL names none); an IPv6 address without
            brackets.
        path: what follows the first `/` after the hosts, still escaped.
        options: the query's; of a name given twice the last counts.
    """

    scheme: str
    user: str | None
    password: str | None = field(repr=False)
    hosts: tuple[tuple[str, int | None], ...]
    path: str
    options: dict[str, str] = field(repr=False)


def split_url(url: str) -> ConnectionUrl:
    """Takes a URL apart.

    Raises:
        UrlError: it cannot be read.
    """
    if re.search(r"[\x00-\x20\x7f\ud800-\udfff]", url):
        raise UrlError(f"it holds a blank or a control character ({_ESCAPES})")
    if "#" in url:
        raise UrlError(f"it holds a # ({_ESCAPES})")
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    login, at, hostlist = authority.rpartition("@")
    if re.search(r"[@\[\]]", login) or (authority and "@" in path):
        raise UrlError(f"its login cannot be read ({_ESCAPES})")
    user, colon, password = login.partition(":")
    return ConnectionUrl(
        scheme=scheme.lower(),
        user=unescape(user) if at and user else None,
        password=unescape(password) if colon else None,
        hosts=_hosts(hostlist),
        path=path,
        options=_options(query),
    )


def unescape(text: str) -> str:
    """The text of a percent-encoded part.

    Raises:
        UrlError: a `%` is not followed by two hexadecimal digits, or the text is not UTF-8.
    """
    if re.search(r"%(?![0-9A-Fa-f]{2})|%00", text):
        raise UrlError(f"a % in it is not followed by two hexadecimal digits ({_ESCAPES})")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise UrlError("what is percent-encoded in it is not UTF-8") from None


def port_number(text: str) -> int:
    """A port from 1 to 65535.

    Raises:
        UrlError: it is none.
    """
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise UrlError(f"a port is not a number from 1 to 65535 ({_ESCAPES})")
    return int(text)


def _hosts(hostlist: str) -> tuple[tuple[str, int | None], ...]:
    if not hostlist:
        return ()
    return tuple(_host(part) for part in hostlist.split(","))


def _host(text: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(?:\[([^\[\]]*)\]|([^\[\]:]*))(?::(.*))?", text)
    if match is None:
        raise UrlError(f"a host cannot be read (IPv6 stands in brackets; {_ESCAPES})")
    ipv6, name, port = match.groups()
    if ipv6 is not None:
        try:
            name = str(IPv6Address(ipv6))
        except ValueError:
            raise UrlError("what stands in brackets is not an IPv6 address") from None
    return unescape(name), port_number(port) if port else None


def _options(query: str) -> dict[str, str]:
    options = {}
    for pair in query.split("&") if query else []:
        name, equals, value = pair.partition("=")
        if not name or not equals or "=" in value:
            raise UrlError("its options cannot be read: after the ? stand name=value, joined by &")
        options[unescape(name)] = unescape(value)
    return options

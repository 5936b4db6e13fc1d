"""Reads values of the environment one by one and remembers what is wrong with each.

Nothing here knows a setting by name: `settings.py` says what there is. No problem shows a value
that may hold a password.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # in no stub

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from coordinator.connection_url import UrlError

T = TypeVar("T")

NO_LIMIT = 2**53
"""More than there will ever be of anything."""

_PAGE = re.compile(r"[^/\s?#][^\s?#]*")
_HOST_NAME = re.compile(r"[^\s:/@?#\[\]]+|\[[0-9a-f:.]+\]")
_DEFAULT_PORTS = {"http": 80, "https": 443}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def read_dotenv(path: Path) -> tuple[dict[str, str], list[str]]:
    """The values of a `.env` file, and what is wrong with the file; neither where there is none."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return {}, []
    except UnicodeDecodeError:
        return {}, [_not_utf8(path)]
    except OSError as error:
        return {}, [f"{path.name} cannot be read: {error.strerror}"]
    if "\x00" in text:
        return {}, [_not_utf8(path)]
    wrong = [binding.original.line for binding in parse_stream(io.StringIO(text)) if binding.error]
    if wrong:
        lines = ", ".join(map(str, wrong))
        return {}, [f"{path.name} cannot be read at line {lines}: expected NAME=value"]
    # To the letter: `${…}` may be of a password, and neither systemd nor Node's dotenv fills it in.
    values = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name: value for name, value in values.items() if value is not None}, []


def _not_utf8(path: Path) -> str:
    return f"{path.name} is not UTF-8 text (is it UTF-16 or GBK?): save it as UTF-8"


def origin(url: str) -> str:
    """Scheme, host and port of a URL as a browser sends them: lower case, no default port.

    Raises:
        ValueError: it is no http(s) URL.
    """
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port
    if parts.scheme not in _DEFAULT_PORTS or not host or any(c.isspace() for c in url):
        raise ValueError("no http(s) URL")
    shown = f"[{host}]" if ":" in host else host
    suffix = "" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{shown}{suffix}"


def is_web_url(url: str) -> bool:
    """True for an http(s) URL to which paths can be added: no query, fragment or credentials."""
    try:
        origin(url)
    except ValueError:
        return False
    return not any(c in url for c in "?#@")


def _is_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_port = parts.port != 0
    except ValueError:
        return False
    is_known = parts.scheme in _DEFAULT_PORTS and bool(parts.hostname)
    return is_known and has_port and url.isascii() and url.isprintable() and " " not in url


class Environment:
    """The values by name. A blank one is not set.

    Attributes:
        problems: one sentence per missing or bad value, each starting with its name.

    Args:
        optional: names that may be missing, although they are `required` elsewhere.
    """

    def __init__(self, values: Mapping[str, str], *, optional: Collection[str] = ()) -> None:
        self._values = {name: value.strip() for name, value in values.items()}
        self._optional = optional
        self.problems: list[str] = []

    def text(self, name: str) -> str:
        value = self._values.get(name, "")
        if any("\ud800" <= c <= "\udfff" or c == "\x00" for c in value):
            self._once(f"{name} is not UTF-8 text")
            return ""
        return value

    def list(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.text(name).split(",") if part.strip())

    def pages(self, name: str, *, most: int = NO_LIMIT) -> tuple[str, ...]:
        """Pages of a mini-program, as WeChat takes them."""
        found = self.list(name)
        if len(found) > most or not all(map(_PAGE.fullmatch, found)):
            self.problems.append(
                f"{name} must look like pages/index/index: no / before it, no query after it"
            )
        return found

    def host_names(self, name: str) -> tuple[str, ...]:
        """Names as a request's `Host` has them, without its port, in lower case."""
        found = tuple(host.lower() for host in self.list(name))
        for host in found:
            if not _HOST_NAME.fullmatch(host):
                self.problems.append(
                    f"{name} must list host names, without scheme and port, not {host!r}"
                )
        return found

    def required(self, name: str, example: str) -> str:
        value = self.text(name)
        if not value and name not in self._optional:
            self._once(f"{name} is missing (for example {example})")
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """The first choice is the default."""
        value = self.text(name).lower() or choices[0]
        if value not in choices:
            self.problems.append(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        return value

    def number(
        self, name: str, kind: Callable[[str], T], default: T, *,
        least: int, most: int = NO_LIMIT, or_else: str = "",
    ) -> T:  # fmt: skip
        """What `kind` makes of a value; `or_else` says what it may be beside a number in range."""
        text = self.text(name)
        if not text:
            return default
        try:
            if not text.isascii() or "_" in text:  # Python's numbers, nobody else's
                raise ValueError
            value = kind(text)
            in_range = least <= value <= most  # type: ignore[operator]  # kind is int or float
        except ValueError:
            in_range = False
        if not in_range:
            value = default
            span = f"of at least {least}" if most == NO_LIMIT else f"from {least} to {most}"
            self.problems.append(f"{name} must be a number {span}{or_else}, not {text!r}")
        return value

    def limit(self, name: str, default: int, *, least: int = 1) -> int:
        """A whole number of at least `least`; 0 = off: `NO_LIMIT`."""
        if self.text(name) == "0":
            return NO_LIMIT
        return self.number(name, int, default, least=least, or_else=" (0: no limit)")

    def duration(self, name: str, default: float) -> float:
        """Seconds; 0 = off."""
        return self.number(name, float, default, least=0, most=10 * 366 * 86400)

    def days(self, name: str, default: float) -> float:
        """Days; 0 = off. More than Postgres can count back would end each look at what is old."""
        return self.number(name, float, default, least=0, most=1_000_000)

    def web_url(self, name: str) -> str:
        """An http(s) URL without a trailing slash, to which paths are added, or ""."""
        value = self.text(name).rstrip("/")
        if not value:
            return ""
        if not is_web_url(value):
            self.problems.append(
                f"{name} must be an http(s) URL (https://host or https://host:port)"
            )
        return value

    def proxy(self, url: str) -> str:
        """Through which proxy a URL is to be called, or "": `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`
        and the like, as everybody else reads them.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        unproxied = self._either_case("no_proxy")[1]
        if host in LOOPBACK or proxy_bypass_environment(host, {"no": unproxied}):
            return ""
        for kind in (parts.scheme, "all"):
            name, proxy = self._either_case(f"{kind}_proxy")
            if proxy:
                proxy = proxy if "://" in proxy else f"http://{proxy}"
                if not _is_proxy(proxy):
                    self.problems.append(
                        f"{name} must be http://host:port, since {host} is called through it"
                        f" (or name {host} in NO_PROXY)"
                    )
                return proxy
        return ""

    def _either_case(self, name: str) -> tuple[str, str]:
        """The name that is set, and its value; the lower-case one wins."""
        small = self.text(name)
        return (name, small) if small else (name.upper(), self.text(name.upper()))

    def origins(self, name: str) -> tuple[str, ...]:
        """Origins as browsers send them; `*` is any."""
        found = []
        for place, text in enumerate(self.list(name), 1):
            try:
                path = text if text == "*" else urlsplit(text).path
                found.append(text if text == "*" else origin(text))
            except ValueError:
                path = "?"
            if path not in ("", "/", "*"):
                self.problems.append(f"{name}: entry {place} must look like https://host[:port]")
        return tuple(found)

    def connection_url(self, name: str, text: str, read: Callable[[str], T]) -> T | None:
        """What `read` makes of a URL; None where that is missing or cannot be read."""
        if not text:
            return None
        try:
            return read(text)
        except UrlError as error:
            self.problems.append(f"{name} cannot be used: {error}")
            return None

    def networks(self, name: str) -> tuple[IPv4Network | IPv6Network, ...]:
        networks = []
        for text in self.list(name):
            try:
                networks.append(ip_network(text, strict=False))
            except ValueError:
                self.problems.append(f"{name} must list addresses or networks, not {text!r}")
        return tuple(networks)

    def keys(self, name: str) -> tuple[bytes, ...]:
        """AES-256 keys in base64, the standard alphabet or the URL-safe one."""
        keys = []
        for place, text in enumerate(self.list(name), 1):
            try:
                key = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
            except binascii.Error:
                key = b""
            if len(key) != 32:
                self.problems.append(
                    f"{name}: key {place} must be 32 bytes in base64: openssl rand -base64 32"
                )
            keys.append(key)
        return tuple(keys)

    def _once(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

"""Which addresses a webhook may call: none of ours.

Otherwise anybody who may add a webhook could make this server call what only this server reaches:
metadata services, databases, admin pages. So the name is resolved anew for each connection, every
address is looked at, and the connection goes to the very address that was found good: a name that
changes its address in between (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

NAME_SECONDS = 5.0
"""How long name servers have to answer. The system asks them for up to half a minute."""

_NAT64 = ip_network("64:ff9b::/96")
_COMPATIBLE = ip_network("::/96")
_NOT_PUBLIC = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))
"""Set apart by IANA, among them a cloud's metadata service; not every Python that we run on knows
that."""


class AddressRefused(Exception):
    """The name leads to an address that may not be called."""


class BadUrl(Exception):
    """A URL that no webhook can have; the message says why."""


def split_url(url: str) -> SplitResult:
    """The parts of a webhook's URL.

    Raises:
        BadUrl: not http(s), no host, a fragment, credentials, or characters that no URL has.
    """
    if not url.isascii() or not url.isprintable() or any(c in url for c in ' "<>\\^`{|}'):
        raise BadUrl("the URL holds characters that must be percent-encoded")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadUrl("the URL cannot be read") from error
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise BadUrl("the URL must start with https://")
    if parts.username is not None or parts.password is not None or "#" in url:
        raise BadUrl("the URL must hold neither credentials nor a fragment")
    if port == 0:
        raise BadUrl("the URL cannot be read")
    return parts


class AddressGuard:
    """Resolves names, and refuses addresses that are not public.

    Args:
        allowed: private networks that may be called all the same.
    """

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = allowed

    async def resolve(self, scheme: str, host: str, port: int) -> list[str]:
        """The addresses to connect to.

        Raises:
            AddressRefused: one of them is not public, and not allowed; or the scheme is http and
                one is not this machine.
            OSError: the name cannot be resolved.
        """
        addresses = await _lookup(host, port)
        for address in addresses:
            self.check(scheme, address)
        return [str(address) for address in addresses]

    def check(self, scheme: str, address: Address) -> None:
        """Refuses an address that may not be called.

        Raises:
            AddressRefused
        """
        real = _embedded(address)
        is_allowed = any(
            real in network for network in self._allowed if network.version == real.version
        )
        if scheme != "https" and not (real.is_loopback and is_allowed):
            raise AddressRefused("http is for loopback in development: use https")
        if not is_allowed and not _is_public(real):
            raise AddressRefused(f"{address} is not a public address")


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address.is_site_local:
        return False
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, IPv4Address):
        return address
    for inner in (address.ipv4_mapped, address.sixtofour, (address.teredo or (None, None))[1]):
        if inner is not None:
            return inner
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 0xFFFF):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


async def _lookup(host: str, port: int) -> list[Address]:
    """All addresses of a name.

    In a thread of its own: a name server that does not answer must not hold up the threads that
    resolve for everybody else, nor the end of the process.
    """
    try:
        return [ip_address(host)]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Address]] = loop.create_future()

    def settle(addresses: list[Address], error: BaseException | None) -> None:
        if found.done():
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(addresses)

    def resolve() -> None:
        addresses: list[Address] = []
        failure: BaseException | None = None
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = [ip_address(str(info[4][0]).partition("%")[0]) for info in infos]
        except (OSError, UnicodeError, ValueError) as error:
            failure = error if isinstance(error, OSError) else OSError(str(error))
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, addresses, failure)

    threading.Thread(target=resolve, name="webhook-dns", daemon=True).start()
    try:
        async with asyncio.timeout(NAME_SECONDS):
            return await found
    except TimeoutError as error:
        raise OSError(f"no name server answered within {NAME_SECONDS:g} s") from error

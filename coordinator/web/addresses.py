"""Who is calling: the address behind proxies, and what a limit counts it as."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


def client_address(peer: str, forwarded: Iterable[str], trusted: Sequence[Network]) -> str:
    """Who is calling: the peer, or where that is a trusted proxy, the last hop that is none.

    Args:
        peer: the address of the TCP connection.
        forwarded: the values of all `X-Forwarded-For` headers, in order.
        trusted: networks whose `X-Forwarded-For` is believed; nobody else's is.
    """
    if not is_within(peer, trusted):
        return _plain(peer)
    hops = [hop.strip() for value in forwarded for hop in value.split(",") if hop.strip()]
    client = _plain(peer)
    for hop in reversed(hops):
        address = _hop(hop)
        if address is None:
            break  # what a client wrote itself: the last good hop counts
        client = str(address)
        if not is_within(client, trusted):
            break
    return client


def is_within(address: str, networks: Sequence[Network]) -> bool:
    """True where the address, or the IPv4 one that it maps, lies in one of the networks."""
    parsed = _address(address)
    return parsed is not None and any(parsed in _unmapped(network) for network in networks)


def is_loopback(address: str) -> bool:
    """True for this machine's own addresses; for what is no address (a unix socket) too."""
    parsed = _address(address)
    return parsed is None or parsed.is_loopback


def counted_as(who: str) -> str:
    """An IPv6 client owns a /64 and counts as that; anything else counts as itself."""
    if ":" not in who:
        return who
    address = _address(who)
    if not isinstance(address, IPv6Address):
        return who if address is None else str(address)
    return str(IPv6Address(int(address) >> 64 << 64)) + "/64"


def _hop(text: str) -> IPv4Address | IPv6Address | None:
    """A hop of `X-Forwarded-For`, also with a port: `203.0.113.1:4711`, `[2001:db8::1]:443`."""
    if text.startswith("["):
        host, closed, port = text[1:].partition("]")
        is_good = closed and (not port or (port[0] == ":" and port[1:].isdigit()))
        return _address(host) if is_good else None
    host, colon, port = text.partition(":")
    if colon and port.isdigit() and (address := _address(host)) is not None:
        return address
    return _address(text)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address; an IPv4 one mapped into IPv6 (`::ffff:203.0.113.1`) is the IPv4 one."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache
def _unmapped(network: Network) -> Network:
    """A network of mapped addresses (`::ffff:10.0.0.0/104`) is the IPv4 one."""
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    return IPv4Network((mapped, network.prefixlen - 96))


def _plain(peer: str) -> str:
    address = _address(peer) if ":" in peer else None
    return peer if address is None else str(address)

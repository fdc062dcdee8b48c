"""The client's address of a request that passed proxies, and which addresses count as one for limits.

A forwarding header counts only if the peer that sent it is a trusted proxy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_HOP = 100

# [v6]:port, [v6], v4:port; a bare v6 or v4 is what is left.
_BRACKETED = re.compile(r"\[([^\[\]]+)\](?::[0-9]{1,5})?")
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}")


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """The right-most hop that is not a trusted proxy; the left-most if all are.

    `peer` is the other end of the connection, `forwarded_for` all X-Forwarded-For headers in order. Hops left of one
    that is not an address are ignored. A peer without an address (a Unix socket) is returned as it is.
    """
    client = _address(peer)
    if client is None:
        return peer
    hops = ",".join(forwarded_for).split(",") if forwarded_for else []
    for hop in reversed(hops):
        if not _is_in(client, trusted):
            break
        before = _address(hop)
        if before is None:
            break
        client = before
    return str(client)


def is_trusted(peer: str, trusted: Sequence[Network]) -> bool:
    """Whether the other end of the connection is a trusted proxy."""
    address = _address(peer)
    return address is not None and _is_in(address, trusted)


@lru_cache(maxsize=4096)
def limit_key(address: str) -> str:
    """The key under which limits count an address: IPv4 the address, IPv6 its /64, which one home has for itself."""
    parsed = _address(address)
    if parsed is None:
        return address
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    return str(IPv6Network((parsed, 64), strict=False))


def parse_networks(items: Sequence[str]) -> tuple[Network, ...]:
    """From the entries of PAIRING_TRUSTED_PROXIES: addresses or CIDR. Raises ValueError naming the entry."""
    return tuple(_network(item.strip()) for item in items)


def is_loopback(host: str) -> bool:
    """Whether no other machine can reach that address or host name."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_unspecified(host: str) -> bool:
    """Whether this is no address of a machine but all of its own, as 0.0.0.0 is."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _network(item: str) -> Network:
    try:
        network = ip_network(item, strict=False)
    except ValueError:
        raise ValueError(f"{item!r} is not an address or a network such as 10.0.0.0/8") from None
    if "/" in item and ip_address(item.partition("/")[0]) != network.network_address:
        raise ValueError(f"{item!r} has bits set after its prefix; write {network} if that is meant")
    if network.prefixlen == 0:
        raise ValueError(f"{item!r} would let every client choose its own address")
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        # Mapped addresses are compared as IPv4, so their network must be IPv4 too.
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return _network(f"{mapped}/{network.prefixlen - 96}")
    return network


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _address(text: str) -> Address | None:
    text = text.strip(" \t")
    return None if len(text) > MAX_HOP or not text.isascii() else _parsed(text)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Address | None:
    if found := _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text):
        text = found[1]
    # A zone id (fe80::1%eth0) is valid only on the machine that wrote it.
    host, percent, _ = text.partition("%")
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return None if percent else address
    return address.ipv4_mapped or address

"""The rule that tells public IP addresses from others, applied to every request made on behalf of a client.

The ranges are written out, from the IANA special-purpose address registries (RFC 6890, RFC 8190), because
``ipaddress.is_global`` gives different results in different releases of Python.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

SPECIAL_NETWORKS: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network; 0.0.0.0 reaches the machine itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; holds one cloud's metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # another cloud's metadata service, on an address that looks public
        "169.254.0.0/16",  # link-local; 169.254.169.254 is the metadata service of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; holds a metadata service
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # protocol assignments (the addresses in Teredo are extracted before)
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)

GLOBAL_UNICAST = IPv6Network("2000::/3")
"""The assigned part of IPv6; loopback, unique local, link-local, site-local and multicast lie outside it."""

NAT64 = IPv6Network("64:ff9b::/96")
"""The well-known prefix under which an IPv6-only network reaches IPv4 hosts (RFC 6052)."""


def embedded_addresses(address: Address) -> tuple[Address, ...]:
    """Return the addresses that a packet to this one may end up at: those embedded in it, or itself.

    Covers IPv4-mapped (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056) and Teredo (RFC 4380: server and client).
    """
    if isinstance(address, IPv4Address):
        return (address,)
    if address.teredo is not None:
        return address.teredo
    if address in NAT64:
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    return (address.ipv4_mapped or address.sixtofour or address,)


def is_public(address: Address) -> bool:
    """Return whether every host that this address stands for is on the public internet."""
    return all(_is_public(inner) for inner in embedded_addresses(address))


def within(address: Address, networks: Iterable[Network]) -> bool:
    """Return whether the address, or every host that it stands for, lies in one of the networks."""
    known = tuple(networks)
    return _within(address, known) or all(_within(inner, known) for inner in embedded_addresses(address))


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    return not _within(address, SPECIAL_NETWORKS)

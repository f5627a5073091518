from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.links.public_addresses import SPECIAL_NETWORKS, embedded_addresses, is_public, within

PUBLIC = [
    "1.1.1.1",
    "93.184.216.34",
    "172.15.255.255",
    "172.32.0.0",
    "100.63.255.255",
    "223.255.255.255",
    "2606:2800:220:1:248:1893:25c8:1946",
    "64:ff9b::5db8:d822",  # what DNS64 makes of a public IPv4 address
    "::ffff:93.184.216.34",
]

PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001:db8::1",
    "2001:10::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("text", PUBLIC)
def test_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", PRIVATE)
def test_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


def test_teredo_stands_for_its_server_and_its_client() -> None:
    address = IPv6Address("2001:0:4136:e378:8000:63bf:80ff:fffe")  # client 127.0.0.1, each bit turned

    assert embedded_addresses(address) == (IPv4Address("65.54.227.120"), IPv4Address("127.0.0.1"))
    assert not is_public(address)


embeddings = st.sampled_from(
    [
        lambda v4: IPv6Address(0xFFFF_0000_0000 | int(v4)),
        lambda v4: IPv6Address(int(IPv6Address("64:ff9b::")) | int(v4)),
        lambda v4: IPv6Address(int(IPv6Address("2002::")) | int(v4) << 80),
    ]
)


@given(st.ip_addresses(v=4), embeddings)
def test_an_embedded_address_is_judged_as_itself(v4: IPv4Address, embed: Callable[[IPv4Address], IPv6Address]) -> None:
    assert embedded_addresses(embed(v4)) == (v4,)
    assert is_public(embed(v4)) is is_public(v4)


@given(
    st.sampled_from([network for network in SPECIAL_NETWORKS if network.version == 4]).flatmap(
        lambda network: st.integers(int(network.network_address), int(network.broadcast_address))
    )
)
def test_no_address_of_a_special_network_is_public(number: int) -> None:
    assert not is_public(IPv4Address(number))


@given(st.ip_addresses())
def test_what_python_knows_to_be_private_is_not_public(address: IPv4Address | IPv6Address) -> None:
    if len(embedded_addresses(address)) == 1 and embedded_addresses(address)[0] == address and address.is_private:
        assert not is_public(address)


def test_within_looks_into_embedded_addresses_too() -> None:
    networks = (ip_network("10.0.0.0/8"),)

    assert within(ip_address("10.1.2.3"), networks)
    assert within(ip_address("::ffff:10.1.2.3"), networks)
    assert not within(ip_address("11.1.2.3"), networks)
    assert not within(ip_address("2001:0:0a00:1::f5ff:fffe"), networks) or embedded_addresses(
        ip_address("2001:0:0a00:1::f5ff:fffe")
    ) == (ip_address("10.0.0.1"), ip_address("10.0.0.1"))


def test_within_takes_the_outer_address_at_its_word() -> None:
    assert within(ip_address("64:ff9b::7f00:1"), [ip_network("64:ff9b::/96")])

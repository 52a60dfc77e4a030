"""Addresses and networks in one spelling."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.networks import (
    NetworkTable,
    address_of,
    block_of,
    is_loopback,
    network_of,
    within,
)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("192.0.2.7:80", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[::ffff:192.0.2.7]:80", "192.0.2.7"),
        ("[fe80::1%eth0]:80", "fe80::1"),
        ("unix:/run/x", None),
        ("?", None),
        ("", None),
        ("[]:80", None),
        ("host.example:80", None),
    ],
)
def test_n33_the_address_of_a_peer(peer: str, address: str | None) -> None:
    """One spelling, whatever way it is written; None for what is none."""
    found = address_of(peer)
    assert (found and str(found)) == address


@given(st.ip_addresses())
def test_n33_an_address_and_its_mapped_form_are_one(address: ipaddress.IPv4Address) -> None:
    """An IPv4 client that comes in through an IPv6 socket is the same client."""
    if address.version == 4:
        assert address_of(f"[::ffff:{address}]:5") == address_of(f"{address}:5") == address
        assert network_of(f"::ffff:{address}/128") == network_of(str(address))
    plain = address_of(f"[{address}]:1")
    assert plain is not None
    assert within(plain, [block_of(plain)])


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::/0", "::/0"),
    ],
)
def test_networks(text: str, network: str) -> None:
    """As they are written, IPv4 in IPv6 as IPv4."""
    assert str(network_of(text)) == network


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "300.0.0.1", "host", "10.0.0.0/33", "2001:db8::1/32"])
def test_what_is_no_network(text: str) -> None:
    """It is named, and so is what is wanted."""
    with pytest.raises(ValueError, match="an address or a network such as"):
        network_of(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *(
            (host, True)
            for host in ("127.1.2.3", "::1", "::ffff:127.0.0.1", "localhost", "LocalHost.", "::1%lo")
        ),
        *((host, False) for host in ("::", "0.0.0.0", "::ffff:10.0.0.1", "127.evil.example", "unix:/x", "")),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    """IPv4 in IPv6 too; a name that looks like an address is none."""
    assert is_loopback(host) is loopback


def test_nobody_is_nowhere() -> None:
    """A peer without an address is in no network; IPv4 is not in IPv6."""
    assert not within(None, [network_of("::/0"), network_of("0.0.0.0/0")])
    assert not within(address_of("10.0.0.1"), [network_of("::/0")])


def test_blocks() -> None:
    """An IPv4 address by itself, an IPv6 address with its /64."""
    assert str(block_of(ipaddress.ip_address("192.0.2.7"))) == "192.0.2.7/32"
    assert str(block_of(ipaddress.ip_address("2001:db8:1:2:3::4"))) == "2001:db8:1:2::/64"


def test_the_smallest_network_has_an_address() -> None:
    """Whatever the order; IPv4 in IPv6 is IPv4, and none is none."""
    networks = ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "2001:db8::/32", "2001:db8::7")
    table = NetworkTable((network_of(each), each) for each in networks)
    wanted = {
        "10.1.2.3:5": "10.1.2.3",
        "[::ffff:10.1.2.3]:5": "10.1.2.3",
        "10.1.2.4": "10.1.0.0/16",
        "10.2.0.0": "10.0.0.0/8",
        "[2001:db8::7]:80": "2001:db8::7",
        "2001:db8:1::": "2001:db8::/32",
        "11.0.0.1": None,
        "2001:db9::": None,
        "?": None,
    }
    assert {peer: table.at(address_of(peer)) for peer in wanted} == wanted
    assert table and not NetworkTable()

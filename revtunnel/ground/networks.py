"""Addresses and networks in one spelling: IPv4 in IPv6 is IPv4, zones are dropped.

Source: faults.md N33 and "Pre-auth limits"; ours.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Generic, TypeVar

__all__ = [
    "Address",
    "Network",
    "NetworkTable",
    "address_of",
    "block_of",
    "is_loopback",
    "is_nobodys",
    "led_to",
    "network_of",
    "within",
]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

Value = TypeVar("Value")
# of clouds, beyond 169.254/16
METADATA = frozenset(("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # leads to the IPv4 address in its last 32 bits
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_SITE = 64  # bits of an IPv6 address that one customer has for himself


def address_of(peer: str) -> Address | None:
    """The address of ``HOST:PORT`` or ``HOST``, IPv6 with or without brackets; None where there is none."""
    host = peer
    if peer.startswith("["):
        host = peer[1:].partition("]")[0]
    elif peer.count(":") == 1:
        host = peer.partition(":")[0]
    return _address(host.partition("%")[0])


@lru_cache(1024)
def _address(host: str) -> Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, is this machine; a name is judged as it is written."""
    address = address_of(host)
    return address.is_loopback if address else host.lower().rstrip(".") == "localhost"


def led_to(host: str) -> Address:
    """Where an address leads, with or without a zone: to the IPv4 address that IPv6 carries, or itself."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None
        return address.ipv4_mapped or address.sixtofour or carried or address
    return address


def is_nobodys(address: Address) -> bool:
    """Whether no service is meant by it: its link and what clouds answer there, groups, no address at all."""
    unfit = address.is_link_local or address.is_multicast or address.is_unspecified
    return unfit or str(address) in METADATA


def network_of(text: str, strict: bool = True) -> Network:
    """Read ``10.0.0.0/8``, ``192.0.2.7``, ``2001:db8::/32``.

    Raises:
        ValueError: neither an address nor a network, or, if ``strict``, bits behind its length are set.
    """
    try:
        network = ipaddress.ip_network(text, strict)
    except ValueError as error:
        wanted = "an address or a network such as 10.0.0.0/8 wanted"
        raise ValueError(f"{text[:80]!a}: {wanted}, {error}") from None
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        plain = network.network_address.ipv4_mapped
        return ipaddress.IPv4Network(f"{plain}/{network.prefixlen - 96}")
    return network


def within(address: Address | None, networks: Iterable[Network]) -> bool:
    """Whether one of the networks has this address."""
    return address is not None and any(address in network for network in networks)


def block_of(address: Address) -> Network:
    """What one customer has: the IPv4 address, or the /64 around an IPv6 address."""
    return _around(address, 32 if isinstance(address, ipaddress.IPv4Address) else _SITE)


def _around(address: Address, length: int) -> Network:
    """The network of so many bits that an address is in."""
    rest = address.max_prefixlen - length
    first = int(address) >> rest << rest
    if isinstance(address, ipaddress.IPv4Address):
        return ipaddress.IPv4Network((first, length))
    return ipaddress.IPv6Network((first, length))


class NetworkTable(Generic[Value]):
    """Values by network; an address has that of the smallest network it is in. A look costs no walk."""

    def __init__(self, entries: Iterable[tuple[Network, Value]] = ()) -> None:
        self._entries = dict(entries)
        self._lengths = sorted({(each.prefixlen, each.version) for each in self._entries}, reverse=True)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def at(self, address: Address | None) -> Value | None:
        """The value of an address; None: no network has it."""
        if address is None:
            return None
        around = (_around(address, bits) for bits, version in self._lengths if version == address.version)
        return next((self._entries[each] for each in around if each in self._entries), None)

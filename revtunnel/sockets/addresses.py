"""Socket addresses and Twisted's address objects: each made of the other, without asking anybody for names.

Source: Twisted's ``IAddress``; RFC 4007 for the zone of a link-local address (``fe80::1%eth0``).
"""

import contextlib
import os
import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from revtunnel.ground.targets import place

__all__ = ["UNIX", "address_of", "socket_address", "written_address"]

UNIX = "unix:"  # before the path of a UNIX socket, which has no port


def socket_address(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """The family and address that a socket wants, for a literal or ``unix:PATH``; "" is every IPv4 address.

    Raises:
        OSError: its zone is no interface here.
    """
    if host.startswith(UNIX):
        return socket.AF_UNIX, host.removeprefix(UNIX)
    if ":" not in host:
        return socket.AF_INET, (host, port)
    literal, _, zone = host.partition("%")
    scope = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone) if zone else 0
    return socket.AF_INET6, (literal, port, 0, scope)


def written_address(address: Any) -> str:
    """``host:port`` of a Twisted address, or what it is otherwise."""
    host = getattr(address, "host", None)
    if host is None:
        return f"unix:{os.fsdecode(getattr(address, 'name', None) or '')}"
    return place(host, address.port)


def address_of(family: int, address: Any) -> Any:
    """Twisted's address object of what ``getpeername``, ``getsockname`` or ``accept`` said."""
    if family == socket.AF_UNIX:
        return UNIXAddress(address or None)
    if family == socket.AF_INET6:
        host, port, flow, scope = address
        if scope:
            with contextlib.suppress(OSError):
                host = f"{host.partition('%')[0]}%{socket.if_indextoname(scope)}"
        return IPv6Address("TCP", host, port, flow, scope)
    return IPv4Address("TCP", *address)

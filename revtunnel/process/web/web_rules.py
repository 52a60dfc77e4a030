"""What holds at one web listener: its names, whose pages may ask, whom a balancer speaks for, what is there.

Source: RFC 9112 section 3.2; issue "Web listener"; ours.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from revtunnel.ground.networks import Network, address_of, within
from revtunnel.ground.targets import is_literal, place
from revtunnel.sockets.tls.peer_verification import Identity

__all__ = ["API", "DEVICE_METRICS", "METRICS", "OPEN_METRICS", "PAGE", "PagePlaces", "WebRules", "is_ours"]

API, PAGE = "api", "page"
METRICS, OPEN_METRICS, DEVICE_METRICS = "metrics", "open-metrics", "device-metrics"
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?", re.ASCII)


def is_ours(host: str, names: Collection[str]) -> bool:
    """Whether a Host header is an address, localhost or one of ``names``, with or without a port."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match[1].strip("[]").lower().rstrip(".")
    return name == "localhost" or name in names or is_literal(name)  # whoever rebinds a name has a name


class PagePlaces(NamedTuple):
    """Where the web pages of devices are: below a name, or at ports of a host."""

    names: str = ""  # such as pages.example; "": not by name
    host: str = ""
    ports: tuple[int, int] = (0, 0)
    addresses: tuple[str, ...] = ()  # of the listener


@dataclass(frozen=True, slots=True)
class WebRules:
    """What holds at one listener; may be replaced for later connections."""

    name: str
    hosts: frozenset[str] = frozenset()  # names that a Host header may have, beside addresses and localhost
    origins: frozenset[str] = frozenset()  # of pages that may ask, beside our own
    identity: Identity | None = None  # None: plain
    forwarded_from: tuple[Network, ...] = ()  # balancers whose X-Forwarded-For counts
    parts: frozenset[str] = frozenset()  # of the words above: what is there beside WebSockets
    plain_cookies: bool = False  # browsers without TLS, on loopback
    pages: PagePlaces | None = None  # of devices

    def is_ours(self, host: str) -> bool:
        """Whether a Host header names us."""
        return is_ours(host, self.hosts)

    def is_our_page(self, origin: str, host: str) -> bool:
        """Whether a page is one of those named, or has come from this very place."""
        schemes = ("https",) if self.identity is not None else ("https", "http")  # a balancer may end the TLS
        own = {f"{scheme}://{host.lower()}" for scheme in schemes}
        return origin.lower() in self.origins or origin.lower() in own

    def is_balancer(self, peer: str) -> bool:
        """Whether ``HOST:PORT`` may say whom it speaks for."""
        return within(address_of(peer), self.forwarded_from)

    def client_of(self, peer: str, said: list[str]) -> str:
        """Whom a connection is for: the last in X-Forwarded-For that is no balancer, if one says so."""
        client = peer
        for each in reversed(",".join(said).split(",")):
            address = address_of(each.strip())
            if address is None or not self.is_balancer(client):
                break
            client = place(str(address), 0)
        return client

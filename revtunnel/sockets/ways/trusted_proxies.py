"""Who may say, in a PROXY header, whom a connection is for: the load balancers before a server.

The rule: on a listener or pool with such rules a connection of a sender that is named begins with a header,
and one of anybody else is refused. Whether a header is there is never guessed, or a client could name itself.

Source: the public specification of the PROXY protocol, its section on who is trusted; ours.
"""

from dataclasses import dataclass

from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import networks, word
from revtunnel.ground.networks import Network, address_of, within
from revtunnel.sockets.ways.proxy_header import VERSIONS, ProxyHeader, decode_header

__all__ = ["HeaderRules", "Network", "SenderSettings", "header_rules"]


# fmt: off
@dataclass(frozen=True, kw_only=True)
class SenderSettings:
    """Part of a listener's and of a pool's settings."""

    proxy_protocol: str = setting(word("no", "v1", "v2", "any"), "no", "a load balancer says in a PROXY "
        "header whom each connection is for; of which version", live=True)
    proxy_from: tuple[Network, ...] = setting(networks(256), "", "the load balancer's addresses, such as "
        "10.0.0.7, fd00::/64: who sends the header, and who else is refused", live=True)
# fmt: on


@dataclass(frozen=True, slots=True)
class HeaderRules:
    """What one listener or pool asks of its connections."""

    versions: frozenset[int]
    senders: tuple[Network, ...]
    limit: int  # bytes of a v2 header
    wait: float  # seconds from accept to the header's end, absolute

    def trusts(self, peer: str) -> bool:
        """Whether ``host:port`` is a sender's."""
        return within(address_of(peer), self.senders)

    def decode(self, data: bytes) -> ProxyHeader | None:
        """As ``decode_header`` of proxy_header.py, within these rules."""
        return decode_header(data, self.versions, self.limit)


def header_rules(protocol: str, senders: tuple[Network, ...], limit: int, wait: float) -> HeaderRules | None:
    """The rules that settings make; ``protocol`` is no, v1, v2 or any. None: nobody sends headers."""
    return None if protocol == "no" else HeaderRules(VERSIONS[protocol], senders, limit, wait)

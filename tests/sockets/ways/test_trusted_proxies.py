"""Who may send PROXY headers, and which."""

import ipaddress

import pytest

from revtunnel.ground.errors import RemoteError
from revtunnel.sockets.ways.proxy_header import encode_header_v1, encode_header_v2
from revtunnel.sockets.ways.trusted_proxies import HeaderRules, header_rules

NETWORKS = tuple(map(ipaddress.ip_network, ("10.0.0.0/24", "192.0.2.7/32", "fd00::/64", "fe80::/10")))


def rules(protocol: str = "any") -> HeaderRules:
    """With all four networks."""
    found = header_rules(protocol, NETWORKS, 100, 5.0)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("10.0.0.1", True),
        ("10.0.1.1", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:10.0.1.1", False),
        ("fd00::9", True),
        ("fd00:0:0:1::9", False),
        ("fe80::1%eth0", True),
        ("", False),
        ("unix:/x", False),
    ],
)
def test_only_those_that_are_named_may_send_headers(host: str, trusted: bool) -> None:
    """By address, IPv4 in IPv6 as IPv4, a zone left out; what is no address is nobody."""
    assert rules().trusts(host) is trusted


def test_versions_and_limit_are_those_of_the_settings() -> None:
    """``no`` asks for nothing."""
    assert header_rules("no", (), 100, 5.0) is None
    line, block = encode_header_v1(None), encode_header_v2(None)
    assert rules("v1").decode(line) is not None
    assert rules("v2").decode(block) is not None
    assert rules("any").decode(line) is not None and rules("any").decode(block) is not None
    for protocol, other in (("v1", block), ("v2", line)):
        with pytest.raises(RemoteError):
            rules(protocol).decode(other)
    with pytest.raises(RemoteError, match="limit 100"):
        rules().decode(block[:-1] + b"\x60")

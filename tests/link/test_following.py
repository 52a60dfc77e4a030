"""Whether an agent goes where a server sends it."""

from types import SimpleNamespace
from typing import Any

import pytest

from revtunnel.ground.reasons import GoAway
from revtunnel.ground.server_places import ServerPlace, parse_server_place
from revtunnel.link.following import CONFIGURED, NO, VERIFIED, place_to_go

KNOWN = [
    parse_server_place("gate.example:2065"),
    parse_server_place("wss://web.example"),
    ServerPlace("node-2.example", 2065, name="example"),
]


def link(said: str, tls: str = "", reason: str = GoAway.STOPPING.word, at: ServerPlace = KNOWN[0]) -> Any:
    """A link that has ended, to a name of two addresses."""
    return SimpleNamespace(
        elsewhere=said,
        ended=(reason, ""),
        place=(at, "192.0.2.1"),
        addresses=("192.0.2.1", "192.0.2.2"),
        tls=tls,
    )


def test_nobody_sends_us() -> None:
    """No place, or no reason to be served by another one."""
    assert place_to_go(link(""), KNOWN, CONFIGURED) is None
    assert place_to_go(link("node-2.example:2065", reason="operator"), KNOWN, CONFIGURED) is None


@pytest.mark.parametrize("rule", [CONFIGURED, VERIFIED])
@pytest.mark.parametrize("tls", ["", "TLSv1.3"])
def test_to_what_is_known_it_goes(rule: str, tls: str) -> None:
    """As it is known: what DNS lists has its domain to prove, an address its name."""
    assert place_to_go(link("node-2.example:2065", tls), KNOWN, rule) == KNOWN[2]
    assert place_to_go(link("GATE.example:2065", tls), KNOWN, rule) == KNOWN[0]
    address = ServerPlace("192.0.2.2", 2065, name="gate.example")
    assert place_to_go(link("192.0.2.2:2065", tls), KNOWN, rule) == address


def test_verified_goes_anywhere_with_the_same_name_to_prove() -> None:
    """Over TLS alone; the name is what this server had to prove."""
    other = "10.0.0.9:443"
    assert place_to_go(link(other, "TLSv1.3"), KNOWN, VERIFIED) == ServerPlace(
        "10.0.0.9", 443, name="gate.example"
    )
    listed = place_to_go(link(other, "TLSv1.3", at=KNOWN[2]), KNOWN, VERIFIED, None)
    assert listed == ServerPlace("10.0.0.9", 443, name="example")
    named = place_to_go(link(other, "TLSv1.3"), KNOWN, VERIFIED, "cluster.example")
    assert named == ServerPlace("10.0.0.9", 443, name="cluster.example")


@pytest.mark.parametrize(
    ("said", "rule", "tls", "why"),
    [
        ("10.0.0.9:443", CONFIGURED, "TLSv1.3", "follow = configured"),
        ("192.0.2.2:2066", CONFIGURED, "", "follow = configured"),
        ("10.0.0.9:443", VERIFIED, "", "no TLS"),
        ("node-2.example:2065", NO, "TLSv1.3", "follow = no"),
        ("10.0.0.9:443", NO, "", "follow = no"),
        ("wss://web.example", VERIFIED, "TLSv1.3", "HOST:PORT wanted"),
        ("_x._tcp.example", VERIFIED, "TLSv1.3", "HOST:PORT wanted"),
        ("node 2", VERIFIED, "TLSv1.3", "HOST:PORT wanted"),
        ("unix:/run/x", VERIFIED, "TLSv1.3", "wanted"),
    ],
)
def test_elsewhere_it_does_not_go(said: str, rule: str, tls: str, why: str) -> None:
    """And says why."""
    with pytest.raises(ValueError, match=why):
        place_to_go(link(said, tls), KNOWN, rule)


def test_who_came_by_web_goes_nowhere_but_to_what_is_written() -> None:
    """Its name and its addresses are of a web listener."""
    with pytest.raises(ValueError, match="none of our servers"):
        place_to_go(link("192.0.2.2:443", "TLSv1.3", at=KNOWN[1]), KNOWN, VERIFIED)

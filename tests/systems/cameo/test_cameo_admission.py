"""Who may connect, who is local, and how many there may be."""

import ipaddress

import pytest

from revtunnel.fleet.strangers import NotLetIn
from revtunnel.ground.limits import CameoLimits
from revtunnel.systems.cameo.cameo_admission import CameoAdmission, CameoRules

MAIN, THIRD, OUTSIDE = CameoRules(""), CameoRules("", publishing=True), CameoRules("web", outside=True)
HERE = "192.0.2.1"


def networks(*texts: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Networks by their written forms."""
    return tuple(ipaddress.ip_network(text) for text in texts)


@pytest.mark.parametrize(
    ("peer", "here", "local"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.9.9.9", HERE, True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        (HERE, HERE, True),
        ("::ffff:192.0.2.1", HERE, True),
        ("fe80::1%eth0", "fe80::1%eth0", True),
        ("192.0.2.2", HERE, False),
        ("2001:db8::1", "2001:db8::2", False),
        ("10.1.2.3", HERE, True),  # trusted
    ],
)
def test_local_is_this_machine_or_a_trusted_network(peer: str, here: str, local: bool) -> None:
    """Loopback, or the address that the peer reached us at; IPv4 in IPv6 is IPv4."""
    admission = CameoAdmission(CameoLimits(), trusted=networks("10.0.0.0/8"))
    assert admission.is_local(peer, here, MAIN) is local
    assert (entered(admission, peer, here, THIRD) == "") is local


def test_nobody_is_local_at_an_outside_door_by_being_on_this_machine() -> None:
    """The agent dials from here for strangers; a trusted network stays trusted."""
    admission = CameoAdmission(CameoLimits(), trusted=networks("10.0.0.0/8"))
    assert not admission.is_local("127.0.0.1", "127.0.0.1", OUTSIDE)
    assert not admission.is_local(HERE, HERE, OUTSIDE)
    assert admission.is_local("10.1.1.1", HERE, OUTSIDE)


def entered(admission: CameoAdmission, peer: str, here: str, rules: CameoRules) -> str:
    """The word that says why a connection may not stay; "": it may, and has joined."""
    try:
        admission.enter(peer, here, rules, lambda why: None).stays()
    except NotLetIn as refused:
        return refused.reason
    return ""


def test_the_third_port_is_for_local_peers() -> None:
    """Publishers are on this machine."""
    admission = CameoAdmission(CameoLimits())
    assert entered(admission, "192.0.2.2", HERE, THIRD) == "not-local"
    assert entered(admission, HERE, HERE, THIRD) == ""


def test_allow_list() -> None:
    """With a list, only its networks and this machine; the agent's own connections are from this machine."""
    admission = CameoAdmission(CameoLimits(), allowed=networks("192.0.2.0/30", "2001:db8::/32"))
    assert entered(admission, "192.0.2.3", HERE, MAIN) == ""
    assert entered(admission, "2001:db8::7", HERE, MAIN) == ""
    assert entered(admission, "192.0.2.4", HERE, MAIN) == "not-allowed"
    assert entered(admission, "127.0.0.1", "127.0.0.1", OUTSIDE) == ""


def test_count_limits() -> None:
    """In all, with a quarter for this machine; of one address, unless it is this machine."""
    admission = CameoAdmission(CameoLimits(connections=8, connections_per_source=2))
    assert [entered(admission, "192.0.2.2", HERE, MAIN) for _ in range(3)] == [
        "",
        "",
        "too-many-of-this-address",
    ]
    assert [entered(admission, "127.0.0.1", "127.0.0.1", OUTSIDE) for _ in range(4)] == [""] * 4
    assert entered(admission, "192.0.2.3", HERE, MAIN) == "too-many-connections"
    assert [entered(admission, HERE, HERE, MAIN) for _ in range(3)] == ["", "", "too-many-connections"]
    assert admission.connections == 8


def test_a_silent_one_goes_for_who_comes() -> None:
    """Of the same address, where that has its share, or of all; one that joined stays."""
    went: list[str] = []
    admission = CameoAdmission(CameoLimits(connections=8, connections_per_source=2))
    for number in (2, 2, 2, 3, 4, 5, 6):
        admission.enter(f"192.0.2.{number}", HERE, MAIN, lambda why, n=number: went.append(n))  # type: ignore[misc]
    assert went == [2]
    admission.enter("192.0.2.7", HERE, MAIN, lambda why: None).stays()
    assert went == [2, 2]
    assert admission.connections == 6


def test_everything_is_given_back() -> None:
    """No count is left of addresses that are gone."""
    admission = CameoAdmission(CameoLimits())
    peers = [admission.enter(each, HERE, MAIN, lambda why: None) for each in ("192.0.2.2", "127.0.0.1", HERE)]
    for peer in peers:
        peer.leave()
    assert admission.connections == 0

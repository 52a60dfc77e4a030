"""Who may connect, who is local, and how many there may be."""

import ipaddress

import pytest

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
    assert (admission.enter(peer, here, THIRD) == "") is local


def test_nobody_is_local_at_an_outside_door_by_being_on_this_machine() -> None:
    """The agent dials from here for strangers; a trusted network stays trusted."""
    admission = CameoAdmission(CameoLimits(), trusted=networks("10.0.0.0/8"))
    assert not admission.is_local("127.0.0.1", "127.0.0.1", OUTSIDE)
    assert not admission.is_local(HERE, HERE, OUTSIDE)
    assert admission.is_local("10.1.1.1", HERE, OUTSIDE)


def test_the_third_port_is_for_local_peers() -> None:
    """Publishers are on this machine."""
    admission = CameoAdmission(CameoLimits())
    assert admission.enter("192.0.2.2", HERE, THIRD) == "not-local"
    assert admission.enter(HERE, HERE, THIRD) == ""


def test_allow_list() -> None:
    """With a list, only its networks and this machine; the agent's own connections are from this machine."""
    admission = CameoAdmission(CameoLimits(), allowed=networks("192.0.2.0/30", "2001:db8::/32"))
    assert admission.enter("192.0.2.3", HERE, MAIN) == ""
    assert admission.enter("2001:db8::7", HERE, MAIN) == ""
    assert admission.enter("192.0.2.4", HERE, MAIN) == "not-allowed"
    assert admission.enter("127.0.0.1", "127.0.0.1", OUTSIDE) == ""


def test_count_limits() -> None:
    """In all, with a quarter for this machine; of one address, unless it is this machine."""
    admission = CameoAdmission(CameoLimits(connections=8, connections_per_source=2))
    assert [admission.enter("192.0.2.2", HERE, MAIN) for _ in range(3)] == [
        "",
        "",
        "too-many-of-this-address",
    ]
    assert [admission.enter("127.0.0.1", "127.0.0.1", OUTSIDE) for _ in range(4)] == [""] * 4
    assert admission.enter("192.0.2.3", HERE, MAIN) == "too-many-connections"
    assert [admission.enter(HERE, HERE, MAIN) for _ in range(3)] == ["", "", "too-many-connections"]
    admission.leave("192.0.2.2", local=False)
    admission.leave(HERE, local=True)
    admission.leave("127.0.0.1", local=False)
    assert admission.enter("192.0.2.2", HERE, MAIN) == ""
    assert admission.connections == 6


def test_everything_is_given_back() -> None:
    """No count is left of addresses that are gone."""
    admission = CameoAdmission(CameoLimits())
    for peer in ("192.0.2.2", "127.0.0.1", HERE):
        assert admission.enter(peer, HERE, MAIN) == ""
    for peer in ("192.0.2.2", "127.0.0.1", HERE):
        admission.leave(peer, admission.is_local(peer, HERE, MAIN))
    assert admission.connections == 0 and not admission._sources

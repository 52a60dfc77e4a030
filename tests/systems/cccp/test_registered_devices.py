"""The desk where CCCP devices say their serial: in which words somebody is refused, and that nobody stays."""

import contextlib
import socket
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from revtunnel.ground.policy import CccpLimits
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.systems.cccp.cccp_facts import RegistrationRefused
from revtunnel.systems.cccp.registered_devices import PARTING, Project, Registrations
from tests.sockets.test_ends import over_tls
from tests.support.epoll import own_reactor
from tests.support.memory import Network, Recorder

PEER = IPv4Address("TCP", "192.0.2.7", 40001)
LIMITS = CccpLimits()


class Front:
    """A desk with one project, and nobody who gets past it."""

    def __init__(self, *serials: str) -> None:
        self.clock: Any = Clock()
        self.told: list[Any] = []
        self.registrations = Registrations(self.clock, lambda: LIMITS, self.told.append, self.told.append)
        self.registrations.projects = {"main": Project("main", "p", serials=frozenset(serials))}

    def line(self) -> Any:
        """What takes a fresh connection."""
        return self.registrations.factory("main").buildProtocol(PEER)

    def refused(self) -> tuple[str, str]:
        """Why the only connection was refused: word and sentence."""
        (fact,) = self.told
        assert isinstance(fact, RegistrationRefused) and self.registrations.waiting == 0
        return fact.reason, fact.detail


@pytest.mark.parametrize(
    ("said", "wait", "reason"),
    [
        (b"", LIMITS.registration, "silent"),
        (b"CLD-2\r", LIMITS.registration, "unknown"),
        (b"no serial\r", 0.0, "protocol"),
    ],
)
def test_who_is_refused_cannot_stay(said: bytes, wait: float, reason: str) -> None:
    """TLS has a last word of its own; one who takes nothing is cut without it, and no timer stays."""
    front = Front("CLD-1")
    with own_reactor() as loop:
        device, end = over_tls(*socket.socketpair())
        with contextlib.suppress(BlockingIOError):
            while end.sock.send(bytes(4096)):
                pass
        EndTransport(loop.reactor, end, front.line()).start()
        if said:
            device.write(said)
        loop.settle()
        front.clock.advance(wait)
        loop.settle()
        assert front.refused()[0] == reason
        assert end.fileno() >= 0
        front.clock.advance(PARTING)
        loop.settle()
        assert end.fileno() < 0
        assert front.clock.getDelayedCalls() == []
        device.close()


@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + bytes(80),
            "protocol",
            "this is TLS: see tls in [cccp-project NAME]",
        ),
        (
            b"\x16\x03\x01\x02\x00\x01\r" + bytes(80),
            "protocol",
            "this is TLS: see tls in [cccp-project NAME]",
        ),
        (b"GET / HTTP/1.1\r\n\r\n", "protocol", "this is HTTP: CCCP's API is at http in [cccp]"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", "protocol", "this is SSH: clients of devices dial"),
        (b"PROXY UNKNOWN\r\nCLD-1\r", "protocol", "this is a PROXY header: "),
        (bytes.fromhex("00000400"), "silent", "this is rt1: agents dial address in [listener NAME]"),
        (b"C005010\n", "silent", "this is EMO: machines need kind = emo in [listener NAME]"),
    ],
)
@pytest.mark.parametrize("cuts", [None, 1])
def test_what_a_stranger_speaks_is_named_in_the_log(
    said: bytes, reason: str, words: str, cuts: int | None
) -> None:
    """However its bytes come; with the setting that answers it."""
    front = Front()
    network = Network(front.clock)
    network.join(Recorder(), front.line(), cuts=cuts).near.write(said)
    network.advance(LIMITS.registration)
    told, detail = front.refused()
    assert (told, words in detail) == (reason, True), detail
    network.pump()


def test_n1_one_address_has_so_many_connections_without_a_serial() -> None:
    """The next one is not even read; another address is, and so is the next when one has gone."""
    front = Front()
    lines = [front.line() for _ in range(LIMITS.pending_per_source)]
    assert front.told == [] and front.line() is None
    assert front.told[-1].reason == "overloaded"
    other = IPv4Address("TCP", "192.0.2.8", 40001)
    assert front.registrations.factory("main").buildProtocol(other) is not None
    lines[0].close("silent", "")
    assert front.line() is not None


def test_r1_an_address_that_failed_too_often_is_not_read() -> None:
    """Lines that are none cost it its turn, here as at any listener."""
    front = Front()
    network = Network(front.clock)
    while (line := front.line()) is not None:
        network.join(Recorder(), line).near.write(b"no serial\r")
        network.pump()
        assert len(front.told) < 10
    reasons = [fact.reason for fact in front.told]
    assert reasons[-1] == "penalty" and set(reasons[:-1]) == {"protocol"}
    network.advance(PARTING)


def test_a_serial_that_may_not_be_is_not_explained() -> None:
    """It came to the right door."""
    front = Front()
    network = Network(front.clock)
    network.join(Recorder(), front.line()).near.write(b"a/../b\r")
    network.pump()
    assert front.refused()[1].endswith("printable characters without space wanted")

"""The desk where CCCP devices say their serial: in which words somebody is refused, and that nobody stays."""

import contextlib
import socket
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.task import Clock

from revtunnel.ground.limits import CccpLimits
from revtunnel.systems.cccp.cccp_facts import RegistrationRefused
from revtunnel.systems.cccp.registered_devices import PARTING, Project, Registrations
from tests.sockets.test_ends import over_tls
from tests.support.epoll import own_reactor
from tests.support.memory import Network, OurSide, Recorder

EVENTS = ("addReader", "removeReader", "addWriter", "removeWriter")
LIMITS = CccpLimits()


class Front:
    """A desk with one project, and nobody who gets past it."""

    def __init__(self, reactor: Any, *serials: str) -> None:
        self.told: list[Any] = []
        self.registrations = Registrations(reactor, lambda: LIMITS, self.told.append, self.told.append)
        self.registrations.projects = {"main": Project("main", "p", serials=frozenset(serials))}
        self.came = partial(self.registrations.came, "main")

    def refused(self) -> tuple[str, str]:
        """Why the only connection was refused: word and sentence."""
        (fact,) = self.told
        assert isinstance(fact, RegistrationRefused) and self.registrations.waiting == 0
        return fact.reason, fact.detail


def device(
    network: Network,
    front: Front,
    said: bytes = b"",
    cuts: int | None = None,
    source: str = "192.0.2.7",
) -> Recorder:
    """Somebody connects and says something."""
    pair = network.join(recorder := Recorder(), None, cuts=cuts, source=source)
    assert isinstance(pair.far, OurSide)
    front.came(pair.far.plain)
    recorder.transport.write(said)  # type: ignore[union-attr]
    return recorder


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
    clock = Clock()
    with own_reactor() as loop:
        events = {name: getattr(loop.reactor, name) for name in EVENTS}
        front = Front(SimpleNamespace(seconds=clock.seconds, callLater=clock.callLater, **events), "CLD-1")
        device, end = over_tls(*socket.socketpair())
        with contextlib.suppress(BlockingIOError):
            while end.sock.send(bytes(4096)):
                pass
        front.came(end)
        if said:
            device.write(said)
        loop.settle()
        clock.advance(wait)
        clock.advance(0)
        loop.settle()
        assert front.refused()[0] == reason
        assert end.fileno() >= 0
        clock.advance(PARTING)
        clock.advance(0)
        loop.settle()
        assert end.fileno() < 0
        assert clock.getDelayedCalls() == []
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
    network = Network()
    front = Front(network)
    device(network, front, said, cuts)
    network.advance(LIMITS.registration)
    told, detail = front.refused()
    assert (told, words in detail) == (reason, True), detail
    network.pump()


def test_n1_one_address_has_so_many_connections_without_a_serial() -> None:
    """The next one is not even read; another address is, and so is the next when one has gone."""
    network = Network()
    front = Front(network)
    first = device(network, front, b"A")
    for _ in range(LIMITS.pending_per_source - 1):
        device(network, front, b"A")
    network.pump()
    assert front.told == []
    device(network, front)
    assert [fact.reason for fact in front.told] == ["overloaded"]
    device(network, front, source="192.0.2.8")
    first.transport.abortConnection()  # type: ignore[union-attr]
    network.pump()
    device(network, front)
    assert [fact.reason for fact in front.told] == ["overloaded", "lost"]
    device(network, front)
    assert front.told[-1].detail == "silent for 0.0 s, and its place was needed"


def test_r1_an_address_that_failed_too_often_is_not_read() -> None:
    """Lines that are none cost it its turn, here as at any listener."""
    network = Network()
    front = Front(network)
    while not front.told or front.told[-1].reason != "penalty":
        device(network, front, b"no serial\r")
        network.pump()
        assert len(front.told) < 10
    assert {fact.reason for fact in front.told[:-1]} == {"protocol"}
    network.advance(PARTING)


def test_a_serial_that_may_not_be_is_not_explained() -> None:
    """It came to the right door."""
    network = Network()
    front = Front(network)
    device(network, front, b"a/../b\r")
    network.pump()
    assert front.refused()[1].endswith("printable characters without space wanted")

"""Crowds of strangers at a server that exempts no address, and wrong agents beside good ones, over TLS."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.loopback import test_enrolment, test_tls
from tests.support.daemons import Lab, Server
from tests.support.services import Echo
from tests.support.traffic import connect, read_exactly

pytestmark = pytest.mark.slow

STALLED = b"\x16\x03\x01"  # the beginning of a ClientHello
NOBODY = {"exempt": ""}


@pytest.fixture
def firm(lab: Lab) -> test_tls.Firm:
    """An authority, its server and its devices."""
    return test_tls.Firm(lab)


def crowd(stack: ExitStack, port: int, sockets: int, addresses: int, words: bytes) -> None:
    """So many connections that say so much, from so many addresses of 127.0.0.0/8."""
    for number in range(sockets):
        source = f"127.1.{number % addresses // 250}.{1 + number % addresses % 250}"
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10, (source, 0)))
        sock.sendall(words)


def junk(port: int, count: int) -> None:
    """Somebody at 127.0.0.1 who speaks no TLS."""
    for _ in range(count):
        with suppress(ConnectionError), connect(port) as sock:  # perhaps even while it connects
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            sock.recv(1)


def echoes(client: socket.socket) -> bool:
    """Whether a client gets its answer."""
    client.sendall(b"?")
    return read_exactly(client, 1) == b"?"


def server_of(firm: test_tls.Firm) -> Server:
    """A server that judges loopback like any other address; 12 of 16 places are for strangers."""
    settings = firm.listener() | {"penalties": NOBODY, "link": {"handshake": "60 s"}}
    server: Server = firm.lab.server(settings | {"limits": {"pending": 16, "pending_per_source": 16}}).start()
    return server


@pytest.mark.parametrize("words", [b"", STALLED], ids=["silent", "stalled"])
def test_a_crowd_keeps_nobody_out(firm: test_tls.Firm, words: bytes) -> None:
    """300 connections from 150 addresses: agents come in, and a link that is up serves its client."""
    with ExitStack() as stack, Echo() as echo:
        server = server_of(firm)
        firm.agent(server, firm.issuer.device("plc-7"), offers={"it": echo.target})
        server.wait_link("plc-7")
        client = stack.enter_context(connect(server.client_port("plc-7", "it")))
        assert echoes(client)
        crowd(stack, server.port, 300, 150, words)
        for number in range(3):
            serial = f"honest-{number}"
            firm.agent(server, firm.issuer.device(serial), serial, name=serial)
            server.wait_link(serial)
            assert echoes(client)
        assert not server.events("link-down")


def test_a_good_device_behind_the_address_of_a_bad_one(firm: test_tls.Firm) -> None:
    """Its address owes minutes: its client is served all the same, and the agent comes back when killed."""
    with Echo() as echo:
        server = server_of(firm)
        agent = firm.agent(server, firm.issuer.device("plc-7"), offers={"it": echo.target})
        server.wait_link("plc-7")
        junk(server.port, 30)
        for _ in range(5):
            with connect(server.client_port("plc-7", "it")) as client:
                assert echoes(client)
        agent.kill()
        agent.start()
        server.wait_link("plc-7", 2)
        assert not server.events("link-refused", reason="penalty")


@pytest.fixture
def site(lab: Lab) -> Iterator[test_enrolment.Firm]:
    """A server that enrols."""
    firm = test_enrolment.Firm(lab)
    firm.server.write(penalties=NOBODY)
    yield firm.start()


def test_a_device_enrols_from_the_address_of_a_bad_one(site: test_enrolment.Firm) -> None:
    """Nobody has proved anything there: the address has a try now and then."""
    junk(site.server.port, 10)
    assert site.server.events("link-refused", reason="penalty")
    site.agent(site.token()).start()
    assert site.server.wait_link("plc-7")["authenticated"]

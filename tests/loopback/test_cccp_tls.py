"""CCCP devices over mutual TLS: the line, sessions of every mixture, and two holders of one serial."""

import socket
import ssl
import struct

import pytest

from tests.loopback.test_cccp import silent
from tests.support.cccp_site import CccpDaemon, closed, connect
from tests.support.daemons import Lab
from tests.support.throwaway_tls import Issued, Issuer
from tests.support.traffic import read_exactly

pytestmark = pytest.mark.slow


class Firm:
    """An authority, its daemon and its devices."""

    def __init__(self, lab: Lab, **more: object) -> None:
        self.issuer = Issuer(lab.directory)
        issued = self.issuer.server("127.0.0.1")
        settings = {
            "cccp": {"registration": "3 s"},
            "cccp-project main": {
                "tls": "yes",
                "certificate": issued.certificate_file,
                "certificate_key": issued.key_file,
                "authority": self.issuer.file,
                **more,
            },
        }
        self.system: CccpDaemon = lab.add(CccpDaemon(lab.directory, settings)).start()

    def dial(self, device: Issued | None) -> ssl.SSLSocket:
        """A connection of a device, shaken."""
        context = ssl.create_default_context(cafile=self.issuer.file)
        if device is not None:
            context.load_cert_chain(device.certificate_file, device.key_file)
        return context.wrap_socket(connect(self.system.device_port), server_hostname="127.0.0.1")

    def device(self, device: Issued, serial: str, payload: bytes = b"") -> ssl.SSLSocket:
        """A device that has registered."""
        before = len(self.system.events("device-registered", serial=serial))
        found = self.dial(device)
        found.sendall(serial.encode() + b"\r" + payload)
        self.system.wait_event("device-registered", before + 1, serial=serial, authenticated=True)
        return found


@pytest.fixture
def firm(lab: Lab) -> Firm:
    """One daemon that wants certificates."""
    return Firm(lab)


@pytest.mark.parametrize("persistent", ["true", "false"])
def test_bytes_over_tls(firm: Firm, persistent: str) -> None:
    """Plain clients, TLS devices; counted; nothing is said to a device before a client speaks."""
    device = firm.device(firm.issuer.device("CLD-1"), "CLD-1")
    client = connect(firm.system.on("CLD-1", persistent=persistent))
    firm.system.until_status("CLD-1", (True, True, 0))
    assert silent(device)
    device.settimeout(20)
    device.sendall(bytes(300_000))
    assert len(read_exactly(client, 300_000)) == 300_000
    client.sendall(bytes(200_000))
    assert len(read_exactly(device, 200_000)) == 200_000
    firm.system.until_status("CLD-1", (True, True, 500_000))
    client.close()
    if persistent == "true":
        firm.system.until_status("CLD-1", (True, False, 500_000))
        firm.system.ask("/off", serial="CLD-1")
    assert closed(device) == "end"


def test_early_bytes_of_a_tls_device_are_held(firm: Firm) -> None:
    """Unread, or glued to the line in one record: they come when the client does."""
    port = firm.system.on("CLD-1")
    device = firm.device(firm.issuer.device("CLD-1"), "CLD-1", b"glued ")
    device.sendall(b"held")
    client = connect(port)
    assert read_exactly(client, 10) == b"glued held"


def test_r11_serial_of_another_certificate(firm: Firm) -> None:
    """Refused, and it costs its address; nobody is registered."""
    device = firm.dial(firm.issuer.device("CLD-1"))
    device.sendall(b"CLD-2\r")
    assert closed(device) in ("end", "reset")
    refused = firm.system.wait_event("registration-refused", serial="CLD-2")
    assert (refused["reason"], "CLD-1" in refused["detail"]) == ("denied", True)
    assert firm.system.ask("/devices")[1]["devices"] == []


def test_no_certificate_no_tls_no_word(firm: Firm) -> None:
    """None of them becomes a device; what is no TLS gets no answer."""
    plain = connect(firm.system.device_port)
    plain.sendall(b"CLD-1\r")
    assert closed(plain) in ("end", "reset")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        firm.dial(None).recv(1)
    mute = connect(firm.system.device_port)
    assert closed(mute) in ("end", "reset")
    firm.system.wait_event("registration-refused", reason="certificate")
    firm.system.wait_event("registration-refused", reason="silent")


def test_r10_a_device_comes_back_beside_its_half_open_connection(lab: Lab) -> None:
    """At once, whatever ``duplicate`` says: it has proved who it is."""
    firm = Firm(lab, duplicate="oldest")
    issued = firm.issuer.device("CLD-1")
    old = firm.device(issued, "CLD-1")
    client = connect(firm.system.on("CLD-1", persistent="true"))
    new = firm.device(issued, "CLD-1")
    client.sendall(b"x")
    assert new.recv(1) == b"x"
    assert closed(old) == "end"


def test_r9_two_holders_of_one_certificate(firm: Firm) -> None:
    """More than three swaps in a minute: both are out for a while, and an alarm says so."""
    issued = firm.issuer.device("CLD-1")
    for _ in range(4):
        last = firm.device(issued, "CLD-1")
    other = firm.dial(issued)
    other.sendall(b"CLD-1\r")
    assert closed(other) in ("end", "reset") and closed(last) in ("end", "reset")
    firm.system.wait_event("duplicate-device", stays="neither", serial="CLD-1")
    assert firm.system.ask("/devices")[1]["devices"] == []
    again = firm.dial(issued)
    again.sendall(b"CLD-1\r")
    assert closed(again) in ("end", "reset")


def test_a_cut_tls_device_ends_a_one_shot_session(firm: Firm) -> None:
    """A reset without close_notify; the client sees the end of what came before."""
    device = firm.device(firm.issuer.device("CLD-1"), "CLD-1")
    client = connect(firm.system.on("CLD-1"))
    firm.system.until_status("CLD-1", (True, True, 0))
    device.sendall(b"last")
    assert read_exactly(client, 4) == b"last"
    device.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    device.close()
    assert closed(client) == "end"
    firm.system.until_status("CLD-1", None)
